"""Features of boxes, pooled from a pyramid (RoIAlign: He et al., ICCV 2017; levels: Lin et al., CVPR 2017).

Each cell of a box is a weighted mean of a few cells of a map. On the CPU that is a product with a sparse matrix,
forward and backward many times faster than torchvision's operator, which is used on other devices.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladle.types import at_least_float32

__all__ = ["roi_align"]

_SAMPLES = 2
"""Points along each side of a cell whose bilinear values are averaged."""
_LEVEL_SIDE, _LEVEL_STRIDE = 224.0, 16.0
"""A box of this side, in pixels, is pooled from the level of this stride, one of twice the side from the next."""


def roi_align(
    features: Sequence[Float[Tensor, "B C _h _w"]],
    strides: Sequence[int],
    boxes: Float[Tensor, "B P 4"],
    cells: int,
) -> Float[Tensor, "N C cells cells"]:
    """The features of every box, each pooled from the level of its size; only the features get a gradient."""
    level = _levels(boxes, strides)
    # An exported graph has torchvision's operator too, since other programs support it.
    # PyTorch 2.6 has one name for both compiling and exporting.
    exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
    if features[0].device.type != "cpu" or exporting():
        return _by_operator(features, strides, boxes, level, cells)
    rows = torch.cat([at_least_float32(maps).permute(0, 2, 3, 1).flatten(0, 2) for maps in features])
    index, weight = _taps(features, strides, boxes, level, cells)
    # The CPU has no sparse product in half precision: the sums are in float32.
    with torch.autocast("cpu", enabled=False):
        cut: Tensor = _SparseProduct.apply(rows, index, weight)
    return cut.view(-1, cells, cells, rows.shape[1]).permute(0, 3, 1, 2)


def _levels(boxes: Float[Tensor, "B P 4"], strides: Sequence[int]) -> Int[Tensor, "B P"]:
    side = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1).sqrt()
    octave = (side / _LEVEL_SIDE).log2().add(math.log2(_LEVEL_STRIDE) + 1e-6).floor()
    first = math.log2(strides[0])
    return (octave - first).nan_to_num(0.0, neginf=0.0).clamp(0, len(strides) - 1).long()


class _Points(NamedTuple):
    """The two cells of a map along one axis that each sample lies between, and their weights."""

    low: Int[Tensor, "B P n"]
    high: Int[Tensor, "B P n"]
    of_low: Float[Tensor, "B P n"]
    of_high: Float[Tensor, "B P n"]


def _taps(
    features: Sequence[Tensor],
    strides: Sequence[int],
    boxes: Float[Tensor, "B P 4"],
    level: Int[Tensor, "B P"],
    cells: int,
) -> tuple[Int[Tensor, "M K"], Float[Tensor, "M K"]]:
    """For every cell of every box the rows of all maps that it is a mean of, and their weights."""
    batch, count = level.shape
    shapes = [(int(maps.shape[-2]), int(maps.shape[-1])) for maps in features]
    height, width = (torch.tensor(sides)[level] for sides in zip(*shapes, strict=True))
    sizes = torch.tensor([h * w for h, w in shapes])
    first = (sizes.cumsum(0) - sizes) * batch
    start = first[level] + torch.arange(batch).unsqueeze(1) * sizes[level]

    scaled = boxes / torch.tensor(strides)[level].unsqueeze(-1)
    x, y = (_points(scaled[..., axis], scaled[..., axis + 2], side, cells) for axis, side in ((0, width), (1, height)))
    across, across_weight = _pairs(x, (batch, count, 1, cells, 1, 2 * _SAMPLES))
    down, down_weight = _pairs(y, (batch, count, cells, 1, 2 * _SAMPLES, 1))
    grow = (batch, count, 1, 1, 1, 1)
    index = start.view(grow) + down * width.view(grow) + across
    taps = (2 * _SAMPLES) ** 2
    return index.reshape(-1, taps), (down_weight * across_weight / _SAMPLES**2).reshape(-1, taps)


def _points(low: Tensor, high: Tensor, side: Int[Tensor, "B P"], cells: int) -> _Points:
    """Samples along one axis; those over a cell outside the map have weight 0, others are clamped to it."""
    count = cells * _SAMPLES
    step = (torch.arange(count) + 0.5) / count
    place = low.unsqueeze(-1) + (high - low).clamp(min=1.0).unsqueeze(-1) * step
    side = side.unsqueeze(-1)
    counts = (place >= -1) & (place <= side)
    last = (side - 1).to(place.dtype)
    before = place.clamp(min=0).floor().minimum(last)
    share = torch.where(before >= last, 0.0, place.clamp(min=0) - before)
    after = (before + 1).minimum(last)
    return _Points(before.long(), after.long(), (1 - share) * counts, share * counts)


def _pairs(points: _Points, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    index = torch.stack([points.low, points.high], dim=-1).view(shape)
    return index, torch.stack([points.of_low, points.of_high], dim=-1).view(shape)


class _SparseProduct(torch.autograd.Function):
    """Rows that are weighted sums of rows: ``out[m] = sum_k weight[m, k] * rows[index[m, k]]``."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        """Sum; the matrix is kept for the backward pass."""
        every, taps = index.shape
        ends = torch.arange(0, every * taps + 1, taps)
        _silence_beta_warning()
        matrix = torch.sparse_csr_tensor(
            ends, index.flatten(), weight.flatten(), (every, len(rows)), check_invariants=False
        )
        ctx.matrix = matrix
        summed: Tensor = matrix @ rows
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Sum with the transposed matrix."""
        return ctx.matrix.t() @ gradient.contiguous(), None, None


@cache
def _silence_beta_warning() -> None:
    """Silence PyTorch's one-time beta warning for sparse CSR; tests compare the result with torchvision."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.zeros(0).long(), torch.zeros(0), (1, 1))


def _by_operator(
    features: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, level: Tensor, cells: int
) -> Tensor:
    """The same by torchvision's operator, level by level."""
    from torchvision.ops import roi_align

    batch, count = level.shape
    image = torch.arange(batch, device=boxes.device, dtype=boxes.dtype).repeat_interleave(count)
    regions = torch.cat([image.unsqueeze(1), boxes.flatten(0, 1)], dim=1)
    cut = features[0].new_zeros(regions.shape[0], features[0].shape[1], cells, cells)
    for number, (maps, stride) in enumerate(zip(features, strides, strict=True)):
        mine = (level.flatten() == number).nonzero()[:, 0]
        some = roi_align(at_least_float32(maps), regions[mine], cells, 1 / stride, _SAMPLES)
        cut = cut.index_copy(0, mine, some.to(cut.dtype))
    return cut
