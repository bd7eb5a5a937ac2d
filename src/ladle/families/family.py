"""A family of detectors as one value: head, inference, assigner, losses and published distiller settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, TypeVar

from ladle.assigners import Assigner, PointAssigner, RandomSampler, SoftAssigner
from ladle.criteria import BagCriterion, DenseCriterion, RegionCriterion
from ladle.detectors import BackboneSpec, DenseSpec, DetectorSpec, Inference, ProposalSpec, RegionSpec
from ladle.detectors.backbones import NeckNorm, Norm, color_statistics
from ladle.distillers import Distiller
from ladle.errors import UserError
from ladle.lessons import Criterion, Lesson

__all__ = ["HEADS", "SIZES", "Family", "Region", "Size", "Start"]

D = TypeVar("D")


class Size(NamedTuple):
    """The size of the parts of a detector.

    ``width`` is the number of channels of neck and head, ``depth`` the number of convolutions in a tower, ``scale`` the
    side of a square anchor in strides, ``extra`` the number of pyramid levels above stride 32, ``imgsz`` the long side
    of the images in pixels.
    """

    width: int = 256
    depth: int = 4
    scale: float = 8.0
    extra: int = 2
    imgsz: int = 640


@dataclass(frozen=True)
class Start:
    """The initial weights of the backbone, and the normalization of backbone and neck.

    ``norm=None`` is frozen batch normalization if there are initial weights, otherwise trained batch normalization.
    """

    pretrained: bool = False
    weights: str | None = None
    norm: Norm | None = None
    neck_norm: NeckNorm = "none"


@dataclass(frozen=True)
class Region:
    """One region head of a family, its assigner and its sampling.

    Args:
        spec: makes the head for a proposal network.
        assigner: assigns objects to proposals.
        weight: weight of its losses.
        samples: number of proposals that are sampled from an image for training, in networks of the published width and
            in smaller ones.
    """

    spec: Callable[[ProposalSpec], RegionSpec]
    assigner: Assigner
    weight: float = 1.0
    samples: tuple[int, int] = (512, 128)


@dataclass(frozen=True)
class Family:
    """Detectors that share their kind of head, their assigner and their losses.

    Args:
        name: the first part of a detector's name, as in ``paa-r18``.
        head: makes the dense head or the proposal network for a size.
        inference: how predictions become detections.
        assigner: the published assigner.
        criterion: the published losses, for assignments with at most one object for each prior.
        soft_criterion: the losses for a :class:`~ladle.assigners.SoftAssigner`.
        judged_share: :class:`~ladle.criteria.DenseCriterion`'s ``share`` if a teacher judges; None keeps it.
        edges_weight: weight of the loss on distributions of box edges where a head predicts them; 0 for families whose
            heads of distributions were published without one (Zheng et al., CVPR 2022).
        quality: what the quality branch predicts; None if there is no such branch.
        sampler: samples the priors that a proposal network is trained on.
        regions: the region heads after a proposal network.
        distillers: distillers with the settings published for a student of this family.
        as_teacher: distillers with the settings published for a teacher of this family.

    Example:
        >>> from dataclasses import replace
        >>> from ladle.assigners import ATSS
        >>> from ladle.families import FCOS
        >>> mine = replace(FCOS, name="mine", assigner=ATSS(topk=5))
        >>> mine.spec("tiny", ["cat", "dog"]).name
        'mine-tiny'
    """

    name: str
    head: Callable[[Size], DenseSpec | ProposalSpec]
    inference: Inference
    assigner: Assigner
    criterion: Criterion
    soft_criterion: Criterion = field(default_factory=BagCriterion)
    judged_share: Literal["count", "quality", "score"] | None = None
    edges_weight: float = 0.25
    quality: str | None = None
    sampler: RandomSampler | None = None
    regions: tuple[Region, ...] = ()
    distillers: tuple[Distiller, ...] = ()
    as_teacher: tuple[Distiller, ...] = ()

    def spec(
        self,
        backbone: str,
        classes: Sequence[str],
        category_ids: Sequence[int] | None = None,
        imgsz: int | None = None,
        start: Start = Start(),
        heads: Sequence[str] = (),
    ) -> DetectorSpec:
        """A detector of this family.

        Args:
            backbone: ``tiny``, ``mini``, ``small``, ``r18`` to ``r101``, or a timm model.
            classes: their names, in label order.
            category_ids: the data set's own ids of these classes; from 1 by default.
            imgsz: long side of the images in pixels; by default that of the size.
            start: initial weights of the backbone, and normalization of backbone and neck.
            heads: options of the dense head, of :data:`HEADS`.

        Raises:
            UserError: for an unknown option, and for one that does not fit this family.
        """
        size = SIZES.get(backbone, Size())
        norm: Norm = start.norm or ("frozen" if start.pretrained or start.weights else "batch")
        mean, std = color_statistics(backbone)
        finest: Literal[4, 8] = 4 if self.regions and backbone not in SIZES else 8
        head = self.head(size)
        return DetectorSpec(
            name=f"{'+'.join((self.name, *heads))}-{backbone}",
            family=self.name,
            classes=tuple(classes),
            category_ids=tuple(category_ids) if category_ids is not None else tuple(range(1, len(classes) + 1)),
            backbone=BackboneSpec(backbone, norm, start.pretrained, start.weights, finest),
            head=_with_options(self, head, heads),
            inference=self.inference,
            extra=min(size.extra, 1) if self.regions else size.extra,
            imgsz=size.imgsz if imgsz is None else imgsz,
            regions=tuple(region.spec(head) for region in self.regions) if isinstance(head, ProposalSpec) else (),
            neck_norm=start.neck_norm,
            mean=mean,
            std=std,
        )

    def lessons(
        self, spec: DetectorSpec, assigner: Assigner | None = None, criterion: Criterion | None = None
    ) -> tuple[Lesson, ...]:
        """The published lessons of a detector of this family, one for each stage.

        ``assigner`` and ``criterion`` replace those of the first stage. Raises :class:`UserError` for an assigner that
        does not work with the head.
        """
        assigner = self.assigner if assigner is None else assigner
        self._check(assigner, spec.head)
        if criterion is None:
            criterion = self.soft_criterion if isinstance(assigner, SoftAssigner) else self._criterion(spec.head)
        first = Lesson(assigner, criterion, sampler=self.sampler)
        return (first, *map(_region_lesson, self.regions, spec.regions))

    def judged(self, criterion: Criterion | None) -> Criterion | None:
        """The published losses for training in which a teacher judges."""
        if self.judged_share is None or not isinstance(criterion, DenseCriterion):
            return criterion
        return replace(criterion, share=self.judged_share)

    def setting(self, kind: type[D]) -> D | None:
        """The distiller of class ``kind`` with the settings published for a student of this family, or None."""
        return next((one for one in self.distillers if isinstance(one, kind)), None)

    def teacher_setting(self, kind: type[D]) -> D | None:
        """The same for a teacher of this family."""
        return next((one for one in self.as_teacher if isinstance(one, kind)), None)

    def _criterion(self, head: DenseSpec | ProposalSpec) -> Criterion:
        """The losses for a head; a head that predicts distributions has GIoU in place of L1 on deltas."""
        criterion = self.criterion
        if not isinstance(criterion, DenseCriterion) or not isinstance(head, DenseSpec) or head.box != "distribution":
            return criterion
        edges = replace(criterion, edges_weight=self.edges_weight)
        return replace(edges, box="giou", box_weight=2.0) if criterion.box == "l1" else edges

    def _check(self, assigner: Assigner, head: DenseSpec | ProposalSpec) -> None:
        name, several = type(assigner).__name__, head.anchors.per_location
        if several > 1 and isinstance(assigner, PointAssigner):
            raise UserError(
                f"--assigner {name}: it chooses among points, but {self.name} has {several} anchors at each, which "
                "would all learn the same; take fcos-*, or an assigner that tells anchors apart such as MaxIoU or ATSS"
            )
        if self.regions and isinstance(assigner, SoftAssigner):
            raise UserError(
                f"--assigner {name}: a prior may learn several objects by it, and a proposal network cannot draw a "
                "sample of such an assignment; take MaxIoU, ATSS or PAA"
            )


SIZES = {
    "tiny": Size(48, 1, 4.0, 0, 160),
    "mini": Size(64, 2, 4.0, 0, 160),
    "small": Size(96, 2, 4.0, 0, 160),
}
"""The sizes of detectors with Ladle's small backbones, which train on a CPU; others have the published size."""

