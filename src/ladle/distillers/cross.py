"""The student's features go through its teacher's head, and what comes out is compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ladle.boxes import IOU_FLOOR, centerness, giou, iou
from ladle.distillers.joining import Joinable
from ladle.distillers.levels import channel_spread, filled_cells
from ladle.distillers.protocol import Head, Network, Summary
from ladle.losses import quality_focal, softened_kl
from ladle.networks import NetworkInfo
from ladle.types import Assignment, GroundTruth, Output, Predictions, Term

__all__ = ["CrossKD"]

_FLOOR = 1e-6
"""Least deviation of a channel, added to it."""


@dataclass(frozen=True)
class CrossKD(Joinable):
    """Cross-head distillation (Wang et al., CVPR 2024; released code).

    The maps inside the student's towers are given the mean and deviation of the teacher's, channel by channel, and sent
    through the rest of the teacher's head. The predictions that come out imitate the teacher's own. So the teacher's
    word and the ground truth, which may contradict each other, meet in the layers before, not in the predictions.

    Args:
        class_weight: weight of the class scores, by quality focal loss with exponent 1: 1; 0.4 for FCOS.
        edges_weight: weight of the distributions of edges, where the teacher says such.
        box_weight: weight of the boxes elsewhere: 1; 0.75 for FCOS.
        quality_weight: weight of the quality branch, where the teacher has one: 1 for ATSS; for FCOS there is no such
            term.
        after: how many convolutions of the towers come before: all but one of the teacher's by default, as published.
            A student with fewer sends on what it has.
        box_loss: how far boxes are apart: ``giou`` (1 - GIoU; RetinaNet, ATSS), or ``iou`` (-ln IoU; FCOS).
        count: what classes and boxes are divided by: the number of ``positives``, or the sum of their ``centerness``
            (FCOS).

    Edges and boxes count by the teacher's best score; edges are divided by its sum (GFL). Qualities are imitated at the
    positives alone, all alike, and divided by their number. A teacher's head of another width is reached through
    trained 1 x 1 convolutions, which the paper leaves out.

    Examples:
        >>> import torch
        >>> from ladle.assigners import ATSS
        >>> from ladle.families import detector_spec
        >>> from ladle.distillers import CrossKD
        >>> from ladle.types import GroundTruth
        >>> student, teacher = (detector_spec(name, ("cat", "dog")).build() for name in ("atss-tiny", "atss-mini"))
        >>> distil = CrossKD().build(student, teacher)
        >>> images, (first, second) = torch.rand(1, 3, 64, 64), distil.tower_depths
        >>> own = student(images, tower_depth=first)[0]
        >>> guide = teacher(images, priors=[own.priors], tower_depth=second)[0]
        >>> truth = GroundTruth.pad([torch.tensor([[8.0, 8.0, 40.0, 40.0]])], [torch.tensor([0])])
        >>> sorted(distil(own, guide, truth, ATSS()(own.predictions, own.priors, truth)))
        ['cross_box', 'cross_class', 'cross_quality']
    """

    features_only: ClassVar[bool] = False
    every_stage: ClassVar[bool] = False

    class_weight: float = 1.0
    edges_weight: float = 4.0
    box_weight: float = 1.0
    quality_weight: float = 1.0
    after: int | None = None
    box_loss: Literal["giou", "iou"] = "giou"
    count: Literal["positives", "centerness"] = "positives"

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What is taught, and what is left out."""
        of, by = student.stage(stage), teacher.stage(stage)
        if not of.tower_depth or not by.tower_depth:
            raise ValueError("cross-head distillation needs a dense head with towers in the student and in the teacher")
        own, guide = self.depths(of.tower_depth, by.tower_depth)
        wider = f", {of.tower_width} to {by.tower_width} channels" if of.tower_width != by.tower_width else ""
        through = f"from convolution {own} of the student's towers into the teacher's after its {guide}{wider}"
        box = (self.edges_weight, "box edges") if by.bins else (self.box_weight, "boxes")
        teaches = {
            "cross_class": (self.class_weight, f"{of.classes} class scores {through}"),
            "cross_box": (box[0], f"{box[1]} likewise"),
            "cross_quality": (self.quality_weight * bool(by.quality), "the quality branch likewise, at positives"),
        }
        return Summary({name: what for name, (weight, what) in teaches.items() if weight})

    def depths(self, own: int, guide: int) -> tuple[int, int]:
        """After how many convolutions the student's towers are left and the teacher's entered.

        Raises ValueError where the teacher's are not that deep.
        """
        after = max(guide - 1, 0) if self.after is None else self.after
        if after > guide:
            raise ValueError(f"the teacher's towers have {guide} convolutions, so none can be entered after {after}")
        return min(after, own), after

    def build(self, student: Network, teacher: Network) -> nn.Module:
        """The distiller for two networks; raises ValueError where either has no dense head."""
        if student.head is None or teacher.head is None:
            raise ValueError("cross-head distillation needs a dense head in the student and in the teacher")
        return _Cross(self, student.head, teacher.head, student.pyramid.strides)


