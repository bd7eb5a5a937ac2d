"""Teachers: frozen networks, outside the student's checkpoint and optimizer."""

from ladle.teachers.frozen import FrozenDetector, FrozenHead
from ladle.teachers.protocol import Observation, Teacher

__all__ = ["FrozenDetector", "FrozenHead", "Observation", "Teacher"]
