"""Teachers: frozen for good, outside the student's checkpoint and optimizer."""

from ladle.teachers.frozen import FrozenDetector, FrozenHead, Teacher, differences

__all__ = ["FrozenDetector", "FrozenHead", "Teacher", "differences"]
