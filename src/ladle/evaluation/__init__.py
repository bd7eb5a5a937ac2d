"""Metrics of detections: COCO's average precision and recall, precision-recall, confusion, errors by kind."""

from __future__ import annotations

from ladle.evaluation.average_precision import AP_FIELDS, Evaluation, Reference, check_names, coco_results, evaluate
from ladle.evaluation.curves import (
    Confusion,
    PrecisionRecall,
    Threshold,
    best_threshold,
    class_thresholds,
    confusion,
    precision_recall,
)
from ladle.evaluation.errors import (
    DETECTION_KINDS,
    OBJECT_KINDS,
    Errors,
    ImageErrors,
    errors_by_kind,
    image_errors,
)

__all__ = [
    "AP_FIELDS",
    "DETECTION_KINDS",
    "OBJECT_KINDS",
    "Confusion",
    "Errors",
    "Evaluation",
    "ImageErrors",
    "PrecisionRecall",
    "Reference",
    "Threshold",
    "best_threshold",
    "check_names",
    "class_thresholds",
    "coco_results",
    "confusion",
    "errors_by_kind",
    "evaluate",
    "image_errors",
    "precision_recall",
]