HEADS: dict[str, dict[str, Any]] = {
    "dist": {"box": "distribution"},
    "cop": {"objectness": "conditional"},
    "io": {"objectness": "implicit"},
}
"""The options of a dense head, by the word after the family's name: ``paa+dist-r18``."""


def _with_options(family: Family, head: DenseSpec | ProposalSpec, options: Sequence[str]) -> DenseSpec | ProposalSpec:
    """The head with the options after the family's name."""
    for option in options:
        if option not in HEADS:
            raise UserError(f"{family.name}+{option}: no head is called {option!r}; expected one of {', '.join(HEADS)}")
        if not isinstance(head, DenseSpec):
            raise UserError(
                f"{family.name}+{option}: {option} is a dense head, and {family.name} has none; leave it out"
            )
        if "objectness" in HEADS[option] and head.anchors.per_location > 1:
            raise UserError(
                f"{family.name}+{option}: {option} makes one score of a location and its neighbors, but this family "
                f"has {head.anchors.per_location} anchors at each; take another, such as paa+{option}"
            )
        head = replace(head, **HEADS[option])
    return head


def _region_lesson(region: Region, spec: RegionSpec) -> Lesson:
    large, small = region.samples
    sampler = RandomSampler(large if spec.width >= Size().width else small, 0.25)
    return Lesson(region.assigner, RegionCriterion(weight=region.weight, stds=spec.stds), sampler=sampler)
