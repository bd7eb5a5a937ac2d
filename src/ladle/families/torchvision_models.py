"""torchvision's Faster R-CNN as a Ladle detector: the same weights, the same detections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ladle.detectors import Detector
from ladle.errors import UserError
from ladle.families.family import Start
from ladle.families.faster_rcnn import FASTER_RCNN

__all__ = ["from_torchvision"]

_NAMES = {
    "backbone.body.": "backbone.body.",
    "backbone.fpn.": "neck.fpn.",
    "rpn.head.": "stages.0.head.",
    "roi_heads.box_head.": "stages.1.layers.",
    "roi_heads.box_predictor.cls_score.": "stages.1.class_score.",
    "roi_heads.box_predictor.bbox_pred.": "stages.1.box_deltas.",
}
"""Prefixes of weight names in torchvision, and in Ladle."""
_COUNTER = "num_batches_tracked"


def from_torchvision(model: nn.Module, classes: Sequence[str]) -> Detector:
    """Turn ``fasterrcnn_resnet50_fpn`` or ``fasterrcnn_resnet50_fpn_v2`` into a detector that finds the same boxes.

    ``classes`` are the names of its labels from 1 on; 0 is background there and has no name here. Images must be as
    torchvision's transform leaves them, with sides that are multiples of 64: for other sides torchvision spaces the
    coarsest anchors by ``side // cells`` pixels, Ladle by their stride. Every weight is copied; raises
    :class:`UserError` if one does not fit, as for a model with other layers.
    """
    theirs = model.state_dict()
    frozen = not any(name.endswith(_COUNTER) and name.startswith("backbone.body.") for name in theirs)
    spec = FASTER_RCNN.spec("r50", classes, start=Start(norm="frozen" if frozen else "batch"))
    if "rpn.head.conv.1.0.weight" in theirs:
        # fasterrcnn_resnet50_fpn_v2: a deeper proposal network, convolutions in the region head, a normalized pyramid.
        (region,) = spec.regions
        assert region.proposals is not None
        head = replace(region.proposals, depth=2)
        spec = replace(spec, head=head, regions=(replace(region, convs=4, proposals=head),), neck_norm="batch")
    detector = spec.build()
    state = {_renamed(name): value for name, value in theirs.items()}
    if frozen:
        state |= _variances(model)
    ours = detector.state_dict()
    needed = {name for name in ours if not name.endswith(_COUNTER)}
    wrong = sorted(needed - set(state)) + sorted(set(state) - set(ours))
    wrong += [name for name in needed & set(state) if state[name].shape != ours[name].shape]
    if wrong:
        raise UserError(
            f"this is no fasterrcnn_resnet50_fpn of torchvision with {len(classes)} classes: {len(wrong)} tensors do "
            f"not fit (first: {wrong[0]})"
        )
    detector.load_state_dict(state, strict=False)
    return detector


def _renamed(name: str) -> str:
    for theirs, ours in _NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _variances(model: nn.Module) -> dict[str, Tensor]:
    """The variances of frozen layers, shifted by the difference between their epsilon and that of Ladle's layers."""
    found = {}
    for name, layer in model.named_modules():
        variance = getattr(layer, "running_var", None)
        if isinstance(variance, Tensor) and name.startswith("backbone.body."):
            shift = torch.tensor(getattr(layer, "eps", _EPS) - _EPS)
            found[f"{_renamed(name)}.running_var"] = (variance + shift).clamp(min=0.0)
    return found


_EPS = 1e-5
"""The epsilon that Ladle's frozen layers add to a variance."""
