"""Teachers: frozen for good, outside the student's checkpoint and optimizer."""

from ladle.teachers.frozen import FrozenDetector, Teacher, differences

__all__ = ["FrozenDetector", "Teacher", "differences"]
