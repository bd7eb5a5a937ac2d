"""Cross-head distillation: predictions of the teacher's head from the student's features imitate its own."""

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
"""Added to the standard deviation of a channel, so that it is never 0."""


@dataclass(frozen=True)
class CrossKD(Joinable):
    """Cross-head distillation (Wang et al., CVPR 2024; released code).

    The maps inside the student's towers are normalized, channel by channel, to the mean and standard deviation of the
    teacher's, and pass through the remaining layers of the teacher's head. The resulting cross-head predictions imitate
    the teacher's predictions. The teacher and the ground truth may contradict each other; with this loss they do not
    supervise the same predictions.

    Args:
        class_weight: loss weight of the class scores (quality focal loss with exponent 1): 1; 0.4 for FCOS.
        edges_weight: loss weight of the distributions of box edges, for a teacher that predicts them.
        box_weight: loss weight of the boxes, for any other teacher: 1; 0.75 for FCOS.
        quality_weight: loss weight of the quality branch, for a teacher that has one: 1 for ATSS; FCOS has no such
            term.
        after: number of tower convolutions before the student's maps enter the teacher's head; by default all but one
            of the teacher's, as published. A student with fewer convolutions passes on its last maps.
        box_loss: ``giou`` (1 - GIoU; RetinaNet, ATSS), or ``iou`` (-ln IoU; FCOS).
        count: divisor of the class and box terms: the number of ``positives``, or the sum of their ``centerness``
            (FCOS).

    The edge and box losses of a prior are weighted by the teacher's highest class score; the edge loss is divided by
    the sum of these weights (GFL). The quality loss is the mean over the positives. If the teacher's head has another
    width, trained 1 x 1 convolutions adapt the channels; the paper has none.

    Examples:
        >>> import torch
        >>> from ladle.assigners import ATSS
        >>> from ladle.families import detector_spec
        >>> from ladle.distillers import CrossKD
        >>> from ladle.types import GroundTruth
        >>> student, teacher = (detector_spec(name, ("cat", "dog")).build() for name in ("atss-tiny", "atss-mini"))
        >>> distil = CrossKD().build(student, teacher)
        >>> images, (first, second) = torch.rand(1, 3, 64, 64), distil.tower_depths
        >>> ours = student(images, tower_depth=first)[0]
        >>> theirs = teacher(images, priors=[ours.priors], tower_depth=second)[0]
        >>> truth = GroundTruth.pad([torch.tensor([[8.0, 8.0, 40.0, 40.0]])], [torch.tensor([0])])
        >>> sorted(distil(ours, theirs, truth, ATSS()(ours.predictions, ours.priors, truth)))
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
        """What each term imitates, and which terms are left out."""
        of, by = student.stage(stage), teacher.stage(stage)
        if not of.tower_depth or not by.tower_depth:
            raise ValueError(
                "cross-head distillation needs a dense head with towers in the student and in the teacher, at the same "
                "priors; take lad or soft"
            )
        student_depth, teacher_depth = self.depths(of.tower_depth, by.tower_depth)
        wider = f", {of.tower_width} to {by.tower_width} channels" if of.tower_width != by.tower_width else ""
        places = (
            f"from convolution {student_depth} of the student's towers into the teacher's after its {teacher_depth}"
        )
        through = places + wider
        box = (self.edges_weight, "box edges") if by.bins else (self.box_weight, "boxes")
        teaches = {
            "cross_class": (self.class_weight, f"{of.classes} class scores {through}"),
            "cross_box": (box[0], f"{box[1]} likewise"),
            "cross_quality": (self.quality_weight * bool(by.quality), "the quality branch likewise, at positives"),
        }
        return Summary({name: what for name, (weight, what) in teaches.items() if weight})

    def depths(self, student: int, teacher: int) -> tuple[int, int]:
        """After how many convolutions maps leave the student's towers and enter the teacher's.

        ``student`` and ``teacher`` are the numbers of convolutions in their towers. Raises ValueError if the teacher
        has fewer than ``after``.
        """
        after = max(teacher - 1, 0) if self.after is None else self.after
        if after > teacher:
            raise ValueError(f"the teacher's towers have {teacher} convolutions, so none can be entered after {after}")
        return min(after, student), after

    def build(self, student: Network, teacher: Network) -> nn.Module:
        """The distiller for two networks; raises ValueError where either has no dense head."""
        if student.head is None or teacher.head is None:
            raise ValueError("cross-head distillation needs a dense head in the student and in the teacher")
        return _Cross(self, student.head, teacher.head, student.pyramid.strides)


class _Cross(nn.Module):
    """``tower_depths``: after how many convolutions the student and the teacher must return their towers' maps."""

    def __init__(self, spec: CrossKD, student: Head, teacher: Head, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.spec = spec
        self.strides = strides
        self.tower_depths = spec.depths(student.depth, teacher.depth)
        # In a tuple, so that the teacher's head is not registered: it is neither trained nor saved.
        self._head = (teacher,)
        same = student.width == teacher.width
        self.adapters = nn.ModuleList(
            nn.Identity() if same else nn.Conv2d(student.width, teacher.width, 1) for _ in range(2)
        )

    def forward(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Terms ``cross_class``, ``cross_box`` (edges or boxes) and ``cross_quality``."""
        crossed = self._head[0].predict_from(
            self._aligned_towers(student, teacher), self.tower_depths[1], student.priors
        )
        target, valid, spec = teacher.predictions.detach(), student.priors.valid, self.spec
        scores, positive_weight = target.scores, assignment.weight
        count, images = (
            (positive_weight * self._centerness(student, truth, assignment)).sum(),
            positive_weight.new_full((), float(len(positive_weight))),
        )
        terms: dict[str, Term] = {}
        if spec.class_weight:
            loss = quality_focal(crossed.logits.float(), scores, beta=1.0).sum(-1)
            terms["cross_class"] = Term(spec.class_weight * (loss * valid).sum(), count, images)
        best = scores.amax(-1) * valid
        if target.edges is None and spec.box_weight:
            total = spec.box_weight * (best * _box_loss(spec.box_loss, crossed, target)).sum()
            terms["cross_box"] = Term(total, count, images)
        if target.edges is not None and spec.edges_weight:
            total = spec.edges_weight * (best * _edge_loss(crossed, target)).sum()
            terms["cross_box"] = Term(total, best.sum(), torch.zeros_like(images))
        if spec.quality_weight and crossed.quality is not None and target.quality is not None:
            loss = F.binary_cross_entropy_with_logits(
                crossed.quality.float(), target.quality.float().sigmoid(), reduction="none"
            )
            terms["cross_quality"] = Term(
                spec.quality_weight * (positive_weight * loss).sum(), positive_weight.sum(), images
            )
        return terms

    def _centerness(self, student: Output, truth: GroundTruth, plan: Assignment) -> Tensor | float:
        """The weight of a positive in the divisor: 1, or its centerness in its object."""
        if self.spec.count == "positives":
            return 1.0
        boxes, _ = truth.at(plan.index)
        return centerness(student.priors.centers, boxes)

    def _aligned_towers(self, student: Output, teacher: Output) -> list[tuple[Tensor, Tensor]]:
        """The student's tower maps with the mean and standard deviation of the teacher's, channel by channel."""
        if student.towers is None or teacher.towers is None:
            raise ValueError(f"cross-head distillation needs outputs with tower_depth={self.tower_depths}")
        aligned = []
        for stride, maps, targets in zip(self.strides, student.towers, teacher.towers, strict=True):
            filled = filled_cells(targets[0], student.sizes, stride)
            pairs = zip(maps, targets, self.adapters, strict=True)
            of_class, of_box = (
                _match_statistics(adapt(one).float(), target.float(), filled) for one, target, adapt in pairs
            )
            aligned.append((of_class, of_box))
        return aligned


def _match_statistics(maps: Tensor, target: Tensor, filled: Tensor) -> Tensor:
    """``maps`` with the mean and standard deviation of ``target``, channel by channel over the filled cells."""
    mean, std = channel_spread(maps, filled)
    target_mean, target_std = channel_spread(target.detach(), filled)
    return (maps - mean) / (std + _FLOOR) * target_std + target_mean


def _box_loss(kind: Literal["giou", "iou"], crossed: Predictions, target: Predictions) -> Float[Tensor, "B P"]:
    """The loss of boxes against the teacher's: 1 - GIoU, or -ln IoU as in mmdetection."""
    boxes, target_boxes = crossed.boxes.float(), target.boxes.float()
    return 1 - giou(boxes, target_boxes) if kind == "giou" else -iou(boxes, target_boxes).clamp(min=IOU_FLOOR).log()


def _edge_loss(crossed: Predictions, target: Predictions) -> Float[Tensor, "B P"]:
    """The KL divergence from the teacher's edge distributions: the sum over bins, the mean over the four edges."""
    assert crossed.edges is not None
    assert target.edges is not None
    bins = target.edges.shape[-1]
    return bins * softened_kl(crossed.edges, target.edges.float().softmax(-1), 1.0).mean(-1)
