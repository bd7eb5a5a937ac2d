"""The dense stage: the same small network at every location of every level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ladle.boxes import decode_deltas, decode_distances
from ladle.detectors.backbones import group_norm
from ladle.detectors.objectness import ConditionalObjectness, ImplicitObjectness, Objectness
from ladle.detectors.priors import Anchors
from ladle.detectors.protocol import Towers
from ladle.limits import Range
from ladle.losses import expected_bin
from ladle.types import GroundTruth, Output, Predictions, Priors

__all__ = ["DenseSpec", "DenseStage"]


@dataclass(frozen=True)
class DenseSpec:
    """A dense head: two towers of convolutions, and what is predicted on top of them.

    Args:
        width: channels of the towers, those of the neck.
        depth: convolutions per tower.
        anchors: the priors.
        quality: whether there is a branch of one channel for the quality of a prior: PAA's IoU, the centerness of ATSS
            and FCOS, the objectness of YOLOX and AutoAssign. The criterion decides what it learns.
        norm: group normalization in the towers (RetinaNet has none).
        level_scale: a learnt factor per level on the output of the box branch.
        box: how a box is predicted: as R-CNN ``deltas`` of the prior; as ``distances`` of its edges from the prior's
            center in strides; or as a ``distribution`` of each distance over ``bins`` (GFL).
        bins: how many distances the distribution has: 0, 1 ... ``bins - 1`` strides.
        class_prior: the initial probability of every class; a small one keeps the loss of the many background priors
            from dominating the first steps (Lin et al. 2017).
        quality_prior: the initial probability of the quality branch (YOLOX 0.01).
        center_prior: whether to learn for each class where its priors lie around an object's center (AutoAssign).
        objectness: whether class scores are multiplied by an objectness that has no loss: ``conditional`` on
            the neighborhood (COP) or ``implicit`` (IO); see ``detectors/objectness.py``.

    Distances are ``softplus(scale * x)``: close to the ``relu`` of FCOS, OTA and AutoAssign above one stride, with a
    gradient everywhere. They start as the box of the prior, which for AutoAssign's priors of 8 strides is its published
    bias of 4.
    """

    width: Annotated[int, Range(1, 4096)] = 256
    depth: Annotated[int, Range(0, 64)] = 4
    anchors: Anchors = field(default_factory=Anchors)
    quality: bool = True
    norm: bool = True
    level_scale: bool = True
    box: Literal["deltas", "distances", "distribution"] = "deltas"
    bins: Annotated[int, Range(2, 1000)] = 17
    class_prior: Annotated[float, Range(0, 1, above=True, below=True)] = 0.01
    quality_prior: Annotated[float, Range(0, 1, above=True, below=True)] = 0.5
    center_prior: bool = False
    objectness: Literal["conditional", "implicit"] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for an objectness shared by several anchors of a location."""
        if self.objectness is not None and self.anchors.per_location > 1:
            raise ValueError(f"an objectness that is shared by {self.anchors.per_location} anchors at each location")

    def build(self, classes: int, strides: Sequence[int]) -> DenseStage:
        """Build the stage for ``classes`` and a pyramid of ``strides``."""
        return DenseStage(self, classes, strides)

    @property
    def box_width(self) -> int:
        """Channels of one box."""
        return 4 * self.bins if self.box == "distribution" else 4


