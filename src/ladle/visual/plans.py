"""Small images of assignments, for pages that must stay small: the priors that learn each object."""

from __future__ import annotations

from jaxtyping import UInt8
from torch import Tensor

from ladle.types import Assignment, GroundTruth, Priors
from ladle.visual.palette import MUTED, color
from ladle.visual.thumbnails import Mark, thumbnail

__all__ = ["assignment_thumbnail"]

_DOT, _GROWTH = 0.004, 0.002
"""Half the side of a mark on the finest level, in shares of the longer side, and what each coarser level adds."""
_MOST_DOTS = 600


def assignment_thumbnail(
    image: UInt8[Tensor, "3 H W"], truth: GroundTruth, priors: Priors, plan: Assignment, most: int
) -> bytes:
    """A JPEG of about ``most`` bytes with each positive prior as a square, larger on coarser levels.

    A square has the color of its object. Objects are boxes of their color, dashed if no prior learns them; crowds are
    grey. Truth, priors and plan are those of one image; a prior that learns several objects is drawn for the one of
    highest affinity.
    """
    height, width = image.shape[-2:]
    scale = max(height, width)
    best = plan.affinity[0].argmax(-1)  # (P,), the slot of the highest affinity
    index = plan.objects[0].gather(-1, best.unsqueeze(-1)).squeeze(-1)
    positive = plan.positive[0].nonzero().flatten().tolist()
    learnt = set(index[positive].tolist())
    marks = []
    for number, (x1, y1, x2, y2) in enumerate(truth.boxes[0].tolist()):
        if truth.valid[0, number]:
            crowd = bool(truth.crowd[0, number])
            shade = MUTED if crowd else color(number)
            box = (x1 / width, y1 / height, x2 / width, y2 / height)
            marks.append(Mark(box, shade, None, crowd or number not in learnt))
    centers, levels = priors.centers[0], priors.level
    for prior in positive[:_MOST_DOTS]:
        x, y = centers[prior].tolist()
        half = scale * (_DOT + _GROWTH * int(levels[prior]))
        box = ((x - half) / width, (y - half) / height, (x + half) / width, (y + half) / height)
        marks.append(Mark(box, color(int(index[prior]))))
    return thumbnail(image, marks, most)
