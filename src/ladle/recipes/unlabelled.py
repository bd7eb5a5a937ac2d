"""Images without labels: the teacher's confident boxes become the objects that the student learns there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from ladle.data import DetectionDataset
from ladle.data.copies import shared
from ladle.data.depth import ALL_VALUES
from ladle.data.folders import images_of, list_folder
from ladle.data.loader import make_loader
from ladle.data.raw_images import RawImage, RawSplit
from ladle.data.repairs import check_and_repair
from ladle.data.sources import DatasetSource, Source
from ladle.errors import UserError
from ladle.files import write_text
from ladle.names import readable
from ladle.recipes.contents import contents_of
from ladle.recipes.devices import find_device
from ladle.recipes.folders import UNLABELLED
from ladle.recipes.jobs import Job
from ladle.recipes.least_scores import Scores, choose_scores, chosen, parse_scores
from ladle.recipes.parts import Parts
from ladle.recipes.prepared import workers_of
from ladle.recipes.scoring import USUAL_LEAST, Evaluator, find_of
from ladle.teachers import (
    CacheHeader,
    ForeignTeacher,
    FrozenDetector,
    LadleTeacher,
    MovedTeacher,
    RecordedTeacher,
    cache_line,
    match_classes,
    open_teacher,
    read_cache,
)
from ladle.teachers.detections import FINAL_MOST
from ladle.types import Detections

__all__ = ["Unlabelled", "open_unlabelled"]

_SPLIT = "unlabelled"
"""The first part of the ids of these images, and the name of their split in the file of the run."""
_LABELED = 300
"""Labeled images on which the scores are chosen, spread over the training images."""

_LEAST_SIDE = 0.5
"""The least side of an object in pixels, as in all data."""

Found: TypeAlias = Mapping[int | str, Detections]
"""The boxes of each image, by its id."""


class Unlabelled(NamedTuple):
    """The images in which the teacher found objects, with these as their objects, and lines about them."""

    source: Source
    lines: tuple[str, ...]


def open_unlabelled(
    job: Job, parts: Parts, images: Source, val: Source, imgsz: int, resumed: bool
) -> Unlabelled | None:
    """The images of ``--unlabelled`` with the teacher's confident boxes; None if the flag is not given.

    The teacher runs once, before training. Its boxes are written into the run folder, from which a run that is resumed
    reads them.

    Raises:
        UserError: if there are no images, if one of them is among the labeled ones, if the teacher finds nothing, does
            not know a class or does not run, and for scores that cannot be read.
    """
    if job.unlabelled is None:
        if job.unlabelled_score is not None:
            raise UserError(f"--unlabelled-score {job.unlabelled_score}: it has no effect without --unlabelled FOLDER")
        return None
    parse_scores(job.unlabelled_score, images.classes)
    dataset = _read(job, images)
    _check_apart(job.unlabelled, dataset, images, val)
    file = Path(job.folder) / UNLABELLED
    if resumed:
        found, about = _stored(file, job, dataset, images), "found before the first epoch of this run"
    else:
        found, about = _searched(job, parts, images, dataset, imgsz)
        write_text(file, "".join(f"{line}\n" for line in _lines_of_file(job, dataset, images, imgsz, found)))
    with_objects = _with_objects(dataset, found)
    source = _source(with_objects, images, 2 * imgsz if job.run.cache else 0)
    return Unlabelled(source, (*_about(job, len(images), len(dataset), with_objects), about))


def _read(job: Job, images: Source) -> DetectionDataset:
    """The images of the folder, without objects."""
    folder = Path(str(job.unlabelled))
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing there"
        raise UserError(f"--unlabelled {folder}: expected a folder of images, found {found}")
    listing = list_folder(folder)
    names = [file.relative_to(folder).as_posix() for file in images_of(listing.files)]
    if not names:
        raise UserError(f"--unlabelled {folder}: expected a folder of images, found none in it")
    raw_images = [RawImage(f"{_SPLIT}/{name}", name, folder / name) for name in names]
    split = RawSplit(raw_images, tuple(images.classes), tuple(images.category_ids), list(listing.defects), folder)
    return check_and_repair(split, job.run.on_defect, job.run.on_defect == "skip")


def _check_apart(folder: str, dataset: DetectionDataset, images: Source, val: Source) -> None:
    """Raise :class:`UserError` if an image has labels too, or is one of validation."""
    labeled = {"training": images, "validation": val}
    others = {name: one.dataset for name, one in labeled.items() if isinstance(one, DatasetSource)}
    for split, other in others.items():
        twice = shared({split: other, _SPLIT: dataset})
        if twice:
            raise UserError(
                f"--unlabelled {folder}: expected other images than those with labels, found {len(twice)} of the "
                f"{split} images among them, such as {twice[0][_SPLIT]}: move them elsewhere"
            )


def _source(dataset: DetectionDataset, images: Source, cache: int = 0) -> DatasetSource:
    """Images that are read as the labeled ones are."""
    value_range = images.value_range if isinstance(images, DatasetSource) else ALL_VALUES
    return DatasetSource(dataset, cache, value_range)


def _searched(job: Job, parts: Parts, images: Source, dataset: DetectionDataset, imgsz: int) -> tuple[Found, str]:
    """The teacher's boxes of high scores, and a line about these scores."""
    classes, batch, device = images.classes, job.run.batch_size, find_device(job.run.device)
    teacher = _teacher_of(job, parts, images).to(device)
    scores, about = parse_scores(job.unlabelled_score, classes), "given"
    if any(name not in scores for name in classes):
        evaluator = Evaluator(images, imgsz, batch, limit=_LABELED)
        seen = evaluator.score(find_of(teacher, device, FINAL_MOST), classes, FINAL_MOST).detections
        scores = choose_scores(evaluator.truth, seen, classes) | scores
        about = f"those with the best F1 on {len(evaluator.source)} images with labels"
    found: dict[int | str, Detections] = {}
    cut, find = 0, find_of(teacher, device, FINAL_MOST, min(USUAL_LEAST, *scores.values()))
    least = torch.tensor([scores[name] for name in classes])
    for views in make_loader(_source(dataset, images), batch, imgsz, workers=workers_of(job.run)):
        seen_here, more = find(views)
        cut += more
        for name, one in zip(views.ids, seen_here, strict=True):
            sides = one.boxes[:, 2:] - one.boxes[:, :2]
            kept = (one.scores >= least[one.labels]) & (sides >= _LEAST_SIDE).all(1)
            if kept.any():
                found[name] = chosen(one, kept)
    if not found:
        raise UserError(
            f"--unlabelled {job.unlabelled}: the teacher finds no object in these {len(dataset)} images with a score "
            f"of {_listed(scores)}: give a lower --unlabelled-score"
        )
    most = f"; of {cut} images the best {FINAL_MOST} boxes alone" if cut else ""
    return found, f"with scores of at least {_listed(scores)}, {about}{most}"


