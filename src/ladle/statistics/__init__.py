"""Who learns what and who learns nothing, in numbers: assignments counted, summed up and compared."""

from ladle.statistics.advising import advice
from ladle.statistics.agreement import Comparison, Difference, ImageDifference, compare
from ladle.statistics.counts import ObjectCounts, PlanPairs, PriorCounts, count_objects, count_priors, pairs_of
from ladle.statistics.distances import center_distances
from ladle.statistics.summary import ASPECTS, QUANTILES, SIZES, Group, Level, Statistics, share, summarize

__all__ = [
    "ASPECTS",
    "QUANTILES",
    "SIZES",
    "Comparison",
    "Difference",
    "Group",
    "ImageDifference",
    "Level",
    "ObjectCounts",
    "PlanPairs",
    "PriorCounts",
    "Statistics",
    "advice",
    "center_distances",
    "compare",
    "count_objects",
    "count_priors",
    "pairs_of",
    "share",
    "summarize",
]
