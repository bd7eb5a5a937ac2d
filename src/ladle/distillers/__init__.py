"""Distillers: losses between what the student says and what the teacher says."""

from ladle.distillers.protocol import Distiller
from ladle.distillers.soft_labels import SoftLabels

__all__ = ["Distiller", "SoftLabels"]
