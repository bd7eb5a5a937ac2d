"""SimOTA: each object takes its k candidates of lowest cost near its center (YOLOX)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ladle.all_pairs import AllPairs
from ladle.assigners.dynamic_k import CostOfPairs, assign_by_cost, inside_any, sum_over_classes
from ladle.assigners.protocol import full_precision
from ladle.assigners.rescue import candidate_boxes, rescued
from ladle.overlaps import outside_crowds
from ladle.pairs import Pairs, pairs_inside
from ladle.types import Assignment, GroundTruth, Predictions, Priors
from ladle.windows import squares

__all__ = ["SimOTA"]

_LEAST_LOG = -100.0
"""Lower bound of logarithms of probabilities, as in PyTorch's binary cross entropy."""


@dataclass(frozen=True)
class SimOTA:
    """Each object takes its k candidates of lowest cost, a simplified OTA (Ge et al., YOLOX, 2021, section 2.1).

    A pair costs ``class_weight * cross entropy - box_weight * log(IoU + floor)``, plus ``penalty`` if the prior is not
    near the object's center. k is the floor of the sum of the object's ``topk`` highest IoUs with candidates, at
    least 1. A prior that several objects select learns the one for which its cost is lowest among *all* objects, also
    if that one has not selected it; the others get no replacement. The cross entropy is that of the score
    ``sqrt(class probability * quality)``, or of the class probability if the detector has no quality branch.

    The defaults are those of current YOLOX. YOLOX 0.3 and the technical report are ``SimOTA(radius=2.5,
    candidates="center or box", penalty=1e5)``; mmdetection is the same with ``floor=1e-7``.

    Args:
        radius: half the side of the square around an object's center, in strides of the prior's level.
        candidates: ``"center"``: priors in the square of any object; a pair is penalized if the prior is outside that
            object's square. ``"center or box"``: priors in the square or the box of any object; a pair is penalized
            unless the prior is in both.
        topk: number of IoUs that are summed, and so the largest k.
        box_weight: weight of the box term.
        class_weight: weight of the class term.
        penalty: added to the cost of a pair that is not near the center; infinity excludes such pairs.
        floor: added to the IoU before the logarithm.
        crowd: a prior with more than this share of its area inside a crowd region is not background.
        min_side: with ``"center or box"``, boxes of objects narrower or lower than this are treated as this wide or
            high when candidates are chosen, in strides of the finest level. 0 changes no box.
        rescue: whether an object without a positive is given the nearest prior that learns nothing
            (:func:`ladle.assigners.rescue.nearest_for_unserved`).

    At equal cost the earlier prior is taken on a CPU, any of them on a GPU; the reference codes leave this unspecified.
    Pairs whose cost is NaN are never selected.

    Examples:
        >>> from ladle.assigners import SimOTA
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = SimOTA()(predictions, priors, truth)
        >>> plan.positive.sum(1)  # priors that learn an object, in each of two images
        tensor([28, 33])
    """

    radius: float = 1.5
    candidates: Literal["center", "center or box"] = "center"
    topk: int = 10
    box_weight: float = 3.0
    class_weight: float = 1.0
    penalty: float = 1e6
    floor: float = 1e-8
    crowd: float = 0.5
    min_side: float = 0.0
    rescue: bool = False

    def __post_init__(self) -> None:
        if self.min_side and self.candidates == "center":
            raise ValueError('min_side is for candidates="center or box": the others do not depend on the box')

    @full_precision
    def __call__(self, predictions: Predictions, priors: Priors, truth: GroundTruth) -> Assignment:
        """Assign by the predicted scores and boxes."""
        free = outside_crowds(priors, truth, self.crowd)
        if not truth.labels.shape[1]:
            return Assignment.empty(free)
        square = squares(priors, truth, self.radius)  # (B, G, L, 4)
        candidate = inside_any(priors, square, truth.learnable)
        if self.candidates == "center or box":
            box = candidate_boxes(priors, truth, self.min_side).unsqueeze(2)  # (B, G, 1, 4)
            candidate = candidate | inside_any(priors, box.expand_as(square), truth.learnable)
            square = torch.cat([square[..., :2].maximum(box[..., :2]), square[..., 2:].minimum(box[..., 2:])], dim=-1)

        def cost_for(mask: Bool[Tensor, "B P"]) -> CostOfPairs:
            background = _as_background(predictions, mask)
            return lambda pairs, overlap: self._cost(pairs, overlap, background, square, predictions, priors, truth)

        positive, index = assign_by_cost(
            cost_for,
            lambda: pairs_inside(priors, square, truth.learnable),
            self.penalty,
            candidate,
            predictions.boxes,
            priors,
            truth,
            self.topk,
        )
        plan = Assignment.hard(index, positive, free)
        return rescued(plan, priors, truth) if self.rescue else plan

    def _cost(
        self,
        pairs: Pairs | AllPairs,
        overlap: Tensor,
        background: Float[Tensor, "B P"],
        region: Float[Tensor, "B G L 4"],
        predictions: Predictions,
        priors: Priors,
        truth: GroundTruth,
    ) -> Tensor:
        """The cost of each pair.

        The cross entropy summed over classes is the prior's sum as ``background``, corrected at the object's class.
        ``region`` is where a prior must lie to count as near the center.
        """
        quality = None if predictions.quality is None else pairs.of_prior(predictions.quality)
        score = _score(pairs.of_label(predictions.logits, truth.labels), quality)
        classes = pairs.of_prior(background) - _log(score) + _log(1 - score)
        far = ~pairs.inside(priors, region)
        cost = classes * self.class_weight - (overlap + self.floor).log() * self.box_weight
        cost = torch.where(far, cost + self.penalty, cost)
        return cost.nan_to_num(torch.inf, torch.inf, -torch.inf)


def _score(logit: Tensor, quality: Tensor | None) -> Tensor:
    return logit.sigmoid() if quality is None else (logit.sigmoid() * quality.sigmoid()).sqrt()


def _log(prob: Tensor) -> Tensor:
    return prob.log().clamp(min=_LEAST_LOG)


def _as_background(predictions: Predictions, mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B P"]:
    """The cross entropy of the marked priors with target 0 for every class, summed over classes."""

    def loss(logits: Tensor, flat_priors: Tensor) -> Tensor:
        quality = None
        if predictions.quality is not None:
            quality = predictions.quality.flatten().index_select(0, flat_priors).unsqueeze(1)
        return -_log(1 - _score(logits, quality))

    return sum_over_classes(predictions.logits, mask, loss)
