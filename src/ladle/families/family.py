"""A family of detectors as one value: head, inference, assigner, losses and published distiller settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from ladle.assigners import Assigner, PointAssigner, RandomSampler, SoftAssigner, TaskAligned
from ladle.criteria import BagCriterion, DenseCriterion, RegionCriterion
from ladle.detectors import PAN, BackboneSpec, DenseSpec, DetectorSpec, Inference, ProposalSpec, RegionSpec
from ladle.detectors.backbones import Norm, color_statistics
from ladle.detectors.necks import NeckNorm
from ladle.distillers import Distiller
from ladle.errors import UserError
from ladle.families.sizes import SIZES, Network, Size, with_options
from ladle.lessons import Criterion, Lesson, OneToOne

__all__ = ["Family", "Region", "Start"]

D = TypeVar("D")


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
        closing_l1: weight of an L1 loss on boxes in the closing epochs of a run, where those are asked for.
        sizes: complete networks of published sizes, by the word that stands for a backbone in their name.

    Examples:
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
    closing_l1: float = 0.0
    sizes: Mapping[str, Network] = field(default_factory=dict)

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
            backbone: one of this family's ``sizes``, or a backbone: ``tiny``, ``mini``, ``small``, ``r18`` to
                ``r101``, ``cspnext_n`` to ``cspdarknet_m``, or a timm model.
            classes: their names, in label order.
            category_ids: the data set's own ids of these classes; from 1 by default.
            imgsz: long side of the images in pixels; by default that of the size.
            start: initial weights of the backbone, and normalization of backbone and neck.
            heads: options of the dense head, of :data:`HEADS`, and of the network, of :data:`NETWORKS`.

        Raises:
            UserError: for an unknown option, and for one that does not fit this family.
        """
        network = self.sizes[backbone] if backbone in self.sizes else self._around(backbone)
        network = _normalized(with_options(self.name, network, tuple(heads)), start.neck_norm)
        norm: Norm = start.norm or ("frozen" if start.pretrained or start.weights else "batch")
        mean, std = color_statistics(network.backbone)
        finest: Literal[4, 8] = 4 if network.finest == 4 else 8
        head = network.head
        return DetectorSpec(
            name=f"{'+'.join((self.name, *heads))}-{backbone}",
            family=self.name,
            classes=tuple(classes),
            category_ids=tuple(category_ids) if category_ids is not None else tuple(range(1, len(classes) + 1)),
            backbone=BackboneSpec(network.backbone, norm, start.pretrained, start.weights, finest),
            head=head,
            inference=replace(self.inference, nms=None, voting=False) if network.one_to_one else self.inference,
            extra=network.extra,
            imgsz=network.imgsz if imgsz is None else imgsz,
            regions=tuple(region.spec(head) for region in self.regions) if isinstance(head, ProposalSpec) else (),
            neck_norm="none" if isinstance(network.neck, PAN) else start.neck_norm,
            mean=mean,
            std=std,
            neck=network.neck,
            one_to_one=network.one_to_one,
        )

    def _around(self, backbone: str) -> Network:
        """The network around a backbone, of the published size or smaller with Ladle's small ones."""
        size = SIZES.get(backbone, Size())
        finest = 4 if self.regions and backbone not in SIZES else 8
        extra = min(size.extra, 1) if self.regions else size.extra
        return Network(backbone, self.head(size), extra=extra, imgsz=size.imgsz, finest=finest)

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
        closing = None
        if self.closing_l1 and isinstance(criterion, DenseCriterion):
            closing = replace(criterion, l1_weight=self.closing_l1)
        first = Lesson(assigner, criterion, sampler=self.sampler, closing=closing)
        if spec.one_to_one:
            first = replace(first, one_to_one=self._one_to_one(first, spec.head))
        return (first, *map(_region_lesson, self.regions, spec.regions))

    def _one_to_one(self, many: Lesson, head: DenseSpec | ProposalSpec) -> OneToOne:
        """The lesson of a one-to-one head: the losses of the one-to-many head under a one-to-one match.

        The match has the metric of TaskAligned; with another assigner it is that of YOLOv10.
        """
        rule = many.assigner if isinstance(many.assigner, TaskAligned) else TaskAligned(alpha=0.5)
        criterion = self._criterion(head) if isinstance(many.assigner, SoftAssigner) else many.criterion
        return OneToOne(replace(many, assigner=rule.one_to_one, criterion=criterion))

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


def _normalized(network: Network, norm: NeckNorm) -> Network:
    """The network with another normalization in neck and light head, which always have one."""
    if norm == "none":
        return network
    neck, head = network.neck, network.head
    if isinstance(neck, PAN):
        neck = replace(neck, conv=replace(neck.conv, norm=norm))
    if isinstance(head, DenseSpec) and head.light is not None:
        head = replace(head, light=replace(head.light, conv=replace(head.light.conv, norm=norm)))
    return replace(network, neck=neck, head=head)


def _region_lesson(region: Region, spec: RegionSpec) -> Lesson:
    large, small = region.samples
    sampler = RandomSampler(large if spec.width >= Size().width else small, 0.25)
    return Lesson(region.assigner, RegionCriterion(weight=region.weight, stds=spec.stds), sampler=sampler)
