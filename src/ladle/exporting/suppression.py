"""From predictions to detections in fixed shapes: what :meth:`ladle.detectors.Inference.find` does, as one graph.

Suppression itself is one operator, ``ladle::suppress``. It marks the boxes that stay instead of listing them, so that
no shape depends on values, and becomes ``NonMaxSuppression`` in an ONNX file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ladle.boxes import clip
from ladle.detectors import Inference
from ladle.detectors.postprocess import vote

__all__ = ["as_onnx", "best_of_levels", "rows", "select", "stays_of", "suppress", "suppress_operator"]


def select(
    boxes: Tensor, scores: Tensor, counts: Sequence[int], sizes: Tensor, inference: Inference
) -> tuple[Tensor, Tensor, Tensor]:
    """Detections of every image, best first: boxes (B,K,4), scores (B,K), labels (B,K), with K ``inference.keep``.

    ``boxes`` are (B,P,4), or (B,P,C,4) where each class has its own, ``scores`` (B,P,C), ``counts`` the priors of each
    level. Rows beyond the detections of an image have score 0, label -1 and a box of zeros.
    """
    index, _ = best_of_levels(scores.amax(-1), counts, inference.candidates)
    boxes, scores = rows(boxes, index), rows(scores, index)
    scores = torch.where(scores > inference.threshold, scores, 0.0)
    if inference.least:
        wide = ((boxes[..., 2:] - boxes[..., :2]) >= inference.least).all(-1)
        scores = torch.where(wide if wide.ndim == 3 else wide.unsqueeze(-1), scores, 0.0)
    by_class = scores.transpose(1, 2)
    if inference.nms is not None:
        scores = torch.where(_kept(boxes, by_class, inference.nms), by_class, 0.0).transpose(1, 2)
    best, place = _best(scores, inference.keep)
    prior, label = place // scores.shape[2], place % scores.shape[2]
    found = _boxes_at(boxes, prior, label)
    if inference.voting:
        candidates = by_class.gather(1, label.unsqueeze(-1).expand(-1, -1, by_class.shape[2]))
        found = clip(vote(found, boxes, candidates), sizes)
    real = best > 0
    return torch.where(real.unsqueeze(-1), found, 0.0), best, torch.where(real, label, -1)


def best_of_levels(scores: Tensor, counts: Sequence[int], most: int) -> tuple[Tensor, Tensor]:
    """The ``most`` best of every level by ``scores`` (B,P): their places (B,N), and the level (N) of each."""
    places, levels, start = [], [], 0
    for number, count in enumerate(counts):
        # The lesser of the two without a decision in Python, where the count is known only to the running file.
        few = torch.sym_min(count, most)
        place = scores[:, start : start + count].topk(few, dim=1).indices + start
        places.append(place)
        levels.append(torch.full_like(place[0], number))
        start = start + count
    return torch.cat(places, dim=1), torch.cat(levels)


def rows(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` (B,N) of ``values`` (B,P,...)."""
    extra = values.ndim - 2
    wide = index.reshape(*index.shape, *(1,) * extra).expand(-1, -1, *values.shape[2:])
    return values.gather(1, wide)


def suppress(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Which boxes stay (R,C,N): of ``boxes`` (R,N,4) those of positive ``scores`` (R,C,N) that no better one overlaps.

    Each of the C groups is judged by itself.
    """
    stays: Tensor = suppress_operator(boxes, scores, iou)
    return stays


@torch.library.custom_op(
    "ladle::suppress", mutates_args=(), schema="(Tensor boxes, Tensor scores, float iou) -> Tensor"
)
def suppress_operator(boxes: Any, scores: Any, iou: Any) -> Any:
    """The operator behind :func:`suppress`."""
    return stays_of(boxes, scores, iou)


def stays_of(boxes: Any, scores: Any, iou: float) -> Any:
    """What the operator does, by torchvision's; a file of PyTorch holds this in its place."""
    from torchvision.ops import nms

    row, group, place = (scores > 0).nonzero(as_tuple=True)
    # Groups are moved so far apart that none overlap; in double precision, which keeps their boxes exact enough.
    apart = (boxes.amax() - boxes.amin() + 1).double() * (row * scores.shape[1] + group)
    kept = nms(boxes[row, place].double() + apart.unsqueeze(1), scores[row, group, place].double(), iou)
    stays = torch.zeros_like(scores, dtype=torch.bool)
    return stays.index_put((row[kept], group[kept], place[kept]), torch.ones_like(kept, dtype=torch.bool))


@suppress_operator.register_fake
def _(boxes: Any, scores: Any, iou: Any) -> Any:
    return torch.empty_like(scores, dtype=torch.bool)


def as_onnx() -> Any:
    """The operator in the words of ONNX."""
    from onnxscript import opset18 as op

    def suppress(boxes: Any, scores: Any, iou: float) -> Any:
        every = op.Constant(value_ints=[2**31 - 1])
        least, most = op.Constant(value_floats=[0.0]), op.Constant(value_floats=[iou])
        chosen = op.NonMaxSuppression(boxes, scores, every, most, least)
        ones = op.Expand(op.Constant(value_float=1.0), op.Slice(op.Shape(chosen), [0], [1]))
        marked = op.ScatterND(op.ConstantOfShape(op.Shape(scores)), chosen, ones)
        return op.Greater(marked, op.Constant(value_float=0.5))

    return suppress


def _kept(boxes: Tensor, by_class: Tensor, iou: float) -> Tensor:
    if boxes.ndim == 3:
        return suppress(boxes, by_class, iou)
    each = boxes.transpose(1, 2).flatten(0, 1)
    return suppress(each, by_class.flatten(0, 1).unsqueeze(1), iou).view_as(by_class)


def _best(scores: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    """The ``keep`` best of (B,N,C) and their places in the flat (B,N*C), padded with zeros where there are fewer."""
    flat = scores.flatten(1)
    padded = torch.cat([flat, torch.zeros_like(flat[:, :1]).expand(-1, keep)], dim=1)
    best = padded.topk(keep, dim=1)
    return best.values, best.indices.clamp(max=flat.shape[1] - 1)


def _boxes_at(boxes: Tensor, prior: Tensor, label: Tensor) -> Tensor:
    chosen = rows(boxes, prior)
    if chosen.ndim == 3:
        return chosen
    return chosen.gather(2, label[..., None, None].expand(-1, -1, 1, 4))[:, :, 0]
