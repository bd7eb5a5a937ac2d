"""Images and charts; every drawing function writes one file and returns its path."""

from __future__ import annotations

from ladle.visual.assignments import assignment_jpeg, draw_assignment, positives_per_object
from ladle.visual.bars import Bar, BarPanel, draw_bars
from ladle.visual.charts import draw_comparison, draw_confusion, draw_history, draw_precision_recall
from ladle.visual.images import Panel, draw_detections, side_by_side
from ladle.visual.lettering import unwritten
from ladle.visual.maps import draw_maps
from ladle.visual.palette import color

__all__ = [
    "Bar",
    "BarPanel",
    "Panel",
    "assignment_jpeg",
    "color",
    "draw_assignment",
    "draw_bars",
    "draw_comparison",
    "draw_confusion",
    "draw_detections",
    "draw_history",
    "draw_maps",
    "draw_precision_recall",
    "positives_per_object",
    "side_by_side",
    "unwritten",
]
