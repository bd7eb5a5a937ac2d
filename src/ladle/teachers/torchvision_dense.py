"""The predictions of torchvision's RetinaNet and FCOS at all of their places."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ladle.teachers.detections import TeacherDetections, logit
from ladle.teachers.inputs import to_batch
from ladle.types import Grid

__all__ = ["COARSEST", "find_densely", "is_dense"]

COARSEST = 128
"""The coarsest stride. Images are padded to multiples of it: torchvision lays anchors by the side of the image over
that of the map, which else is no whole stride, and not the same for rows and columns."""


def is_dense(model: nn.Module) -> bool:
    """Whether a detector of torchvision has one stage and a sigmoid for each class."""
    from torchvision.models.detection import FCOS, RetinaNet

    return isinstance(model, FCOS | RetinaNet)


def find_densely(model: Any, images: list[Tensor], columns: list[int]) -> TeacherDetections:
    """Boxes and logits of the labels ``columns`` at every anchor, for images (3,H,W) of floats in [0, 1].

    A score of FCOS is the root of a class probability times the centerness, as torchvision has it.
    """
    made, _ = model.transform(images)
    maps = list(model.backbone(made.tensors).values())
    found = model.head(maps)
    anchors = torch.stack(model.anchor_generator(made, maps))
    deltas = found["bbox_regression"]
    decode = getattr(model.box_coder, "decode_single", model.box_coder.decode)
    boxes = decode(deltas.flatten(0, 1), anchors.flatten(0, 1)).view_as(deltas)
    logits = found["cls_logits"][..., columns].float()
    if "bbox_ctrness" in found:
        logits = logit((logits.sigmoid() * found["bbox_ctrness"].float().sigmoid()).sqrt())
    frame = _frame(images, made.image_sizes)
    return TeacherDetections(to_batch(boxes.float(), frame), logits, frame, grids=_grids(made.tensors, maps, anchors))


def _frame(images: list[Tensor], resized: list[tuple[int, int]]) -> Tensor:
    """Scale x and y by which pixels of each image become those of the input; there is no shift."""
    scales = [(w / one.shape[2], h / one.shape[1], 0.0, 0.0) for one, (h, w) in zip(images, resized, strict=True)]
    return torch.tensor(scales, device=images[0].device)


def _grids(tensors: Tensor, maps: list[Tensor], anchors: Tensor) -> tuple[Grid, ...]:
    """The grids of the anchors, whose centers lie at the corners of cells."""
    shapes = [(one.shape[2], one.shape[3]) for one in maps]
    each = anchors.shape[1] // sum(height * width for height, width in shapes)
    return tuple(Grid(height, width, float(tensors.shape[2] // height), 0.0, each) for height, width in shapes)
