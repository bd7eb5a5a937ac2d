"""Pairs of predicted boxes and objects with a minimum overlap, found without evaluating all pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.device import block_size
from ladle.overlaps import object_slices
from ladle.pairs import Pairs

__all__ = ["pairs_overlapping"]

_BLOCK = 8
"""Number of consecutive priors that are excluded together."""
_SLACK = 1e-3
"""Relative margin by which the bound is reduced, so that it stays valid under rounding."""


def pairs_overlapping(
    boxes: Float[Tensor, "B P 4"],
    valid: Bool[Tensor, "#B P"],
    objects: Float[Tensor, "B G 4"],
    least: Float[Tensor, "B G"],
) -> Iterator[Pairs]:
    """All pairs in which the IoU of predicted box and object is at least ``least`` and above 0, and some other pairs.

    On the CPU only. The lists are bounded, and no pair occurs twice. ``least`` is one bound per object; only ``valid``
    priors are returned.

    Priors are excluded in blocks. The intersection of an object with a box of the block is at most that with the common
    hull of the block, and at most the area of the block's largest box. For an IoU of u the intersection must be at
    least ``u / (1 + u)`` of the sum of both areas.
    """
    x1, y1, x2, y2, smallest, largest = _blocks(boxes, valid).unsqueeze(2)  # (B, 1, blocks) each
    corners = objects.permute(2, 0, 1).contiguous().unsqueeze(-1)  # (4, B, G, 1)
    share = (least / (1 + least) * (1 - _SLACK)).unsqueeze(-1)  # (B, G, 1)
    found = []
    for part in object_slices(len(boxes), x1.shape[-1], objects.shape[1], boxes):
        left, top, right, bottom = corners[:, :, part]
        width = (right.minimum(x2) - left.maximum(x1)).clamp_(min=0)
        shared = (bottom.minimum(y2) - top.maximum(y1)).clamp_(min=0).mul_(width).minimum(largest)
        needed = (smallest + (right - left) * (bottom - top)).mul_(share[:, part])
        found.append((shared > needed).nonzero() + torch.tensor([0, part.start, 0]))
    for piece in torch.cat(found).split(block_size(boxes) // (4 * _BLOCK)):
        image, number, block = piece.t().unsqueeze(-1).expand(-1, -1, _BLOCK).flatten(1)
        prior = block * _BLOCK + torch.arange(_BLOCK).repeat(len(piece))
        exists = prior < boxes.shape[1]
        pairs = Pairs(image, number, torch.where(exists, prior, 0), exists)
        yield pairs.replaced(real=exists & pairs.of_prior(valid))


def _blocks(boxes: Float[Tensor, "B P 4"], valid: Bool[Tensor, "#B P"]) -> Float[Tensor, "6 B N"]:
    """The hull of each block of consecutive boxes, and the smallest and the largest area in it.

    Invalid boxes and boxes that are not finite do not count; a block without any other box has an empty hull.
    """
    x1, y1, x2, y2 = boxes.permute(2, 0, 1).contiguous()
    size = (x2 - x1).clamp_(min=0) * (y2 - y1).clamp_(min=0)
    counted = valid & (x1 + y1 + x2 + y2).isfinite()
    values = torch.stack([-x1, -y1, x2, y2, -size, size])  # negated where the minimum is needed
    most = F.max_pool1d(torch.where(counted, values, -math.inf), _BLOCK, ceil_mode=True)
    return torch.cat([-most[:2], most[2:4], -most[4:5], most[5:]])
