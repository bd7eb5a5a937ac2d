"""Objects without a positive at the end of a training, for its report."""

from __future__ import annotations

from ladle.assigners import uses_predictions
from ladle.data.loader import make_loader
from ladle.data.sources import Source, Subset
from ladle.detectors import Detector
from ladle.lessons import Lesson, TeacherJudges
from ladle.recipes.assign_reports import counted
from ladle.recipes.assigning import Context, Side
from ladle.recipes.parts import ASSIGNER
from ladle.recipes.report_values import Learning, learning_from
from ladle.statistics import advice
from ladle.teachers import FrozenDetector
from ladle.values import text_of

__all__ = ["learning_of"]

_IMAGES = 100
"""Training images that are looked at, spread over all."""


def learning_of(
    detector: Detector, images: Source, lesson: Lesson, teacher: FrozenDetector | None, epoch: int, batch: int
) -> Learning:
    """Count the objects that have no positive by the rule of a lesson, given the predictions of a trained detector.

    Those of the ``teacher`` are given instead if it judges at that epoch.
    """
    used = min(_IMAGES, len(images))
    chosen = Subset(images, [number * len(images) // used for number in range(used)])
    spec, device = detector.spec, str(detector.mean.device)
    network = FrozenDetector(detector, images.classes)
    rule, judge, about = lesson.assigner, network, text_of(ASSIGNER, lesson.assigner)
    if teacher is not None and isinstance(lesson.judge, TeacherJudges) and lesson.judge.active((float(epoch), 0)):
        rule, judge, about = lesson.judge.assigner(rule), teacher, f"{about}, judged by the teacher,"
    loader = make_loader(chosen, batch, spec.imgsz)
    context = Context(chosen, loader, spec, network, device, spec.name, 0, (), {})
    (numbers,) = counted(context, [Side(about, rule, judge if uses_predictions(rule) else None)])
    return learning_from(numbers, about, advice(numbers))
