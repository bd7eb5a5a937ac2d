"""A scene of the benchmark as Ladle's records and as the plain tensors that other libraries take."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ladle.types import Predictions, Priors

SCENES = {
    "s640_n20": "640 × 640 · 20",
    "s640_n150": "640 × 640 · 150",
    "s1333_n20": "800 × 1344 · 20",
    "s1333_n150": "800 × 1344 · 150",
}
"""Four images each, 80 classes; strides 8 to 32 and 8 to 128; 20 and 150 objects an image."""


def _scenes() -> Any:
    # By its path: importing the package `tests` may switch on shape checks, which cost time.
    file = Path(__file__).parents[2] / "tests" / "golden" / "scenes.py"
    spec = importlib.util.spec_from_file_location("golden_scenes", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Ready(NamedTuple):
    """A contender that has its inputs.

    ``work`` is what is timed. ``read`` turns its answer into object numbers (B, P): -1 ignored, 0 background, k > 0
    object k-1; or into any float tensor in which two contenders should agree.
    """

    work: Callable[[], Any]
    read: Callable[[Any], Tensor]


class Case:
    """One scene on one device; other seeds draw other objects and predictions of the same kind."""

    def __init__(self, name: str, device: str = "cpu", seed: int = 0) -> None:
        self.scene = _scenes().Scene(name, seed)
        self.device = torch.device(device)
        scene = self.scene
        self.size, self.strides, self.classes = (scene.H, scene.W), scene.strides, scene.C
        self.sizes, self.counts, self.images = scene.sizes, scene.num_lvl, scene.B
        self.boxes, self.logits, self.quality = (self.tensor(x) for x in (scene.boxes, scene.logits, scene.aux))
        self.anchors = [self.tensor(level) for level in scene.anchors]
        self.points = [self.tensor(level) for level in scene.points]
        self.stride = self.tensor(scene.S)
        self.objects = [(self.tensor(b), self.tensor(n)) for b, n in zip(scene.gt_boxes, scene.gt_labels, strict=True)]
        self.truth = scene.truth().to(self.device)

    def tensor(self, array: Any) -> Tensor:
        """A numpy array on the device."""
        return torch.from_numpy(array).contiguous().to(self.device)

    def at_anchors(self) -> tuple[Any, Any, Any]:
        """Predictions, priors and truth for assigners of anchors (8 strides wide, centered at whole strides)."""
        scene = self.scene
        return scene.predictions().to(self.device), scene.priors().to(self.device), self.truth

    def at_points(self, side: float = 8.0) -> tuple[Any, Any, Any]:
        """Predictions, priors and truth for assigners of points, which are squares of ``side`` strides."""
        scene = self.scene
        return scene.raw_predictions().to(self.device), scene.point_priors(side).to(self.device), self.truth

    def distances(self) -> Tensor:
        """How far the sides of the predicted boxes lie from the points of ``at_anchors``, (B, P, 4), at least 0.1."""
        anchors = torch.cat(self.anchors)
        middle = (anchors[:, :2] + anchors[:, 2:]) / 2
        return torch.cat([middle - self.boxes[..., :2], self.boxes[..., 2:] - middle], dim=-1).clamp(min=0.1)

    def at_distances(self) -> tuple[Any, Any, Any]:
        """As ``at_anchors``, but the predicted boxes are those of ``distances``."""
        said, priors, truth = self.at_anchors()
        far = self.distances()
        boxes = torch.cat([priors.centers - far[..., :2], priors.centers + far[..., 2:]], dim=-1)
        return replace(said, boxes=boxes), priors, truth

    def at_queries(self) -> tuple[Any, Any, Any]:
        """What ``queries`` say; their priors are the whole image, on no grid."""
        boxes, logits = self.queries()
        height, width = self.size
        count = boxes.shape[1]
        priors = Priors(
            boxes=boxes.new_tensor([0.0, 0.0, width, height]).expand(1, count, 4),
            stride=boxes.new_ones(count),
            level=boxes.new_zeros(count, dtype=torch.long),
            valid=boxes.new_ones(1, count, dtype=torch.bool),
            counts=(count,),
        )
        return Predictions(logits, boxes), priors, self.truth

    def queries(self) -> tuple[Tensor, Tensor]:
        """Boxes (B, Q, 4) inside the image and logits (B, Q, C) of 300 queries, 900 on a large scene."""
        total = sum(self.counts)
        generator = torch.Generator().manual_seed(6)
        chosen = [torch.randperm(total, generator=generator)[: 900 if total > 20000 else 300] for _ in self.objects]
        index = torch.stack(chosen).to(self.device).unsqueeze(-1)
        height, width = self.size
        boxes = self.boxes.gather(1, index.expand(-1, -1, 4))
        limit = boxes.new_tensor([width, height, width, height])
        return boxes.clamp(min=0).minimum(limit), self.logits.gather(1, index.expand(-1, -1, self.classes))


def object_numbers(plan: Any) -> Tensor:
    """What a plan of Ladle says, in the convention of ``Ready.read``."""
    ignored = torch.where(plan.background > 0, 0, -1)
    return torch.where(plan.positive, plan.index + 1, ignored)


def center_form(boxes: Tensor) -> Tensor:
    """x1 y1 x2 y2 as middle and size."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)
