"""Recorded predictions of a teacher beside the images of a data set."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from ladle.data.dataset import ImageInfo
from ladle.data.predicted import WithPredictions
from ladle.data.sources import DatasetSource, Source, image_ids
from ladle.errors import UserError
from ladle.recipes.contents import contents_of
from ladle.teachers import ForeignTeacher, RecordedTeacher, parse_uri
from ladle.teachers.commands import cache_command
from ladle.teachers.recorded import Rows

__all__ = ["beside", "recorded_note"]


def beside(source: Source, teacher: ForeignTeacher | None, text: str) -> Source:
    """The images with what a teacher recorded for them; the same images for any other teacher.

    Images are found by id, else by the name of their file, with its folders as far as they are given, or by that name
    without its suffix.

    Raises:
        UserError: if the teacher recorded none of these images, if its cache was made from other data, and if a name
            may be that of several images.
    """
    if teacher is None or not isinstance(teacher.detector, RecordedTeacher):
        return source
    detector = teacher.detector
    recorded = _recorded_for(source, detector, text)
    rows = _rows_by_id(source, recorded, text)
    if not rows:
        such = ", ".join(repr(one) for one in list(recorded)[:3])
        raise UserError(
            f"--teacher {text}: its predictions are for other images, such as {such}: none of the {len(source)} images "
            "of the data has such an id or file name; expected image_id or file_name of the data"
        )
    return WithPredictions(source, detector.boxes, rows)


def recorded_note(source: Source) -> str:
    """How many images have recorded predictions."""
    assert isinstance(source, WithPredictions)
    return f"{len(source.rows)} of {len(source)} training images have recorded predictions; the others have none"


def _recorded_for(source: Source, detector: RecordedTeacher, text: str) -> Rows:
    """What is recorded for a split, which a cache recognizes by its images and boxes."""
    header = detector.header
    if header is None:
        return detector.rows[""]
    sha256 = contents_of(source).sha256
    split = next((name for name, digest in header.data.items() if digest == sha256), None)
    if split is None:
        raise UserError(
            f"--teacher {text}: this cache was made from other data, at {header.imgsz} px; make one from these by "
            f"`{cache_command(header.teacher, header.imgsz, 'OTHER.jsonl')}`"
        )
    if len(detector.rows[split]) < len(source):
        raise UserError(
            f"--teacher {text}: this cache holds {len(detector.rows[split])} of the {len(source)} images; finish it by "
            f"`{cache_command(header.teacher, header.imgsz, parse_uri(text).path)}`"
        )
    return detector.rows[split]


def _rows_by_id(source: Source, rows: Rows, text: str) -> dict[int | str, tuple[int, int]]:
    """The rows of each image of the data that has some, by its id there."""
    if not isinstance(source, DatasetSource):
        return {one: rows[one] for one in image_ids(source) if one in rows}
    names = {image.id: _name_of(image, rows) for image in source.dataset.images}
    # The folders of a recording may be those of another machine: names alone are compared for what is left.
    left = {one for one in rows if isinstance(one, str)} - set(names.values())
    bare: dict[str, list[str]] = {}
    for one in left:
        bare.setdefault(PurePosixPath(one).name, []).append(one)
    found = dict[int | str, tuple[int, int]]()
    files = dict[int | str, Path]()
    for image in source.dataset.images:
        alike = bare.get(image.file.name, [])
        called = names[image.id] if names[image.id] is not None or len(alike) != 1 else alike[0]
        if called is None:
            continue
        if called in files:
            raise UserError(
                f"--teacher {text}: its {called!r} may be {files[called]} or {image.file}: name the images by "
                "image_id, or by file_name with their folders"
            )
        files[called], found[image.id] = image.file, rows[called]
    return found


def _name_of(image: ImageInfo, rows: Rows) -> int | str | None:
    """What an image is called in a recording: by its id, the end of its path or its bare name; None if it lacks."""
    parts = image.file.as_posix().split("/")
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((one for one in (image.id, str(image.id), *ends, image.file.stem) if one in rows), None)
