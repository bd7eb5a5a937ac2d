"""Binary classification distillation, and localization distillation by IoU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from ladle.boxes import giou, iou
from ladle.distillers.joining import Joinable
from ladle.distillers.protocol import Network, Summary
from ladle.losses import quality_focal
from ladle.networks import NetworkInfo
from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = ["BCKD"]


@dataclass(frozen=True)
class BCKD(Joinable):
    """Imitate class scores as binary problems, and boxes by IoU where the scores differ (Yang et al., ICCV 2023).

    A detector with one sigmoid for each class decides about each class by itself, so the distillation does too: binary
    cross entropy with the teacher's score as the target, weighted by the distance of the two scores. The softmax over
    classes of other methods does not change if all logits grow alike, but the scores do. The box loss of a prior is
    weighted by the largest distance of the two scores of a class.

    Args:
        class_weight: loss weight of the class scores.
        box_weight: loss weight of the boxes.
        exponent: of the distance of the scores in both terms: 1 as published, 0 for no weights.
        box_loss: ``giou`` (1 - GIoU, released code), or ``iou`` (1 - IoU, paper).

    Both terms are over all valid priors and divided by the number of positives, at least one per image.

    Examples:
        >>> from ladle.distillers import BCKD
        >>> from ladle.testing import example_output
        >>> student, truth, plan = example_output(seed=0)
        >>> teacher, _, _ = example_output(seed=1)
        >>> sorted(BCKD()(student, teacher, truth, plan))
        ['bckd_box', 'bckd_class']
    """

    features_only: ClassVar[bool] = False
    every_stage: ClassVar[bool] = True

    class_weight: float = 1.0
    box_weight: float = 4.0
    exponent: float = 1.0
    box_loss: Literal["giou", "iou"] = "giou"

    def summarize(self, student: NetworkInfo, teacher: NetworkInfo, stage: int) -> Summary:
        """What each term imitates."""
        of = student.stage(stage)
        scores = f"{of.classes} class scores, each by itself," if of.classes > 1 else "the score of the only class"
        teaches = {
            "bckd_class": (self.class_weight, f"{scores} at every prior where the two differ"),
            "bckd_box": (self.box_weight, "boxes at every prior where the scores differ"),
        }
        return Summary({name: what for name, (weight, what) in teaches.items() if weight})

    def build(self, student: Network, teacher: Network) -> BCKD:
        """The loss itself: it needs nothing of the two networks."""
        return self

    def __call__(self, student: Output, teacher: Output, truth: GroundTruth, assignment: Assignment) -> dict[str, Term]:
        """Terms ``bckd_class`` and ``bckd_box``."""
        pred, target, valid = student.predictions, teacher.predictions.detach(), student.priors.valid
        logits, scores = pred.log_odds.float(), target.log_odds.float().sigmoid()
        count, images = assignment.weight.sum(), scores.new_full((), float(len(scores)))
        terms: dict[str, Term] = {}
        if self.class_weight:
            loss = quality_focal(logits, scores, beta=self.exponent).sum(-1)
            terms["bckd_class"] = Term(self.class_weight * (loss * valid).sum(), count, images)
        if self.box_weight:
            apart = (logits.detach().sigmoid() - scores).abs().amax(-1).pow(self.exponent) * valid
            terms["bckd_box"] = Term(self.box_weight * (apart * self._box_loss(student, teacher)).sum(), count, images)
        return terms

    def _box_loss(self, student: Output, teacher: Output) -> Float[Tensor, "B P"]:
        overlap, target = giou if self.box_loss == "giou" else iou, teacher.predictions.detach()
        # Where each class has a box of its own, the student's is that of the class that the teacher takes.
        boxes = student.predictions.boxes_of(target.logits.argmax(-1))
        return 1 - overlap(boxes.float(), target.boxes.float())