class _Cross(nn.Module):
    """``tower_depths`` is after how many convolutions both networks must hand out their towers' maps."""

    def __init__(self, spec: CrossKD, own: Head, guide: Head, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.spec = spec
        self.strides = strides
        self.tower_depths = spec.depths(own.depth, guide.depth)
        # In a tuple, so that the teacher's head is no part of what is trained and saved.
        self._head = (guide,)
        same = own.width == guide.width
        self.adapters = nn.ModuleList(nn.Identity() if same else nn.Conv2d(own.width, guide.width, 1) for _ in range(2))

    def forward(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Terms ``cross_class``, ``cross_box`` (edges or boxes) and ``cross_quality``."""
        crossed = self._head[0].predict_from(self._dressed(student, teacher), self.tower_depths[1], student.priors)
        guide, valid, spec = teacher.predictions.detach(), student.priors.valid, self.spec
        target, learnt = guide.scores, assignment.weight
        count, images = (
            (learnt * self._merit(student, truth, assignment)).sum(),
            learnt.new_tensor(float(len(learnt))),
        )
        terms: dict[str, Term] = {}
        if spec.class_weight:
            apart = quality_focal(crossed.logits.float(), target, beta=1.0).sum(-1)
            terms["cross_class"] = Term(spec.class_weight * (apart * valid).sum(), count, images)
        sure = target.amax(-1) * valid
        if guide.edges is None and spec.box_weight:
            total = spec.box_weight * (sure * _boxes_apart(spec.box_loss, crossed, guide)).sum()
            terms["cross_box"] = Term(total, count, images)
        if guide.edges is not None and spec.edges_weight:
            total = spec.edges_weight * (sure * _edges_apart(crossed, guide)).sum()
            terms["cross_box"] = Term(total, sure.sum(), torch.zeros_like(images))
        if spec.quality_weight and crossed.quality is not None and guide.quality is not None:
            apart = F.binary_cross_entropy_with_logits(
                crossed.quality.float(), guide.quality.float().sigmoid(), reduction="none"
            )
            terms["cross_quality"] = Term(spec.quality_weight * (learnt * apart).sum(), learnt.sum(), images)
        return terms

    def _merit(self, student: Output, truth: GroundTruth, plan: Assignment) -> Tensor | float:
        """What a positive counts: 1, or how central it lies in its object."""
        if self.spec.count == "positives":
            return 1.0
        target, _ = truth.at(plan.index)
        return centerness(student.priors.centers, target)

    def _dressed(self, student: Output, teacher: Output) -> list[tuple[Tensor, Tensor]]:
        """The student's towers with the statistics of its teacher's."""
        if student.towers is None or teacher.towers is None:
            raise ValueError(f"cross-head distillation needs outputs with tower_depth={self.tower_depths}")
        dressed = []
        for stride, own, guide in zip(self.strides, student.towers, teacher.towers, strict=True):
            filled = filled_cells(guide[0], student.sizes, stride)
            pairs = zip(own, guide, self.adapters, strict=True)
            of_class, of_box = (
                _in_the_clothes_of(adapt(mine).float(), theirs.float(), filled) for mine, theirs, adapt in pairs
            )
            dressed.append((of_class, of_box))
        return dressed


def _in_the_clothes_of(own: Tensor, guide: Tensor, filled: Tensor) -> Tensor:
    mean, spread = channel_spread(own, filled)
    their_mean, their_spread = channel_spread(guide.detach(), filled)
    return (own - mean) / (spread + _FLOOR) * their_spread + their_mean


def _boxes_apart(kind: Literal["giou", "iou"], crossed: Predictions, guide: Predictions) -> Float[Tensor, "B P"]:
    """How far boxes are from the teacher's: 1 - GIoU, or -ln IoU as mmdetection has it."""
    boxes, target = crossed.boxes.float(), guide.boxes.float()
    return 1 - giou(boxes, target) if kind == "giou" else -iou(boxes, target).clamp(min=IOU_FLOOR).log()


def _edges_apart(crossed: Predictions, guide: Predictions) -> Float[Tensor, "B P"]:
    """How far distributions are from the teacher's: the KL divergence, summed over bins, the mean of four edges."""
    assert crossed.edges is not None
    assert guide.edges is not None
    bins = guide.edges.shape[-1]
    return bins * softened_kl(crossed.edges, guide.edges.float().softmax(-1), 1.0).mean(-1)
