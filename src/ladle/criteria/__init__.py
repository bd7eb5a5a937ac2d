"""Criteria: the training losses of a detector, given which prior learns which object."""

from ladle.criteria.bags import BagCriterion
from ladle.criteria.dense import DenseCriterion
from ladle.criteria.region import RegionCriterion

__all__ = ["BagCriterion", "DenseCriterion", "RegionCriterion"]
