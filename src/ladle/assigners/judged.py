"""Overlap assigners with a judge: the judge's predicted boxes replace the boxes of the priors.

Only the matrix of overlaps changes; thresholds and geometry stay as they are. Predicted boxes overlap objects far more
than priors do, so thresholds made for priors would accept many more of them. Keeping each object's number of positives
(:func:`keep_counts`) avoids that.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.pairs import Pairs, ranks
from ladle.types import Assignment, GroundTruth, Predictions

__all__ = ["class_factors", "count_per_object", "fill_unmatched", "keep_counts", "pair_factors", "rejected_ignored"]


def class_factors(predictions: Predictions, power: float) -> Float[Tensor, "B P C"] | None:
    """The factors by which a judge's overlaps are multiplied, for objects of each class: its scores to this power.

    NaN scores count as 0. None for power 0, where every factor is 1.
    """
    return predictions.scores.nan_to_num(0.0).pow(power) if power else None


def pair_factors(
    pairs: Pairs, predictions: Predictions, truth: GroundTruth, power: float
) -> Float[Tensor, " N"] | float:
    """:func:`class_factors` for each pair of a prior and an object; 1.0 for power 0."""
    if not power:
        return 1.0
    return pairs.of_label(predictions.log_odds, truth.labels).sigmoid().nan_to_num(0.0).pow(power)


def count_per_object(index: Int[Tensor, "B P"], marked: Bool[Tensor, "B P"], objects: int) -> Int[Tensor, "B G"]:
    """The number of marked priors of each of G = ``objects`` objects; ``index`` is the object of each prior."""
    counts = torch.zeros(len(index), max(objects, 1), dtype=torch.long, device=index.device)
    return counts.scatter_add(1, torch.where(marked, index, 0), marked.long())[:, :objects]


def keep_counts(
    index: Int[Tensor, "B P"],
    overlap: Float[Tensor, "B P"],
    candidate: Bool[Tensor, "B P"],
    positives: Int[Tensor, "B G"],
    ignored: Int[Tensor, "B G"],
) -> Assignment:
    """Give each object a fixed number of positives and ignored priors, those of highest overlap.

    Args:
        index: the object of each prior.
        overlap: the overlap of each prior with that object.
        candidate: the priors that may be positive or ignored.
        positives: number of positives of each object.
        ignored: number of the next best candidates of each object that are neither positive nor background.
    """
    batch, priors = index.shape
    pairs = Pairs.chosen(index, candidate)  # N candidates, each with its object
    flat_prior = pairs.image * priors + pairs.prior
    rank = ranks(pairs, -overlap.flatten().index_select(0, flat_prior))
    last_positive = pairs.of_object(positives) if positives.shape[1] else rank
    last_ignored = last_positive + pairs.of_object(ignored) if positives.shape[1] else rank
    none = torch.zeros(batch * priors, dtype=torch.bool, device=index.device)
    # A padded list contains every prior exactly once, so all entries can be scattered, padding included.
    learns = none.scatter(0, flat_prior, pairs.real & (rank < last_positive)).view(batch, priors)
    is_ignored = pairs.real & (rank >= last_positive) & (rank < last_ignored)
    return Assignment.hard(index, learns, ~none.scatter(0, flat_prior, is_ignored).view(batch, priors))


def rejected_ignored(judged: Assignment, plain: Assignment) -> Assignment:
    """The ``judged`` plan, in which priors that are positive in the ``plain`` plan only are ignored.

    Such a prior overlaps its object well, so training it as background would contradict the targets of its neighbors.
    """
    return judged.limited_to(~(plain.positive & ~judged.positive))


def fill_unmatched(judged: Assignment, plain: Assignment, objects: int) -> Assignment:
    """The ``judged`` plan; objects without a positive in it keep their positives of the ``plain`` plan.

    A prior that is positive in the judged plan keeps its object.
    """
    if not objects:
        return judged
    matched = count_per_object(judged.index, judged.positive, objects) > 0
    added = plain.positive & ~judged.positive & ~matched.gather(1, plain.index)
    index = torch.where(added, plain.index, judged.index)
    return Assignment.hard(index, judged.positive | added, judged.background > 0)
