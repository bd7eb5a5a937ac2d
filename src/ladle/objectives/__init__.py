"""Objectives: the losses of a training step."""

from ladle.objectives.colearning import CoLearning
from ladle.objectives.training_step import TrainingStep, stage_names

__all__ = ["CoLearning", "TrainingStep", "stage_names"]
