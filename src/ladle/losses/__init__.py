"""Pure losses, unreduced: what a prediction costs, element by element."""

from ladle.losses.focal import background_focal, class_focal_sum, object_focal, sigmoid_focal
from ladle.losses.kl import focal_kl

__all__ = ["background_focal", "class_focal_sum", "focal_kl", "object_focal", "sigmoid_focal"]
