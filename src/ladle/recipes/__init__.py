"""The commands as plain functions with the same names and arguments."""

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

__all__ = [
    "Run",
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
    "models",
    "predict",
    "push",
    "report",
    "teacher_cache",
    "teacher_probe",
    "train",
    "val",
]
