"""Maps of one number per feature cell, drawn over the image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ladle.errors import UserError
from ladle.types import GroundTruth
from ladle.visual.charts import new_figure, save_figure
from ladle.visual.lettering import default_style, labels_of, write
from ladle.visual.palette import INK, MUTED
from ladle.visual.sheets import draw_boxes, draw_image, sheet

__all__ = ["draw_maps"]

_SHADE = "#0072b2"
_OPAQUE = 0.9
"""Opacity of the largest value of a panel."""


@default_style()
def draw_maps(
    image: UInt8[Tensor, "3 H W"], truth: GroundTruth, maps: Mapping[str, Float[Tensor, "_h _w"]], path: Path | str
) -> Path:
    """Draw each map in one panel; cells of larger values are darker, and 0 is not drawn.

    A cell (y, x) covers ``H/h`` by ``W/w`` pixels. Titles are the keys of ``maps``, with the largest value below them.
    ``truth`` is a batch of one.
    """
    if not maps:
        raise UserError("there is no map to draw, expected at least one: give it with its title")
    paper = sheet(image.shape[1], image.shape[2], len(maps))
    figure = new_figure(paper.width, paper.height)
    height, width = image.shape[1:]
    titles = labels_of(list(maps), "map", bold=True)
    for number, (title, values) in enumerate(zip(titles, maps.values(), strict=True)):
        axes = figure.add_axes(paper.panel(number))
        draw_image(axes, image)
        draw_boxes(axes, truth.to("cpu"))
        cells = values.detach().float().cpu()
        most = float(cells.max())
        shown = (cells / most if most > 0 else cells).clamp(min=0)
        axes.imshow(
            _rgba(shown).numpy(),
            extent=(0, width, height, 0),
            interpolation="nearest",
            zorder=1.5,
        )
        axes.set(xlim=(0, width), ylim=(height, 0))
        place = (0, 1), (0, 22), "axes fraction", "offset points"
        write(axes.annotate("", *place, fontsize=12.5, color=INK), title)
        below = (0, 1), (0, 8), "axes fraction", "offset points"
        axes.annotate(f"darkest: {most:.3g}", *below, fontsize=9, color=MUTED)
    return save_figure(figure, path)


def _rgba(shown: Float[Tensor, "h w"]) -> Float[Tensor, "h w 4"]:
    """One color, more opaque for larger values."""
    parts = [int(_SHADE[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return torch.stack([*(torch.full_like(shown, part) for part in parts), _OPAQUE * shown], dim=-1)
