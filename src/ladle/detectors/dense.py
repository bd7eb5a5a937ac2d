"""The dense stage: the same small network at every location of every level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ladle.boxes import decode_deltas, decode_distances
from ladle.detectors.aligned import AlignedStage
from ladle.detectors.head_layers import bounded_exp, convolutions, flattened, logit, set_bias
from ladle.detectors.objectness import ConditionalObjectness, ImplicitObjectness, Objectness
from ladle.detectors.priors import Anchors
from ladle.detectors.protocol import Towers
from ladle.detectors.towers import LightSpec, LightTower, Tower, each, shared_tower
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
            center in strides; as a ``distribution`` of each distance over ``bins`` (GFL); or as its center in the
            ``cell`` of the prior and the logarithms of its sides, in strides (YOLOX).
        distance: the function that makes distances: ``softplus``, ``exp`` (RTMDet) or none, ``linear`` (small RTMDet).
        bins: how many distances the distribution has: 0, 1 ... ``bins - 1`` strides.
        class_prior: the initial probability of every class; a small one keeps the loss of the many background priors
            from dominating the first steps (Lin et al. 2017).
        quality_prior: the initial probability of the quality branch (YOLOX 0.01).
        center_prior: whether to learn for each class where its priors lie around an object's center (AutoAssign).
        objectness: whether class scores are multiplied by an objectness that has no loss: ``conditional`` on
            the neighborhood (COP) or ``implicit`` (IO); see ``detectors/objectness.py``.
        light: towers and last convolutions of a light head; None for the common one, which all levels share.
        aligned: the task-aligned head of TOOD, see :class:`~ladle.detectors.AlignedStage`: ``depth`` convolutions that
            both tasks share, in place of the towers. Its distances are exponential.

    ``softplus(scale * x)`` is close to the ``relu`` of FCOS, OTA and AutoAssign above one stride, with a gradient
    everywhere. Distances and sides start as those of the prior, which for AutoAssign's priors of 8 strides is its
    published bias of 4.
    """

    width: Annotated[int, Range(1, 4096)] = 256
    depth: Annotated[int, Range(0, 64)] = 4
    anchors: Anchors = field(default_factory=Anchors)
    quality: bool = True
    norm: bool = True
    level_scale: bool = True
    box: Literal["deltas", "distances", "distribution", "cell"] = "deltas"
    bins: Annotated[int, Range(2, 1000)] = 17
    class_prior: Annotated[float, Range(0, 1, above=True, below=True)] = 0.01
    quality_prior: Annotated[float, Range(0, 1, above=True, below=True)] = 0.5
    center_prior: bool = False
    objectness: Literal["conditional", "implicit"] | None = None
    distance: Literal["softplus", "exp", "linear"] = "softplus"
    light: LightSpec | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for parts that do not fit together."""
        if self.objectness is not None and self.anchors.per_location > 1:
            raise ValueError(f"an objectness that is shared by {self.anchors.per_location} anchors at each location")
        if self.box == "cell" and self.anchors.offset != 0.5:
            raise ValueError(f"boxes in the cells of priors that are not at the centers of cells: {self.anchors}")
        if self.aligned and not self._may_align:
            raise ValueError(f"a task-aligned head with parts that only the common one has: {self}")

    @property
    def _may_align(self) -> bool:
        more = self.quality or self.center_prior or self.objectness or self.light or not self.norm or not self.depth
        return not more and self.box == "distances" and self.distance == "exp" and self.anchors.per_location == 1

    def build(self, classes: int, strides: Sequence[int]) -> DenseStage | AlignedStage:
        """Build the stage for ``classes`` and a pyramid of ``strides``."""
        return (AlignedStage if self.aligned else DenseStage)(self, classes, strides)

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
        per_location, levels = spec.anchors.per_location, len(self.strides)
        self.class_tower = _tower(spec, levels)
        self.box_tower = None if spec.light is not None and spec.light.joint else _tower(spec, levels)
        self.class_conv = _last(spec, per_location * classes, levels)
        self.box_conv = _last(spec, per_location * spec.box_width, levels)
        self.quality_conv = _last(spec, per_location, levels) if spec.quality else None
        self.objectness = _objectness(spec)
        self.scales = nn.Parameter(torch.ones(len(self.strides))) if spec.level_scale else None
        start = torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(classes, 1)
        self.center_prior = nn.Parameter(start) if spec.center_prior else None
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        light = self.spec.light is not None
        outputs = [self.class_conv, self.box_conv, self.quality_conv, self.objectness]
        for conv in convolutions(*outputs) if light else convolutions(self):
            nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        set_bias(self.class_conv, torch.tensor(logit(self.spec.class_prior)))
        if self.objectness is not None:
            self.objectness.start()
        if self.quality_conv is not None:
            set_bias(self.quality_conv, torch.tensor(logit(self.spec.quality_prior)))
        start = self._box_start()
        if start is not None:
            set_bias(self.box_conv, start)

    def _box_start(self) -> Tensor | None:
        """The bias that makes each prior predict its own box, where the weights are 0; None for a bias of 0."""
        half = self.spec.anchors.halves()
        if self.spec.box == "cell":
            return torch.cat([torch.full_like(half, 0.5), (2 * half).log()], dim=1).flatten()
        if self.spec.box != "distances":
            return None
        distances = half.repeat(1, 2).flatten()
        if self.spec.distance == "linear":
            return distances
        # The inverse of softplus is x + log(1 - exp(-x)).
        return distances.log() if self.spec.distance == "exp" else distances + (-(-distances).expm1()).log()

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
        return self.spec.anchors.over(features, self.strides, sizes)

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
        """Both towers' maps after ``depth`` convolutions, normalized but not yet rectified.

        Where classes and boxes have one tower its map is returned twice.
        """
        layers = slice(0, self._steps(depth))
        return tuple(self._run((f, f), level, layers) for level, f in enumerate(features))

    def _run(self, maps: tuple[Tensor, Tensor], level: int, layers: slice) -> tuple[Tensor, Tensor]:
        of_class = self.class_tower.run(maps[0], level, layers)
        if self.box_tower is not None:
            return of_class, self.box_tower.run(maps[1], level, layers)
        return of_class, of_class if maps[0] is maps[1] else self.class_tower.run(maps[1], level, layers)

    def predict_from(self, towers: Sequence[tuple[Tensor, Tensor]], depth: int, priors: Priors) -> Predictions:
        """Predict at ``priors`` from the towers' maps after ``depth`` convolutions."""
        logits, regressed, quality = [], [], []
        for level, maps in enumerate(towers):
            of_class, of_box = self._run(maps, level, slice(self._steps(depth), None))
            scores = each(self.class_conv, level)(of_class)
            logits.append(
                flattened(scores if self.objectness is None else self.objectness(scores, of_box), self.classes)
            )
            rows = flattened(each(self.box_conv, level)(of_box), self.spec.box_width)
            regressed.append(rows * self.scales[level] if self.scales is not None else rows)
            if self.quality_conv is not None:
                quality.append(flattened(each(self.quality_conv, level)(of_box), 1))
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
        light = self.spec.light
        layers = 3 if self.spec.norm else 2
        if light is not None:
            layers = 6 if light.conv.depthwise else 3
        return max(0, depth * layers - 1)

    def _decode(self, regressed: Tensor, priors: Priors) -> tuple[Tensor, Tensor | None]:
        """Boxes (B,P,4) and, of a head that predicts distributions, the logits of their edges (B,P,4,K)."""
        if self.spec.box == "deltas":
            return decode_deltas(priors.boxes, regressed), None
        stride = priors.stride[:, None]
        if self.spec.box == "cell":
            center = priors.centers + (regressed[..., :2] - 0.5) * stride
            half = bounded_exp(regressed[..., 2:]) * stride / 2
            return torch.cat([center - half, center + half], dim=-1), None
        edges = regressed.unflatten(-1, (4, self.spec.bins)) if self.spec.box == "distribution" else None
        distances = self._distances(regressed) if edges is None else expected_bin(edges)
        return decode_distances(priors.centers, distances * stride), edges

    def _distances(self, regressed: Tensor) -> Tensor:
        if self.spec.distance == "linear":
            return regressed
        return bounded_exp(regressed) if self.spec.distance == "exp" else F.softplus(regressed)


def _tower(spec: DenseSpec, levels: int) -> Tower | LightTower:
    if spec.light is None:
        return shared_tower(spec.width, spec.depth, spec.norm)
    return LightTower(spec.light, spec.width, spec.depth, levels)


def _last(spec: DenseSpec, channels: int, levels: int) -> nn.Module:
    """The convolution that predicts: 3x3 for all levels, in a light head 1x1 for each."""
    if spec.light is None:
        return nn.Conv2d(spec.width, channels, 3, padding=1)
    return nn.ModuleList(nn.Conv2d(spec.width, channels, 1) for _ in range(levels))


def _objectness(spec: DenseSpec) -> Objectness | None:
    if spec.objectness is None:
        return None
    return (ConditionalObjectness if spec.objectness == "conditional" else ImplicitObjectness)(spec.width)