def _teacher_of(job: Job, parts: Parts, images: Source) -> ForeignTeacher:
    """The teacher as a detector of final boxes with the classes of the data."""
    given, text, ids = parts.teacher, job.taught_by or job.teacher, images.category_ids
    if isinstance(given, MovedTeacher):
        given = given.frozen
    if isinstance(given, FrozenDetector):
        classes = given.detector.spec.classes
        teacher = ForeignTeacher(LadleTeacher(given.detector), match_classes(classes, images.classes))
    elif isinstance(given, ForeignTeacher):
        teacher = given
    elif given is not None or text is None:
        raise UserError(
            f"--unlabelled {job.unlabelled}: expected a teacher that detects objects, found {type(given).__name__}, "
            "which predicts at the student's priors only; give a ladle.teachers.ForeignTeacher"
        )
    else:
        opened = parts.foreign() if parts.foreign is not None else None
        teacher = opened if isinstance(opened, ForeignTeacher) else open_teacher(text, images.classes, ids)
    if isinstance(teacher.detector, RecordedTeacher):
        raise UserError(
            f"--unlabelled {job.unlabelled}: expected a teacher that runs, found recorded predictions, which are for "
            "the images with labels"
        )
    if teacher.table.missing:
        raise UserError(
            f"--unlabelled {job.unlabelled}: the teacher does not know "
            f"{', '.join(map(repr, teacher.table.missing))}, so in these images such objects would be learned as "
            "background; leave the flag out, or name the teacher's class for it by ?class_map=names.yaml"
        )
    return teacher


def _with_objects(dataset: DetectionDataset, found: Found) -> DetectionDataset:
    """The images in which something was found, with it as their objects."""
    images = []
    for image in dataset.images:
        one = found.get(image.id)
        if one is not None:
            crowd = np.zeros(len(one.labels), np.bool_)
            images.append(replace(image, boxes=one.boxes.numpy(), labels=one.labels.numpy(), crowd=crowd))
    return replace(dataset, images=images)


def _lines_of_file(job: Job, dataset: DetectionDataset, images: Source, imgsz: int, found: Found) -> Iterator[str]:
    """A cache of the teacher's boxes in these images."""
    digest = contents_of(_source(dataset, images)).sha256
    teacher = str(job.taught_by or job.teacher)
    yield CacheHeader(teacher, job.teacher_sha256 or "", tuple(images.classes), imgsz, {_SPLIT: digest}).line()
    for name, one in found.items():
        yield cache_line(_SPLIT, name, one)


def _stored(file: Path, job: Job, dataset: DetectionDataset, images: Source) -> Found:
    """The boxes of a run that is resumed."""
    if not file.is_file():
        raise UserError(
            f"--resume {job.folder}: {file.name} is missing; put it back from a copy, or start the run anew"
        )
    header, found = read_cache(file)
    if header.data.get(_SPLIT) != contents_of(_source(dataset, images)).sha256:
        raise UserError(
            f"--resume {job.folder}: the images of {job.unlabelled} are not those the run began with; give their path "
            "with --unlabelled, or start a new run"
        )
    return found[_SPLIT]


def _about(job: Job, labeled: int, count: int, with_objects: DetectionDataset) -> Iterator[str]:
    """Lines about the images and their boxes."""
    used = len(with_objects)
    yield (
        f"and {used} of the {count} images without labels in {job.unlabelled}, on average "
        f"{100 * used / (used + labeled):.0f} % of a step; in the others the teacher finds no object: they are left out"
    )
    counts = np.bincount(
        np.concatenate([image.labels for image in with_objects.images]), minlength=len(with_objects.classes)
    )
    boxes = zip(counts, readable(with_objects.classes), strict=True)
    yield f"their objects are boxes of the teacher: {', '.join(f'{number} {name}' for number, name in boxes)}"


def _listed(scores: Scores) -> str:
    """The scores with the names of their classes; one number if they are all the same."""
    if len(set(scores.values())) == 1:
        return f"{next(iter(scores.values())):.2f}"
    return ", ".join(
        f"{score:.2f} ({name})" for name, score in zip(readable(list(scores)), scores.values(), strict=True)
    )
