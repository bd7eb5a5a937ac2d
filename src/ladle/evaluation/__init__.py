"""Metrics of detections: COCO's average precision and recall, precision-recall curves, confusion matrices."""

from __future__ import annotations

from ladle.evaluation.average_precision import Evaluation, Reference, check_names, coco_results, evaluate
from ladle.evaluation.curves import Confusion, PrecisionRecall, confusion, precision_recall

__all__ = [
    "Confusion",
    "Evaluation",
    "PrecisionRecall",
    "Reference",
    "check_names",
    "coco_results",
    "confusion",
    "evaluate",
    "precision_recall",
]
