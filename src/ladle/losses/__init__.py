"""Loss functions on tensors, without reduction over elements."""

from ladle.losses.distribution import distribution_focal, expected_bin, rebinned
from ladle.losses.focal import background_focal, background_focal_sum, class_focal_sum, object_focal, sigmoid_focal
from ladle.losses.kl import focal_kl, softened_kl
from ladle.losses.quality_focal import background_quality_focal, background_quality_focal_sum, quality_focal

__all__ = [
    "background_focal",
    "background_focal_sum",
    "background_quality_focal",
    "background_quality_focal_sum",
    "class_focal_sum",
    "distribution_focal",
    "expected_bin",
    "focal_kl",
    "object_focal",
    "quality_focal",
    "rebinned",
    "sigmoid_focal",
    "softened_kl",
]
