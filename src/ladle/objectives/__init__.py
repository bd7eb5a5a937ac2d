"""What is minimised in a training step."""

from ladle.objectives.colearning import CoLearning
from ladle.objectives.lesson import Criterion, Lesson, Timed
from ladle.objectives.staged import Staged, stage_names
from ladle.objectives.supervised import Supervised

__all__ = ["CoLearning", "Criterion", "Lesson", "Staged", "Supervised", "Timed", "stage_names"]
