"""Ladle: label-assignment distillation, and other knowledge distillation, for object detectors.

The commands are functions with the same names: :func:`train`, :func:`distill`, :func:`colearn`, :func:`val`,
:func:`predict`, :func:`report`, :func:`push` and :func:`from_hub`, :func:`convert`, :func:`export`, :func:`bench`,
:func:`check`, :func:`models`, :func:`demo`, :func:`assign_show`, :func:`assign_stats` and :func:`assign_diff` for
``ladle assign``, and :func:`teacher_probe` and :func:`teacher_cache` for ``ladle teacher``. They are built from the
packages ``ladle.assigners``, ``ladle.criteria``, ``ladle.distillers``, ``ladle.methods``, ``ladle.objectives``,
``ladle.teachers``, ``ladle.detectors``, ``ladle.data``, ``ladle.evaluation``, ``ladle.statistics``, ``ladle.engine``,
``ladle.exporting`` and ``ladle.visual``; the records that they exchange are in ``ladle.types``.

Modules are imported at first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ladle.detectors import Detector, load_detector, save_detector
    from ladle.errors import UserError
    from ladle.lessons import Lesson
    from ladle.objectives import TrainingStep
    from ladle.recipes.assign import assign_diff, assign_show, assign_stats
    from ladle.recipes.bench import bench
    from ladle.recipes.check import check
    from ladle.recipes.convert import convert
    from ladle.recipes.demo import demo
    from ladle.recipes.export import export
    from ladle.recipes.hub import from_hub, push
    from ladle.recipes.models import models
    from ladle.recipes.options import Run
    from ladle.recipes.predict import predict
    from ladle.recipes.report import report
    from ladle.recipes.teacher import teacher_probe
    from ladle.recipes.teacher_cache import teacher_cache
    from ladle.recipes.train import colearn, distill, train
    from ladle.recipes.val import val
    from ladle.teachers import FrozenDetector

__all__ = [
    "Detector",
    "FrozenDetector",
    "Lesson",
    "Run",
    "TrainingStep",
    "UserError",
    "assign_diff",
    "assign_show",
    "assign_stats",
    "bench",
    "check",
    "colearn",
    "convert",
    "demo",
    "distill",
    "export",
    "from_hub",
    "load_detector",
    "models",
    "predict",
    "push",
    "report",
    "save_detector",
    "teacher_cache",
    "teacher_probe",
    "train",
    "val",
]

_HOME = {
    "Detector": "ladle.detectors",
    "FrozenDetector": "ladle.teachers",
    "Lesson": "ladle.lessons",
    "TrainingStep": "ladle.objectives",
    "UserError": "ladle.errors",
    "load_detector": "ladle.detectors",
    "save_detector": "ladle.detectors",
}
"""The packages of the names that are no recipes."""


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(_HOME.get(name, "ladle.recipes")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
