"""Pairs of predicted boxes and objects that overlap enough, found without a matrix of all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.overlaps import CHUNK, object_slices
from ladle.pairs import Pairs

__all__ = ["pairs_overlapping"]

_BLOCK = 8
"""Priors that stand next to each other and are ruled out together."""
_SLACK = 1e-3
"""Share by which the bound is loosened, so that rounding cannot make it rule out too much."""


def pairs_overlapping(
    boxes: Float[Tensor, "B P 4"],
    valid: Bool[Tensor, "#B P"],
    objects: Float[Tensor, "B G 4"],
    least: Float[Tensor, "B G"],
) -> Iterator[Pairs]:
    """The valid priors whose box overlaps an object by its ``least`` IoU and by more than 0, and some that do not.

    For where looking is free; the lists are bounded, and each holds the pairs of a prior and an object at most once.

    Priors are ruled out block by block. No box of a block shares more with an object than the block's hull does, or
    than its largest box is; and to overlap by an IoU of u is to share ``u / (1 + u)`` of both areas together.
    """
    x1, y1, x2, y2, smallest, largest = _blocks(boxes, valid).unsqueeze(2)
    corners = objects.permute(2, 0, 1).contiguous().unsqueeze(-1)
    share = (least / (1 + least) * (1 - _SLACK)).unsqueeze(-1)
    found = []
    for part in object_slices(len(boxes), x1.shape[-1], objects.shape[1]):
        left, top, right, bottom = corners[:, :, part]
        width = (right.minimum(x2) - left.maximum(x1)).clamp_(min=0)
        shared = (bottom.minimum(y2) - top.maximum(y1)).clamp_(min=0).mul_(width).minimum(largest)
        needed = (smallest + (right - left) * (bottom - top)).mul_(share[:, part])
        found.append((shared > needed).nonzero() + torch.tensor([0, part.start, 0]))
    for piece in torch.cat(found).split(CHUNK // (4 * _BLOCK)):
        image, number, block = piece.t().unsqueeze(-1).expand(-1, -1, _BLOCK).flatten(1)
        prior = block * _BLOCK + torch.arange(_BLOCK).repeat(len(piece))
        exists = prior < boxes.shape[1]
        pairs = Pairs(image, number, torch.where(exists, prior, 0), exists)
        yield replace(pairs, real=exists & pairs.of_prior(valid))


def _blocks(boxes: Float[Tensor, "B P 4"], valid: Bool[Tensor, "#B P"]) -> Float[Tensor, "6 B N"]:
    """The hulls of each few consecutive boxes, and their least and largest areas; empty where all are unsound."""
    x1, y1, x2, y2 = boxes.permute(2, 0, 1).contiguous()
    size = (x2 - x1).clamp_(min=0) * (y2 - y1).clamp_(min=0)
    sound = valid & (x1 + y1 + x2 + y2).isfinite()
    every = torch.stack([-x1, -y1, x2, y2, -size, size])
    most = F.max_pool1d(torch.where(sound, every, -math.inf), _BLOCK, ceil_mode=True)
    return torch.cat([-most[:2], most[2:4], -most[4:5], most[5:]])
