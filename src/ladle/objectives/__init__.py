"""What is minimised in a training step."""

from ladle.objectives.lesson import Criterion, Lesson
from ladle.objectives.supervised import Supervised

__all__ = ["Criterion", "Lesson", "Supervised"]
