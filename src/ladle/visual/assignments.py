"""An image that shows which priors learn which object, to compare label assignments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ladle.errors import UserError
from ladle.types import Assignment, GroundTruth, Priors
from ladle.visual.charts import jpeg_of, new_figure, save_figure
from ladle.visual.images import Rectangle, free_place
from ladle.visual.lettering import Label, default_style, labels_of, write
from ladle.visual.palette import INK, MUTED, color, ink_on
from ladle.visual.sheets import LINE, draw_boxes, draw_image, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["assignment_jpeg", "draw_assignment", "positives_per_object"]

_DOT = (2.2, 5.0)
"""Smallest and largest diameter of the dots of the finest level, in points; in between, neighbors nearly touch."""
_GROWTH = 0.42
"""Exponent of the stride in the diameter of a dot: a stride 16 times as large gives a diameter 3.2 times as large."""
_FEW = 16
"""With more objects the numbers are smaller."""
_RIM = 0.12
"""Width of the white border of a dot, relative to its diameter."""
_FAINTEST = 0.15
"""Lowest opacity of a prior of a soft plan."""


def positives_per_object(assignment: Assignment, truth: GroundTruth) -> Float[Tensor, "B G"]:
    """The number of priors that learn each object with any affinity; 0 for padding and crowds."""
    count = truth.labels.shape[1]
    learns = Assignment(assignment.objects, (assignment.affinity > 0).float(), assignment.background)
    return learns.dense(count).sum(1) * truth.learnable


@default_style()
def draw_assignment(
    image: UInt8[Tensor, "3 H W"],
    truth: GroundTruth,
    priors: Priors,
    plans: Mapping[str, Assignment],
    path: Path | str,
) -> Path:
    """Draw the positive priors of each plan as dots in the color of their object, one panel per plan.

    A dot is at the center of its prior and is larger on levels of larger stride; proposals, which have no stride, are
    drawn as boxes. A prior that learns several objects has the color of the one of highest affinity, and lower
    affinities are drawn fainter. Grey crosses are ignored priors, the number at a box is its number of positives, and a
    dashed box is a crowd region.

    Args:
        image: the image.
        truth: the objects, a batch of one.
        priors: the priors, a batch of one.
        plans: the plans by title, each a batch of one.
        path: the file to write.

    Raises:
        UserError: without a plan, or for a batch of several images.
    """
    return save_figure(_figure(image, truth, priors, plans), path)


@default_style()
def assignment_jpeg(
    image: UInt8[Tensor, "3 H W"], truth: GroundTruth, priors: Priors, plans: Mapping[str, Assignment], dpi: int = 110
) -> bytes:
    """What :func:`draw_assignment` draws, as the bytes of a JPEG file."""
    return jpeg_of(_figure(image, truth, priors, plans), dpi)


def _figure(
    image: UInt8[Tensor, "3 H W"], truth: GroundTruth, priors: Priors, plans: Mapping[str, Assignment]
) -> Figure:
    if not plans:
        raise UserError("there is no plan to draw, expected at least one assignment: give it with its title")
    if len(truth.labels) != 1:
        raise UserError(f"draw_assignment draws one image, found a batch of {len(truth.labels)}: cut one out first")
    truth, priors = truth.to("cpu"), priors.to("cpu")
    plans = {title: plan.to("cpu") for title, plan in plans.items()}
    paper = sheet(image.shape[1], image.shape[2], len(plans))
    figure = new_figure(paper.width, paper.height)
    titled = zip(labels_of(list(plans), "plan", bold=True), plans.values(), strict=True)
    for number, (title, plan) in enumerate(titled):
        axes = figure.add_axes(paper.panel(number))
        draw_image(axes, image)
        counts = positives_per_object(plan, truth)[0]
        draw_boxes(axes, truth)
        _draw_priors(axes, priors, plan, paper.points_per_pixel)
        dots = _dots(priors, plan, paper.points_per_pixel)
        _draw_counts(axes, truth, counts, dots, paper.points_per_pixel)
        _draw_title(axes, title, counts[truth.learnable[0]])
    ignored = any(_ignored(priors, plan).any().item() for plan in plans.values())
    _draw_legend(figure, priors, paper.points_per_pixel, ignored, bool(truth.crowd.any()))
    return figure


def _draw_priors(axes: Axes, priors: Priors, plan: Assignment, points_per_pixel: float) -> None:
    x, y = priors.centers[0].numpy().T
    ignored = _ignored(priors, plan).numpy()
    axes.scatter(x[ignored], y[ignored], s=9, marker="x", color=MUTED, alpha=0.4, linewidths=0.6, zorder=2)
    if not plan.positive.any():
        return
    strength, choice = plan.affinity[0].max(-1)
    objects = plan.objects[0].gather(-1, choice[:, None])[:, 0]
    # Coarse levels first, so that their large dots do not hide the small ones.
    order = torch.nonzero(plan.positive[0])[:, 0].flip(0)
    opacity = (strength / strength.max()).clamp(min=_FAINTEST)[order].tolist()
    if _are_proposals(priors):
        _draw_proposals(axes, priors.boxes[0, order], objects[order].tolist(), opacity)
        return
    diameter = _diameter(priors.stride[order], priors, points_per_pixel)
    axes.scatter(
        x[order],
        y[order],
        s=diameter.square().numpy(),
        c=[(color(index), alpha) for index, alpha in zip(objects[order].tolist(), opacity, strict=True)],
        edgecolors=[(1.0, 1.0, 1.0, alpha) for alpha in opacity],
        linewidths=(_RIM * diameter).clamp(max=0.6).tolist(),
        zorder=3,
        clip_on=False,
    )


def _draw_proposals(axes: Axes, boxes: Float[Tensor, "n 4"], objects: list[int], opacity: list[float]) -> None:
    from matplotlib.patches import Rectangle as Patch

    for (x1, y1, x2, y2), number, alpha in zip(boxes.tolist(), objects, opacity, strict=True):
        shade = color(number)
        axes.add_patch(Patch((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=shade, alpha=0.6 * alpha, linewidth=0.8))


def _are_proposals(priors: Priors) -> bool:
    """Whether the priors are proposals and not on a grid: their stride is 1."""
    return bool((priors.stride == 1).all())


def _ignored(priors: Priors, plan: Assignment) -> Bool[Tensor, " P"]:
    """The priors that get a cross: those on a grid that are neither positive nor background."""
    return priors.valid[0] & ~plan.positive[0] & (plan.background[0] == 0) & (not _are_proposals(priors))


def _diameter(stride: Float[Tensor, " n"], priors: Priors, points_per_pixel: float) -> Float[Tensor, " n"]:
    """The diameter of the dot of a prior by its stride, in points."""
    finest = priors.stride.min()
    return (0.85 * finest * points_per_pixel).clamp(*_DOT) * (stride / finest) ** _GROWTH


def _dots(priors: Priors, plan: Assignment, points_per_pixel: float) -> list[Rectangle]:
    """The squares around the dots of a plan, which numbers should not cover; none for proposals."""
    if _are_proposals(priors):
        return []
    chosen = plan.positive[0]
    half = _diameter(priors.stride[chosen], priors, points_per_pixel)[:, None] / points_per_pixel / 2
    centers = priors.centers[0, chosen]
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in torch.cat([centers - half, centers + half], 1).tolist()]


def _draw_counts(
    axes: Axes, truth: GroundTruth, counts: Float[Tensor, " G"], dots: Sequence[Rectangle], points_per_pixel: float
) -> None:
    """Write the number of positives at every box, where it covers the fewest dots and no other number."""
    bounds = (axes.get_xlim()[1], axes.get_ylim()[0])
    size = (8.0 if int(truth.learnable.sum()) <= _FEW else 6.5) / points_per_pixel
    edge = LINE / 2 / points_per_pixel
    taken = list(dots)
    for index in torch.nonzero(truth.learnable[0])[:, 0].tolist():
        text = f"{int(counts[index])}"
        x1, y1, x2, y2 = truth.boxes[0, index].tolist()
        outline = (x1 - edge, y1 - edge, x2 + edge, y2 + edge)
        place = free_place(outline, ((0.64 * len(text) + 0.7) * size, 1.45 * size), taken, bounds)
        # Several times, because covering a number is worse than covering a dot.
        taken += [place] * 4
        _draw_tag(axes, place, text, color(index), size * points_per_pixel)


def _draw_tag(axes: Axes, place: Rectangle, text: str, shade: str, size: float) -> None:
    from matplotlib.patches import Rectangle as Patch

    x1, y1, x2, y2 = place
    axes.add_patch(Patch((x1, y1), x2 - x1, y2 - y1, facecolor=shade, linewidth=0, zorder=4))
    axes.text(
        (x1 + x2) / 2,
        (y1 + y2) / 2,
        text,
        ha="center",
        va="center_baseline",
        fontsize=size,
        fontweight="bold",
        color=ink_on(shade),
        zorder=5,
    )


def _draw_title(axes: Axes, title: Label, counts: Float[Tensor, " n"]) -> None:
    write(axes.annotate("", (0, 1), (0, 22), "axes fraction", "offset points", fontsize=12.5, color=INK), title)
    axes.annotate(_summary(counts), (0, 1), (0, 8), "axes fraction", "offset points", fontsize=9, color=MUTED)


def _summary(counts: Float[Tensor, " n"]) -> str:
    """The subtitle of a panel."""
    if not len(counts):
        return "no objects"
    words = f"{int(counts.sum())} positives on {len(counts)} object{'s' if len(counts) > 1 else ''}"
    if len(counts) > 1:
        words += f", {int(counts.min())} to {int(counts.max())} each"
    return words


def _draw_legend(figure: Figure, priors: Priors, scale: float, ignored: bool, crowd: bool) -> None:
    from matplotlib.lines import Line2D

    if _are_proposals(priors):
        entries = [Line2D([], [], linewidth=0.8, color=MUTED, label="a proposal that learns the object of its color")]
    else:
        entries = [Line2D([], [], linestyle="", label="stride"), *_samples_of_strides(priors, scale)]
    if ignored:
        entries.append(Line2D([], [], linestyle="", marker="x", markersize=4, color=MUTED, alpha=0.6, label="ignored"))
    if crowd:
        entries.append(Line2D([], [], linestyle=(0, (4, 3)), linewidth=1.1, color=MUTED, label="crowd"))
    figure.legend(
        handles=entries,
        loc="lower center",
        ncols=len(entries),
        frameon=False,
        fontsize=9,
        labelcolor=MUTED,
        handlelength=1.6,
        handletextpad=0.4,
        columnspacing=1.3,
        borderaxespad=0.6,
    )


def _samples_of_strides(priors: Priors, scale: float) -> list[Line2D]:
    """A dot for each stride, for the legend."""
    from matplotlib.lines import Line2D

    strides = torch.tensor(sorted(set(priors.stride.tolist())))
    sizes = _diameter(strides, priors, scale).tolist()
    return [
        Line2D([], [], linestyle="", marker="o", markersize=size, color=MUTED, label=f"{stride:g}")
        for size, stride in zip(sizes, strides.tolist(), strict=True)
    ]
