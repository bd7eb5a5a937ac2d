"""Localization distillation: the student imitates how sure its teacher is of every box edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.distillers.joining import Joinable
from ladle.distillers.protocol import Network, Summary
from ladle.distillers.regions import Measure, within_objects, worthwhile_ring
from ladle.losses import rebinned, softened_kl
from ladle.networks import NetworkInfo
from ladle.overlaps import may_look
from ladle.types import Assignment, GroundTruth, Output, Predictions, Term

__all__ = ["LocalizationDistillation"]


@dataclass(frozen=True)
class LocalizationDistillation(Joinable):
    """Imitate the distributions of box edges where they matter (LD: Zheng et al., CVPR 2022; released code).

    They are imitated at the positives, weighed by the student's best score, and in a region around them, weighed by the
    overlap. Classes are imitated at the positives alone: around them that hurts a little (paper, table 4).

    Args:
        weight: of the edges of positives: 0.25; 5 for RetinaNet.
        ring_weight: of the edges in the region around: 0.0625 for GFL and FCOS, 0.0375 for ATSS, 0.15 for RetinaNet.
        class_weight: of the classes of positives.
        temperature: that softens the distributions of edges.
        class_temperature: that softens the softmax over classes: 2; 8 for RetinaNet.
        region: what lies around: the ``ring`` of priors that nearly overlap an object enough (GFL, ATSS, RetinaNet), or
            all that are ``inside`` one and not positive, weighed by the student's best score (FCOS).
        measure: how the ring measures overlap: the ``coverage`` of the prior (released code), or ``iou``, which makes
            it the paper's DIoU.
        gamma: the ring's lower bound as a share of its upper one.
        shared: whether a positive may also lie in the ring of another object (GFL, ATSS), or not (RetinaNet).
        rows: one softmax for every ``edge``, or one for the whole ``box`` (the released code for RetinaNet, whose
            weights were tuned with it).
        images: for how many images on a device the weights are meant. The released losses are sums that grow with the
            batch; here they are the mean over images times this number: 3 for GFL with a small backbone, 2 with a
            ResNet-50 or larger, and for ATSS, FCOS and RetinaNet.
        mean_of: by how many classes the divergence of classes is divided: by the detector's own number (the release,
            for COCO's 80 and for VOC's 20 alike), or by this number.

    Teacher and student may have different numbers of bins: beyond the student's last one, the teacher's are summed up.
    With ``rows="box"`` they must agree. The class loss of each level is divided by its own positives on each device, as
    released, then summed over levels. Of one class alone a softmax says nothing: then there is no such term.

    Examples:
        >>> from ladle.distillers import LocalizationDistillation
        >>> from ladle.testing import example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> sorted(LocalizationDistillation()(student, teacher, truth, plan))
        ['ld', 'ld_class', 'ld_ring']
    """

    features_only: ClassVar[bool] = False
    every_stage: ClassVar[bool] = False

    weight: float = 0.25
    ring_weight: float = 0.0625
    class_weight: float = 10.0
    temperature: float = 10.0
    class_temperature: float = 2.0
    region: Literal["ring", "inside"] = "ring"
    measure: Measure = "coverage"
    gamma: float = 0.25
    shared: bool = True
    rows: Literal["edge", "box"] = "edge"
    images: float = 3.0
    mean_of: int | None = None

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What is taught, and what is left out; raises ValueError without edges."""
        of, by = student.stage(stage), teacher.stage(stage)
        for name, one in (("student", of), ("teacher", by)):
            _needs_edges(name, one.bins > 0)
        bins = f"{of.bins} bins" + (f", from the teacher's {by.bins}" if by.bins != of.bins else "")
        around = "in the ring around objects" if self.region == "ring" else "inside objects, beside the positives"
        teaches = {
            "ld": (self.weight, f"box edges ({bins}) at positives"),
            "ld_ring": (self.ring_weight, f"box edges ({bins}) {around}"),
            "ld_class": (self.class_weight * (of.classes > 1), f"{of.classes} classes at positives"),
        }
        lonely = (
            ("ld_class: of a single class a softmax says nothing",) if self.class_weight and of.classes == 1 else ()
        )
        return Summary({name: what for name, (weight, what) in teaches.items() if weight}, lonely)

    def build(self, student: Network, teacher: Network) -> LocalizationDistillation:
        """The loss itself: it needs nothing of the two networks."""
        return self

    def __call__(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Terms ``ld`` (positives), ``ld_ring`` (around them) and ``ld_class``; raises ValueError without edges."""
        own, guide = student.predictions, teacher.predictions.detach()
        for name, said in (("student", own), ("teacher", guide)):
            _needs_edges(name, said.edges is not None)
        images = own.logits.new_tensor(float(len(own.logits)), dtype=torch.float32)
        trust = own.logits.detach().float().amax(-1).sigmoid()
        terms: dict[str, Tensor] = {}
        if self.weight:
            terms["ld"] = self.weight * self.images * self._edges(own, guide, assignment.weight * trust)
        if self.ring_weight:
            worth = self._around(student, truth, assignment, trust)
            terms["ld_ring"] = self.ring_weight * self.images * self._edges(own, guide, worth)
        if self.class_weight and own.logits.shape[-1] > 1:
            known = own.logits.shape[-1]
            share = known / (self.mean_of or known)
            terms["ld_class"] = self.class_weight * share * images * self._classes(student, guide, assignment)
        return {name: Term(total, images, torch.zeros_like(images)) for name, total in terms.items()}

    def _around(
        self, student: Output, truth: GroundTruth, plan: Assignment, trust: Float[Tensor, "B P"]
    ) -> Float[Tensor, "B P"]:
        """How much each prior of the region around the positives counts."""
        if self.region == "inside":
            return trust * (within_objects(student.priors, truth) & ~plan.positive)
        worth = worthwhile_ring(student.priors, truth, self.gamma, measure=self.measure)
        return worth if self.shared else worth * ~plan.positive

    def _edges(self, own: Predictions, guide: Predictions, worth: Float[Tensor, "B P"]) -> Float[Tensor, ""]:
        """The divergence of a prior's four edges, a quarter each, weighed and summed."""
        assert own.edges is not None
        assert guide.edges is not None
        edges, guides, worth = _worthy(worth > 0, own.edges, guide.edges, worth)
        if self.rows == "box":
            edges, guides = edges.flatten(-2), guides.flatten(-2)
        chances = rebinned((guides.float() / self.temperature).softmax(-1), edges.shape[-1])
        apart = softened_kl(edges, chances, self.temperature)
        return (worth * (apart.sum(-1) if self.rows == "edge" else apart)).sum() / 4

    def _classes(self, student: Output, guide: Predictions, plan: Assignment) -> Float[Tensor, ""]:
        """The divergence of the softmax over classes, the mean over the positives of each level, summed over levels."""
        level = student.priors.level
        here = torch.zeros(len(student.priors.counts), device=level.device)
        here = here.index_add(0, level, plan.positive.sum(0).float())
        share = plan.positive / here.clamp(min=1)[level]
        logits, guides, share = _worthy(plan.positive, student.predictions.logits, guide.logits, share)
        chances = (guides.float() / self.class_temperature).softmax(-1)
        return (share * softened_kl(logits, chances, self.class_temperature)).sum()


def _worthy(mask: Bool[Tensor, "B P"], *values: Tensor) -> tuple[Tensor, ...]:
    """What counts of each, flat where looking is free, else all: what does not count has weight 0."""
    if not may_look(mask):
        return values
    where = mask.flatten().nonzero().squeeze(1)
    return tuple(value.flatten(0, 1).index_select(0, where) for value in values)


def _needs_edges(name: str, said: bool) -> None:
    if not said:
        raise ValueError(
            f"localization distillation compares distributions of box edges, but the {name} says none: take gfl-*, or "
            "another family with +dist, such as atss+dist-r50"
        )
