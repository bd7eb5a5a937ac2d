"""What is minimized in a training step."""

from ladle.objectives.colearning import CoLearning
from ladle.objectives.lesson import Criterion, Lesson, Scheduled
from ladle.objectives.staged import Staged, stage_names
from ladle.objectives.supervised import Supervised

__all__ = ["CoLearning", "Criterion", "Lesson", "Scheduled", "Staged", "Supervised", "stage_names"]