class DenseStage(nn.Module):
    """A dense head: ``propose`` returns the priors of all levels, a call predicts at them.

    A call is :meth:`run_towers` up to the last convolution, then :meth:`predict_from`. CrossKD takes maps from inside
    the student's towers and passes them to the teacher's :meth:`predict_from`.
    """

    class_agnostic = False
    samples_first = False

    def __init__(self, spec: DenseSpec, classes: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.spec, self.strides, self.classes = spec, tuple(strides), classes
        per_location = spec.anchors.per_location
        self.class_tower = _tower(spec)
        self.box_tower = _tower(spec)
        self.class_conv = nn.Conv2d(spec.width, per_location * classes, 3, padding=1)
        self.box_conv = nn.Conv2d(spec.width, per_location * spec.box_width, 3, padding=1)
        self.quality_conv = nn.Conv2d(spec.width, per_location, 3, padding=1) if spec.quality else None
        self.objectness = _objectness(spec)
        self.scales = nn.Parameter(torch.ones(len(self.strides))) if spec.level_scale else None
        start = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(classes, 1)
        self.center_prior = nn.Parameter(start) if spec.center_prior else None
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.normal_(conv.weight, std=0.01)
                if conv.bias is not None:
                    nn.init.zeros_(conv.bias)
        _bias(self.class_conv).fill_(_logit(self.spec.class_prior))
        if self.objectness is not None:
            self.objectness.start()
        if self.quality_conv is not None:
            _bias(self.quality_conv).fill_(_logit(self.spec.quality_prior))
        if self.spec.box == "distances":
            half = self.spec.anchors.halves().repeat(1, 2).flatten()
            # The inverse of softplus: with zero weights the bias makes each prior predict its own box.
            _bias(self.box_conv).copy_(half + (-(-half).expm1()).log())

    @property
    def depth(self) -> int:
        """The number of convolutions in a tower."""
        return self.spec.depth

    @property
    def width(self) -> int:
        """The number of channels in a tower."""
        return self.spec.width

    def propose(
        self, features: Sequence[Tensor], previous: Output | None, truth: GroundTruth | None, sizes: Tensor | None
    ) -> Priors:
        """The anchors of all levels; ``previous`` and ``truth`` are not used."""
        shapes = [(int(f.shape[-2]), int(f.shape[-1])) for f in features]
        return self.spec.anchors.grid(shapes, self.strides, sizes, features[0].device)

    def forward(
        self, features: Sequence[Tensor], priors: Priors, tower_depth: int | None = None
    ) -> tuple[Predictions, Towers | None]:
        """Predict at the priors, which must be the grid of this stage.

        With ``tower_depth`` also return the towers' maps after so many convolutions.
        """
        if tower_depth is None:
            return self.predict_from(self.run_towers(features, self.spec.depth), self.spec.depth, priors), None
        towers = self.run_towers(features, tower_depth)
        return self.predict_from(towers, tower_depth, priors), towers

    def run_towers(self, features: Sequence[Tensor], depth: int) -> Towers:
        """Both towers' maps after ``depth`` convolutions, normalized but not yet rectified."""
        steps = self._steps(depth)
        return tuple((self.class_tower[:steps](f), self.box_tower[:steps](f)) for f in features)

    def predict_from(self, towers: Sequence[tuple[Tensor, Tensor]], depth: int, priors: Priors) -> Predictions:
        """Predict at ``priors`` from the towers' maps after ``depth`` convolutions."""
        logits, regressed, quality = [], [], []
        steps = self._steps(depth)
        for level, (of_class, of_box) in enumerate(towers):
            of_class, of_box = self.class_tower[steps:](of_class), self.box_tower[steps:](of_box)
            scores = self.class_conv(of_class)
            logits.append(
                _flatten(scores if self.objectness is None else self.objectness(scores, of_box), self.classes)
            )
            rows = _flatten(self.box_conv(of_box), self.spec.box_width)
            regressed.append(rows * self.scales[level] if self.scales is not None else rows)
            if self.quality_conv is not None:
                quality.append(_flatten(self.quality_conv(of_box), 1))
        every = torch.cat(regressed, dim=1)
        if every.shape[1] != priors.boxes.shape[1]:
            raise ValueError(
                f"a dense head predicts at its own {every.shape[1]} priors, but was given {priors.boxes.shape[1]}"
            )
        boxes, edges = self._decode(every.float(), priors)
        return Predictions(
            logits=torch.cat(logits, dim=1),
            boxes=boxes,
            quality=torch.cat(quality, dim=1)[..., 0] if quality else None,
            edges=edges,
            center_prior=self.center_prior.expand(every.shape[0], -1, -1) if self.center_prior is not None else None,
        )

    def _steps(self, depth: int) -> int:
        """How many layers of a tower come before the rectifier of convolution ``depth``."""
        if not 0 <= depth <= self.spec.depth:
            raise ValueError(f"this head's towers have {self.spec.depth} convolutions, so none ends after {depth}")
        return max(0, depth * (3 if self.spec.norm else 2) - 1)

    def _decode(self, regressed: Tensor, priors: Priors) -> tuple[Tensor, Tensor | None]:
        """Boxes (B,P,4) and, of a head that predicts distributions, the logits of their edges (B,P,4,K)."""
        if self.spec.box == "deltas":
            return decode_deltas(priors.boxes, regressed), None
        edges = regressed.unflatten(-1, (4, self.spec.bins)) if self.spec.box == "distribution" else None
        distances = F.softplus(regressed) if edges is None else expected_bin(edges)
        return decode_distances(priors.centers, distances * priors.stride[:, None]), edges


def _tower(spec: DenseSpec) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(spec.depth):
        layers.append(nn.Conv2d(spec.width, spec.width, 3, padding=1, bias=not spec.norm))
        layers += [group_norm(spec.width)] if spec.norm else []
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _objectness(spec: DenseSpec) -> Objectness | None:
    if spec.objectness is None:
        return None
    return (ConditionalObjectness if spec.objectness == "conditional" else ImplicitObjectness)(spec.width)


def _flatten(maps: Tensor, width: int) -> Tensor:
    """Maps (B, A*width, H, W) to rows (B, H*W*A, width): row by row, then the anchors of a location."""
    batch = maps.shape[0]
    return maps.permute(0, 2, 3, 1).reshape(batch, -1, width)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias


def _logit(prob: float) -> float:
    return math.log(prob / (1 - prob))
