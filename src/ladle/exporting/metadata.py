"""What a file says of itself: all that a program needs to feed it and to read what comes out."""

from __future__ import annotations

import json
from typing import Any

from ladle.detectors import DetectorSpec
from ladle.exporting.module import Plan

__all__ = ["describe", "spelled"]

_GREY, _MULTIPLE = 114, 32
"""How images are padded, see :func:`ladle.data.loader.collate`; a test holds them against it."""


def describe(spec: DetectorSpec, plan: Plan, version: str) -> dict[str, Any]:
    """Everything about a file, as plain values by name."""
    inference = spec.inference
    fixed = plan.dynamic != "sizes"
    return {
        "ladle_version": version,
        "model": spec.name,
        "classes": list(spec.classes),
        "category_ids": list(spec.category_ids),
        "imgsz": spec.imgsz,
        "images": plan.images,
        "input_size": [plan.side, plan.side] if fixed else None,
        "batch": plan.batch if plan.dynamic == "none" else None,
        "resize": "longer side to imgsz, bilinear with antialiasing",
        "pad": "at the right and the bottom",
        "pad_value": _GREY,
        "pad_multiple": _MULTIPLE,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "value_range": list(spec.value_range),
        "strides": list(spec.strides),
        "priors_per_location": 0 if spec.regions else spec.head.anchors.per_location,
        "prior_offset": spec.head.anchors.offset,
        "nms": plan.nms,
        "score_threshold": inference.threshold,
        "iou_threshold": inference.nms,
        "candidates": inference.candidates,
        "keep": inference.keep,
        "voting": inference.voting,
        "least_side": inference.least,
    }


def spelled(description: dict[str, Any]) -> dict[str, str]:
    """The values as JSON, each by itself."""
    return {key: json.dumps(value) for key, value in description.items()}
