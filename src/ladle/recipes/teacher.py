"""What a teacher of any origin gives, measured before it teaches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from ladle.data.sources import Source
from ladle.data.transforms import Resize
from ladle.detectors import load_detector
from ladle.evaluation import Evaluation
from ladle.files import path_as_text
from ladle.limits import verify_arguments
from ladle.names import readable
from ladle.recipes.console import say, table
from ladle.recipes.devices import Device, find_device
from ladle.recipes.options import Batch, OnDefect, Share, Side, Workers
from ladle.recipes.outputs import RESULTS, about_labels, check_out, coco_rows, output_folder, title_of, write_rows
from ladle.recipes.recorded import beside
from ladle.recipes.scoring import USUAL_MOST, Evaluator, Find, Score, detect, find_of
from ladle.recipes.sources import open_for_teacher, remarks
from ladle.recipes.teacher_sides import teacher_side
from ladle.teachers import ClassTable, TeacherURI, open_teacher, parse_uri
from ladle.teachers.classes import same_names
from ladle.teachers.uri import with_class_map
from ladle.types import Batch as Images
from ladle.types import Detections
from ladle.visual import Panel, side_by_side

__all__ = ["Probed", "teacher_probe"]

_DRAWN = 4
_SIDE = 480
"""Long side of the drawn images."""


@dataclass(frozen=True)
class Probed:
    """What a teacher gives on a data set.

    Attributes:
        evaluation: its AP, through the same evaluation as that of students.
        matched: the teacher's class for each of the data set's; None where it knows none.
        images_per_second: while it was evaluated, without reading the images.
        folder: with a drawing of what it finds, its detections and plots.
    """

    evaluation: Evaluation
    matched: dict[str, str | None]
    images_per_second: float
    folder: Path


def teacher_probe(
    teacher: str | Path,
    data: str | Path,
    split: str = "val",
    imgsz: Side | None = None,
    batch: Batch = 8,
    workers: Workers = 0,
    device: Device = "auto",
    score: Share = 0.3,
    out: str | Path | None = None,
    class_map: str | Path | None = None,
    on_defect: OnDefect = "repair",
) -> Probed:
    """Measure what a teacher of any origin gives on a data set: its classes, AP and speed, with a drawing.

    Args:
        teacher: weights saved by ladle, or the teacher's text such as ``onnx:file.onnx?imgsz=416``.
        data: a folder in COCO, YOLO or Pascal VOC format, or ``scenes``.
        split: the split of the data.
        imgsz: long side of the images that it is given, as a student would give them; by default what weights saved by
            ladle were trained at, and 640 for a teacher of another origin.
        batch: images per batch.
        workers: processes that load images.
        device: ``auto``, ``cpu`` or ``cuda``.
        score: least score that is drawn.
        out: folder for the drawing, the plots and ``results.json``; by default ``runs/teacher/NAME``, with a number if
            it exists.
        class_map: a YAML file of pairs of classes, those of the data and those of a teacher of another origin.
        on_defect: how to handle defects of the data: ``repair`` them, ``skip`` the image, or ``raise``.
    """
    teacher, data = path_as_text(teacher), path_as_text(data)
    out, class_map = path_as_text(out), path_as_text(class_map)
    verify_arguments(teacher_probe, imgsz=imgsz, batch=batch, workers=workers, score=score, on_defect=on_defect)
    check_out(out)
    uri = parse_uri(teacher if class_map is None else with_class_map(teacher, class_map))
    side = teacher_side(uri, imgsz)
    source = open_for_teacher(data, (split,), side, uri, on_defect)[split]
    name, about, classes, find, predicted, most, views = _opened(uri, source, find_device(device))
    for line in (*remarks(source, split, side), *about, classes.summary()):
        say(line)
    say(table("", classes.rows()))
    evaluator = Evaluator(source, side, batch, workers, views=views)
    watch = _Watch(find)
    found = evaluator.score(watch, predicted, most)
    if not any(len(one.scores) for one in found.detections.values()):
        hint = "check how it takes images, ?mean=, ?std=, ?bgr=1 and ?resize="
        if uri.kind == "ladle":
            hint = "is it trained, for such images, and about for --imgsz?"
        raise uri.fail(f"it finds nothing in the {len(source)} images of {split}: {hint}")
    folder = output_folder(out, Path("runs") / "teacher" / Path(name).stem)
    write_rows(folder / RESULTS, coco_rows(found.detections, source.category_ids))
    _draw(source, found, score, folder / "found.png")
    evaluator.draw(found, folder)
    title = f"{name} on {data}, {split} ({len(source)} images) at {side} px"
    say(table(title_of(title, found.evaluation), [found.evaluation.row()]))
    aps = zip(readable(list(found.evaluation.per_class)), found.evaluation.per_class.values(), strict=True)
    say(table("", [{"class": each, "AP": 100 * ap} for each, ap in aps]))
    speed = len(source) / watch.seconds
    say(f"{speed:.1f} images/s; drawings, plots and {RESULTS} are in {folder}")
    for line in about_labels(source.classes):
        say(line)
    return Probed(found.evaluation, dict(zip(classes.classes, classes.matched, strict=True)), speed, folder)


class _Opened(NamedTuple):
    """A teacher to be measured.

    Its name, lines about it, how its classes match, how it detects, the classes of what it detects, how many detections
    of an image count, and the images.
    """

    name: str
    about: tuple[str, ...]
    table: ClassTable
    find: Find
    predicted: tuple[str, ...]
    most: int
    views: Source


class _Watch:
    """Detects as ``find`` does, and adds up the seconds that it takes."""

    def __init__(self, find: Find) -> None:
        self._find, self.seconds = find, 0.0

    def __call__(self, batch: Images) -> tuple[list[Detections], int]:
        """Detect, on the clock."""
        start = time.perf_counter()
        found = self._find(batch)
        self.seconds += time.perf_counter() - start
        return found


def _opened(uri: TeacherURI, source: Source, device: str) -> _Opened:
    """Open a teacher of any kind for the images of a data set."""
    classes = source.classes
    if uri.kind != "ladle":
        teacher = open_teacher(uri.text, classes, source.category_ids)
        teacher.to(device)
        views = beside(source, teacher, uri.text)
        find = find_of(teacher, device)
        about = teacher.detector.about
        return _Opened(teacher.info.name, about, teacher.table, find, tuple(classes), USUAL_MOST, views)
    detector = load_detector(uri.path).eval().to(device)
    spec = detector.spec
    about = (f"gives predictions at strides {', '.join(map(str, spec.strides))}, and feature maps",)
    table = same_names(spec.classes, classes, uri.path)
    keep = spec.inference.keep
    return _Opened(
        spec.name, about, table, lambda batch: detect(detector, batch.to(device)), spec.classes, keep, source
    )


def _draw(source: Source, found: Score, least: float, path: Path) -> None:
    """Draw what is found in the images with the most confident detections."""

    def shown(number: int) -> int:
        return int((seen[number].scores >= least).sum())

    resize = Resize(_SIDE)
    seen = list(found.detections.values())
    panels = []
    for number in sorted(range(len(seen)), key=shown, reverse=True)[:_DRAWN]:
        sample, one = resize(source.sample(number)), seen[number]
        above = one.scores >= least
        stretch = torch.tensor(sample.size).flip(0) / torch.tensor(sample.original).flip(0)
        boxes = one.boxes[above] * stretch.repeat(2)
        panels.append(Panel(str(sample.id), sample.image, boxes, one.labels[above], one.scores[above]))
    side_by_side(panels, source.classes, path)
