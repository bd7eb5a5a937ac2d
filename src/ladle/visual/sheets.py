"""Panels side by side, each with the same image in pale colors and the boxes of its objects."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import UInt8
from torch import Tensor

from ladle.types import GroundTruth
from ladle.visual.palette import MUTED, color

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LINE", "Sheet", "draw_boxes", "draw_image", "sheet"]

_IN_A_ROW = 4
_PANEL = 5.0
"""Longer side of a panel in inches."""
_NARROWEST = 2.9
"""Smallest width of a panel in inches, for its title."""
_LEAST_WIDTH = 5.2
"""Smallest width of the figure in inches, for the legend."""
_GAP, _TITLE, _LEGEND = 0.22, 0.62, 0.55
"""Space between panels, above each panel, and below all, in inches."""
_POINT = 1 / 72
"""A typographic point in inches."""
LINE = 1.6
"""Width of a box's line in points."""


class Sheet(NamedTuple):
    """The layout of the panels: sizes in inches, ``panel`` in fractions of the figure."""

    columns: int
    rows: int
    panel_width: float
    panel_height: float
    points_per_pixel: float

    @property
    def width(self) -> float:
        """Width of the figure in inches."""
        return max(self.columns * (self.panel_width + _GAP) + _GAP, _LEAST_WIDTH)

    @property
    def height(self) -> float:
        """Height of the figure in inches."""
        return self.rows * (self.panel_height + _TITLE) + _LEGEND

    def panel(self, number: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel in fractions of the figure."""
        row, column = divmod(number, self.columns)
        margin = (self.width - self.columns * (self.panel_width + _GAP) + _GAP) / 2
        left = margin + column * (self.panel_width + _GAP)
        bottom = self.height - (row + 1) * (self.panel_height + _TITLE)
        wide, high = self.panel_width / self.width, self.panel_height / self.height
        return left / self.width, bottom / self.height, wide, high


def sheet(height: int, width: int, panels: int) -> Sheet:
    """The layout of ``panels`` panels for an image of this size, at most four in a row."""
    scale = max(_PANEL / max(height, width), _NARROWEST / width)
    columns = min(panels, _IN_A_ROW)
    return Sheet(columns, ceil(panels / columns), width * scale, height * scale, scale / _POINT)


def draw_image(axes: Axes, image: UInt8[Tensor, "3 H W"]) -> None:
    """Draw the image in pale colors, so that dots and boxes stand out."""
    pale = image.float().cpu().lerp(image.float().cpu().mean(0, keepdim=True), 0.35).lerp(torch.tensor(255.0), 0.5)
    height, width = image.shape[1:]
    axes.imshow(pale.byte().permute(1, 2, 0).numpy(), extent=(0, width, height, 0), interpolation="bilinear")
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")


def draw_boxes(axes: Axes, truth: GroundTruth) -> None:
    """Draw the boxes of a batch of one in the colors of their objects; crowd regions are dashed."""
    for index, box in enumerate(truth.boxes[0].tolist()):
        if truth.learnable[0, index]:
            _draw_box(axes, box, color(index), LINE, "solid")
        elif truth.valid[0, index]:
            _draw_box(axes, box, MUTED, 1.1, (0, (4, 3)))


def _draw_box(axes: Axes, box: Sequence[float], shade: str, width: float, style: Any) -> None:
    from matplotlib.patches import Rectangle as Patch

    x1, y1, x2, y2 = box
    axes.add_patch(Patch((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=shade, linewidth=width, linestyle=style))
