"""Criteria: what a detector pays, given which prior learns which object."""

from ladle.criteria.dense import DenseCriterion

__all__ = ["DenseCriterion"]
