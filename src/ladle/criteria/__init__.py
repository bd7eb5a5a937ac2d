"""Criteria: what a detector pays, given which prior learns which object."""

from ladle.criteria.bags import BagCriterion
from ladle.criteria.dense import DenseCriterion
from ladle.criteria.published import CRITERIA, with_edges
from ladle.criteria.region import RegionCriterion

__all__ = ["CRITERIA", "BagCriterion", "DenseCriterion", "RegionCriterion", "with_edges"]
