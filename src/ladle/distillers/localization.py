"""Localization distillation: the student imitates the teacher's distributions of box edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.device import may_look
from ladle.distillers.joining import Joinable
from ladle.distillers.protocol import Network, Summary
from ladle.distillers.regions import Measure, within_objects, worthwhile_ring
from ladle.losses import rebinned, softened_kl
from ladle.networks import NetworkInfo
from ladle.types import Assignment, GroundTruth, Output, Predictions, Term

__all__ = ["LocalizationDistillation"]


@dataclass(frozen=True)
class LocalizationDistillation(Joinable):
    """Imitate the distributions of box edges at and around positives (LD: Zheng et al., CVPR 2022; released code).

    The edges are imitated at the positives, weighted by the student's highest class score, and in a region around them,
    weighted by IoU. Classes are imitated at the positives only: around them that lowers AP slightly (paper, table 4).

    Args:
        weight: loss weight of the edges at positives: 0.25; 5 for RetinaNet.
        ring_weight: loss weight of the edges in the region around them: 0.0625 for GFL and FCOS, 0.0375 for ATSS, 0.15
            for RetinaNet.
        class_weight: loss weight of the classes at positives.
        temperature: of the distributions of edges.
        class_temperature: of the softmax over classes: 2; 8 for RetinaNet.
        region: the region around the positives: the ``ring`` of priors whose overlap with an object is somewhat too low
            for a positive (GFL, ATSS, RetinaNet), or the priors ``inside`` an object that are not positive, weighted by
            the student's highest class score (FCOS).
        measure: overlap measure of the ring: the ``coverage`` of the prior (released code), or ``iou``, which gives the
            paper's DIoU.
        gamma: the ring's lower bound as a fraction of its upper bound.
        shared: whether a positive may also lie in the ring of another object (GFL, ATSS), or not (RetinaNet).
        rows: one softmax for every ``edge``, or one for the whole ``box`` (the released code for RetinaNet, whose
            weights were tuned with it).
        images: number of images per device for which the weights were tuned. The released losses are sums over a
            batch; here they are the mean over images times this number: 3 for GFL with a small backbone, 2 with a
            ResNet-50 or larger, and for ATSS, FCOS and RetinaNet.
        mean_of: divisor of the sum over classes of the divergence: by default COCO's 80, for which the loss weight was
            tuned, whatever the number of classes. With None it is the detector's own number, as in the released code;
            with six classes and a short training this loses AP, see the results.

    Teacher and student may have different numbers of bins: the teacher's probabilities beyond the student's last bin
    are added to that bin. With ``rows="box"`` the numbers must be equal. The class loss of each level is divided by the
    number of its positives on each device, as released, then summed over levels. A detector of one class has no class
    term, since a softmax over one class is constant.

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
    mean_of: int | None = 80

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What each term imitates, and which are left out; raises ValueError for heads without edges."""
        of, by = student.stage(stage), teacher.stage(stage)
        for name, one in (("student", of), ("teacher", by)):
            _needs_edges(name, one.bins > 0)
        self._check_bins(of.bins, by.bins)
        bins = f"{of.bins} bins" + (f", from the teacher's {by.bins}" if by.bins != of.bins else "")
        around = "in the ring around objects" if self.region == "ring" else "inside objects, beside the positives"
        teaches = {
            "ld": (self.weight, f"box edges ({bins}) at positives"),
            "ld_ring": (self.ring_weight, f"box edges ({bins}) {around}"),
            "ld_class": (self.class_weight * (of.classes > 1), f"{of.classes} classes at positives"),
        }
        skips = ("ld_class: of a single class a softmax says nothing",) if self.class_weight and of.classes == 1 else ()
        return Summary({name: what for name, (weight, what) in teaches.items() if weight}, skips)

    def build(self, student: Network, teacher: Network) -> LocalizationDistillation:
        """The loss itself: it needs nothing of the two networks."""
        return self

    def __call__(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Terms ``ld`` (positives), ``ld_ring`` (around them) and ``ld_class``; raises ValueError without edges."""
        pred, target = student.predictions, teacher.predictions.detach()
        for name, one in (("student", pred), ("teacher", target)):
            _needs_edges(name, one.edges is not None)
        assert pred.edges is not None
        assert target.edges is not None
        self._check_bins(pred.edges.shape[-1], target.edges.shape[-1])
        images = pred.logits.new_full((), float(len(pred.logits)), dtype=torch.float32)
        best = pred.logits.detach().float().amax(-1).sigmoid()
        terms: dict[str, Tensor] = {}
        if self.weight:
            terms["ld"] = self.weight * self.images * self._edges(pred, target, assignment.weight * best)
        if self.ring_weight:
            weight = self._region_weight(student, truth, assignment, best)
            terms["ld_ring"] = self.ring_weight * self.images * self._edges(pred, target, weight)
        if self.class_weight and pred.logits.shape[-1] > 1:
            count = pred.logits.shape[-1]
            share = count / (self.mean_of or count)
            terms["ld_class"] = self.class_weight * share * images * self._classes(student, target, assignment)
        return {name: Term(total, images, torch.zeros_like(images)) for name, total in terms.items()}

    def _check_bins(self, student: int, teacher: int) -> None:
        if self.rows == "box" and student != teacher:
            raise ValueError(
                f"rows='box' compares all edges of a box at once and needs equal bins; the student has {student}, the "
                f"teacher {teacher}: take rows='edge'"
            )

    def _region_weight(
        self, student: Output, truth: GroundTruth, plan: Assignment, best: Float[Tensor, "B P"]
    ) -> Float[Tensor, "B P"]:
        """The weight of each prior in the region around the positives; 0 outside of it."""
        if self.region == "inside":
            return best * (within_objects(student.priors, truth) & ~plan.positive)
        weight = worthwhile_ring(student.priors, truth, self.gamma, measure=self.measure)
        return weight if self.shared else weight * ~plan.positive

    def _edges(self, pred: Predictions, target: Predictions, weight: Float[Tensor, "B P"]) -> Float[Tensor, ""]:
        """The weighted sum over priors of the mean divergence of the four edges."""
        assert pred.edges is not None
        assert target.edges is not None
        logits, targets, weight = _selected(weight > 0, pred.edges, target.edges, weight)
        if self.rows == "box":
            logits, targets = logits.flatten(-2), targets.flatten(-2)
        probs = rebinned((targets.float() / self.temperature).softmax(-1), logits.shape[-1])
        divergence = softened_kl(logits, probs, self.temperature)
        return (weight * (divergence.sum(-1) if self.rows == "edge" else divergence)).sum() / 4

    def _classes(self, student: Output, target: Predictions, plan: Assignment) -> Float[Tensor, ""]:
        """The divergence of the softmax over classes, the mean over the positives of each level, summed over levels."""
        level = student.priors.level
        positives = torch.zeros(len(student.priors.counts), device=level.device)
        positives = positives.index_add(0, level, plan.positive.sum(0).float())
        share = plan.positive / positives.clamp(min=1)[level]
        logits, targets, share = _selected(plan.positive, student.predictions.logits, target.logits, share)
        probs = (targets.float() / self.class_temperature).softmax(-1)
        return (share * softened_kl(logits, probs, self.class_temperature)).sum()


def _selected(mask: Bool[Tensor, "B P"], *values: Tensor) -> tuple[Tensor, ...]:
    """The rows under ``mask``, flat, if reading it needs no device sync; else all, with weight 0 elsewhere."""
    if not may_look(mask):
        return values
    where = mask.flatten().nonzero().squeeze(1)
    return tuple(value.flatten(0, 1).index_select(0, where) for value in values)


def _needs_edges(name: str, found: bool) -> None:
    if not found:
        raise ValueError(
            f"localization distillation compares distributions of box edges, but the {name} says none: take gfl-*, or "
            "another family with +dist, such as atss+dist-r50"
        )
