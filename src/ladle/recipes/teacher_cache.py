"""Record what a teacher finds in every image of a data set, so that it need not run in training."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ladle.data.loader import make_loader
from ladle.data.sources import Source, Subset, image_ids
from ladle.errors import UserError
from ladle.files import append_line, path_as_text, write_text
from ladle.limits import verify_arguments
from ladle.recipes.console import say
from ladle.recipes.contents import contents_of
from ladle.recipes.devices import Device, find_device
from ladle.recipes.options import Batch, OnDefect, Side, Workers
from ladle.recipes.origins import teacher_hash
from ladle.recipes.sources import open_for_teacher
from ladle.recipes.teacher_dense import How, record_dense
from ladle.recipes.teacher_sides import teacher_side
from ladle.teachers import (
    CacheHeader,
    Foreign,
    TeacherDetections,
    cache_line,
    match_classes,
    open_foreign,
    parse_uri,
    read_cache,
)
from ladle.teachers.detections import FINAL_LEAST, FINAL_MOST
from ladle.types import Batch as Images
from ladle.types import Detections

__all__ = ["teacher_cache"]

_SPLITS = ("train", "val")
_BYTES = 90
"""About the size of a box with its score and its label in the file."""


def teacher_cache(
    teacher: str | Path,
    data: str | Path,
    out: str | Path | None = None,
    imgsz: Side | None = None,
    batch: Batch = 8,
    workers: Workers = 0,
    device: Device = "auto",
    dense: bool = False,
    features: bool = False,
    on_defect: OnDefect = "repair",
) -> Path:
    """Record what a teacher finds in every image of a data set, for ``--teacher cache.jsonl``.

    These are its final boxes, or with ``dense`` its predictions at all places. An interrupted recording continues where
    it stopped. Returns the file.

    Args:
        teacher: weights saved by ladle, or the teacher's text such as ``onnx:file.onnx?imgsz=416``.
        data: a folder in COCO, YOLO or Pascal VOC format, or ``scenes``; its splits train and val are recorded.
        out: the file; by default ``NAME.jsonl`` with the name of the teacher, with ``dense`` the folder ``NAME.ladle``.
        imgsz: long side of the images that the teacher is given; by default what weights saved by ladle were trained
            at, and 640 for a teacher of another origin.
        batch: images per batch.
        workers: processes that load images.
        device: ``auto``, ``cpu`` or ``cuda``.
        dense: record its dense predictions for the training images, without crops, flips or changes of color; training
            with ``--teacher NAME.ladle`` is then exactly that with the teacher itself.
        features: with ``dense``, also record its feature maps.
        on_defect: how to handle defects of the data: ``repair`` them, ``skip`` the image, or ``raise``.
    """
    teacher, data, out = path_as_text(teacher), path_as_text(data), path_as_text(out)
    verify_arguments(teacher_cache, imgsz=imgsz, batch=batch, workers=workers, on_defect=on_defect)
    uri = parse_uri(teacher)
    if uri.is_recorded:
        raise uri.fail("its predictions are recorded already; expected a teacher that runs")
    suffix = ".ladle" if dense else ".jsonl"
    if out is not None and Path(out).suffix != suffix:
        raise UserError(f"--out {out}: expected a name that ends with {suffix}, by which --teacher knows what it is")
    if features and not dense:
        raise UserError("--features: feature maps are recorded beside dense predictions only: add --dense")
    side = teacher_side(uri, imgsz)
    if dense:
        return record_dense(uri, data, out, How(side, batch, workers, find_device(device), on_defect), features)
    sources = open_for_teacher(data, _SPLITS, side, uri, on_defect)
    detector = open_foreign(uri, sources["train"].classes).to(find_device(device))
    file = Path(out if out is not None else f"{Path(detector.name).stem}.jsonl")
    say(_about_classes(detector, sources["train"].classes))
    digests = {split: contents_of(source).sha256 for split, source in sources.items()}
    header = CacheHeader(uri.located(), teacher_hash(teacher), tuple(detector.classes), side, digests)
    known = _begun(file, header)
    parts = [_Part(split, source, _missing(source, known[split])) for split, source in sources.items()]
    images = sum(len(part.missing) for part in parts)
    limit = images * FINAL_MOST * _BYTES / 2**20
    say(
        f"{detector.name}: {images} images to record into {file}, {sum(map(len, known.values()))} done; it grows by "
        f"{limit:.0f} MiB at most"
    )
    for part in parts:
        part.record(detector, file, side, batch, workers, find_device(device))
    say(f"{file}: {file.stat().st_size / 2**20:.1f} MiB; train with --teacher {shlex.quote(str(file))}")
    return file


def _about_classes(detector: Foreign, classes: Sequence[str]) -> str:
    """How its classes match those of the data. All of them are recorded, so other pairs can be named in training."""
    later = "--class-map names.yaml of `ladle distill`"
    try:
        return match_classes(detector.classes, classes, teacher=detector.name, named_by=later).summary(later)
    except UserError as error:
        return f"note: {error}"


def _begun(file: Path, header: CacheHeader) -> dict[str, set[int | str]]:
    """The images of each split that are in the file already; a new file is begun with the header."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, header.line() + "\n")
        return {split: set() for split in header.data}
    before, images = read_cache(file)
    for name in ("sha256", "teacher", "imgsz", "data"):
        if getattr(before, name) != getattr(header, name):
            what = {"sha256": "another teacher", "teacher": "another teacher", "data": "other data"}.get(
                name, "another imgsz"
            )
            mend = f"give --imgsz {before.imgsz} to go on, or name another" if name == "imgsz" else "name another"
            raise UserError(f"--out {file}: it holds a cache of {what}, {before.teacher} at {before.imgsz} px; {mend}")
    end = file.read_bytes().rfind(b"\n") + 1
    with file.open("rb+") as stream:  # a line that was not finished is recorded again
        stream.truncate(end)
    return {split: set(found) for split, found in images.items()}


class _Part(NamedTuple):
    """The images of a split, and the places of those that are not recorded."""

    split: str
    source: Source
    missing: list[int]

    def record(self, detector: Foreign, file: Path, imgsz: int, batch: int, workers: int, device: str) -> None:
        """Add the images that are missing to the file."""
        if not self.missing:
            return
        for images in make_loader(Subset(self.source, self.missing), batch, imgsz, workers=workers):
            found = _final(detector.find(images.to(device)), images.to(device))
            for name, one in zip(images.ids, found, strict=True):
                append_line(file, cache_line(self.split, name, one))


def _missing(source: Source, known: set[int | str]) -> list[int]:
    return [index for index, name in enumerate(image_ids(source)) if name not in known]


def _final(found: TeacherDetections, batch: Images) -> list[Detections]:
    """Final boxes in pixels of the files, those of low scores included.

    Scores are in double precision, so that the logits come back bit for bit.
    """
    exact = found.replaced(logits=found.logits.double())
    return [one.to("cpu") for one in exact.detections(batch, FINAL_MOST, least=FINAL_LEAST)]
