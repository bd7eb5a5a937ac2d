"""Rules of overlap with a judge: predicted boxes stand in for the priors, everything else of the rule stays.

This is rule 2 of distilled assignment: the judge's boxes fill the matrix of overlaps, thresholds and geometry remain.
Refined boxes overlap objects far better than priors do, so a rule made for priors takes many more of them; keeping each
object's number of positives takes that away.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.pairs import Pairs, ranks
from ladle.types import Assignment, GroundTruth, Predictions

__all__ = ["class_trust", "count_per_object", "fill_unmatched", "keep_counts", "pair_trust", "rejected_ignored"]


def class_trust(predictions: Predictions, power: float) -> Float[Tensor, "B P C"] | None:
    """By what a judge's overlaps are multiplied for objects of each class; None where it is 1.

    What is not a number trusts nobody.
    """
    return predictions.scores.nan_to_num(0.0).pow(power) if power else None


def pair_trust(pairs: Pairs, predictions: Predictions, truth: GroundTruth, power: float) -> Float[Tensor, " N"] | float:
    """The same for each pair of a prior and an object."""
    if not power:
        return 1.0
    return pairs.of_label(predictions.log_odds, truth.labels).sigmoid().nan_to_num(0.0).pow(power)


def count_per_object(index: Int[Tensor, "B P"], marked: Bool[Tensor, "B P"], objects: int) -> Int[Tensor, "B G"]:
    """How many marked priors each object has."""
    counts = torch.zeros(len(index), max(objects, 1), dtype=torch.long, device=index.device)
    return counts.scatter_add(1, torch.where(marked, index, 0), marked.long())[:, :objects]


def keep_counts(
    index: Int[Tensor, "B P"],
    overlap: Float[Tensor, "B P"],
    candidate: Bool[Tensor, "B P"],
    positives: Int[Tensor, "B G"],
    ignored: Int[Tensor, "B G"],
) -> Assignment:
    """Of the candidates of object ``index`` the best overlapping ones learn it, as many as ``positives`` says.

    The next best, as many as ``ignored`` says, are neither object nor background.
    """
    batch, priors = index.shape
    pairs = Pairs.chosen(index, candidate)
    place = pairs.image * priors + pairs.prior
    rank = ranks(pairs, -overlap.flatten().index_select(0, place))
    wanted = pairs.of_object(positives) if positives.shape[1] else rank
    spared = wanted + pairs.of_object(ignored) if positives.shape[1] else rank
    none = torch.zeros(batch * priors, dtype=torch.bool, device=index.device)
    # A padded list names every prior once, so that writing marks back needs no look at what is real.
    learns = none.scatter(0, place, pairs.real & (rank < wanted)).view(batch, priors)
    left = none.scatter(0, place, pairs.real & (rank >= wanted) & (rank < spared)).view(batch, priors)
    return Assignment.hard(index, learns, ~left)


def rejected_ignored(judged: Assignment, own: Assignment) -> Assignment:
    """The judged plan in which priors that are objects by the rule itself, and that the judge turns down, are ignored.

    Such a prior overlaps its object well. To have it learn that nothing is there would contradict what the student
    learns at its neighbors.
    """
    return replace(judged, background=judged.background * ~(own.positive & ~judged.positive))


def fill_unmatched(judged: Assignment, own: Assignment, objects: int) -> Assignment:
    """The judged plan, and for objects it leaves without a prior those that the rule gives them by the priors' boxes.

    A prior that the judged plan gives to an object stays with it.
    """
    if not objects:
        return judged
    served = count_per_object(judged.index, judged.positive, objects) > 0
    spare = own.positive & ~judged.positive & ~served.gather(1, own.index)
    index = torch.where(spare, own.index, judged.index)
    return Assignment.hard(index, judged.positive | spare, judged.background > 0)
