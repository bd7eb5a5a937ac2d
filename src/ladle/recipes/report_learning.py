"""Objects without a positive at the end of a training, for its report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ladle.assigners import uses_predictions
from ladle.data.loader import make_loader
from ladle.data.sources import Source, Subset, evenly
from ladle.detectors import Detector
from ladle.files import write_atomically
from ladle.lessons import Lesson, TeacherJudges
from ladle.recipes.assign_reports import counted, offer_objects
from ladle.recipes.assigning import Context, Side, names_of
from ladle.recipes.gallery import Gallery, Kept
from ladle.recipes.parts import ASSIGNER
from ladle.recipes.report_images import assigned_name
from ladle.recipes.report_values import Assigned, Learning, learning_from
from ladle.statistics import advice
from ladle.teachers import FrozenDetector
from ladle.values import text_of
from ladle.visual.plans import assignment_thumbnail

__all__ = ["learning_of"]

_DRAWN, _LISTED, _MOST_BYTES = 4, 6, 60_000
"""Images that are drawn, objects that are listed below each, and the bytes of an image."""
_IMAGES = 100
"""Training images that are looked at, spread over all."""


def learning_of(
    detector: Detector,
    images: Source,
    lesson: Lesson,
    teacher: FrozenDetector | None,
    epoch: int,
    batch: int,
    plots: Path,
) -> Learning:
    """Count the objects that have no positive by the rule of a lesson, given the predictions of a trained detector.

    Those of the ``teacher`` are given instead if it judges at that epoch. The images of the objects with the fewest
    positives are drawn into the folder ``plots``.
    """
    chosen = Subset(images, evenly(len(images), _IMAGES))
    spec, device = detector.spec, str(detector.mean.device)
    network = FrozenDetector(detector, images.classes)
    rule, judge, about = lesson.assigner, network, text_of(ASSIGNER, lesson.assigner)
    if teacher is not None and isinstance(lesson.judge, TeacherJudges) and lesson.judge.active((float(epoch), 0)):
        rule, judge, about = lesson.judge.assigner(rule), teacher, f"{about}, judged by the teacher,"
    loader = make_loader(chosen, batch, spec.imgsz)
    context = Context(chosen, loader, spec, network, device, spec.name, 0, (), names_of(images))
    side, gallery = Side(about, rule, judge if uses_predictions(rule) else None), Gallery(_DRAWN)
    (numbers,) = counted(context, [side], lambda found: offer_objects(found, context, side, gallery))
    drawn = [_drawn(image, plots / assigned_name(number)) for number, image in enumerate(gallery.images)]
    return replace(learning_from(numbers, about, advice(numbers)), drawn=tuple(drawn))


def _drawn(kept: Kept, file: Path) -> Assigned:
    """Draw one image into a file; its caption and the objects with the fewest positives."""
    (plan,) = kept.plans.values()
    data = assignment_thumbnail(kept.image, kept.truth, kept.priors, plan, _MOST_BYTES)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda temporary: temporary.write_bytes(data), only_changes=True)
    objects = tuple({name: str(value) for name, value in row.items()} for row in kept.rows[:_LISTED])
    return Assigned(f"{kept.title}: {kept.caption.partition(';')[0]}", objects)
