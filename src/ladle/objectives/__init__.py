"""Objectives: the losses of a training step."""

from ladle.objectives.colearning import CoLearning
from ladle.objectives.monitoring import agreement, assignment_metrics
from ladle.objectives.training_step import TrainingStep, stage_names

__all__ = ["CoLearning", "TrainingStep", "agreement", "assignment_metrics", "stage_names"]
