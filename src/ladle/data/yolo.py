"""YOLO annotations: a file with the classes and splits, and one text file of rows for each image.

A row is ``class cx cy width height`` in fractions of the image. A sixth number between 0 and 1 is a confidence and is
ignored; a row of three or more points is a polygon and is replaced by its bounding box; where ``kpt_shape`` is given
the key points behind a box are ignored. An image without a label file is background.
Category ids are the class numbers, image ids the paths inside the split's folder, or inside the data set where two
folders of a split would share one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ladle.data.dataset import Defect
from ladle.data.documents import read_text
from ladle.data.raw_images import RawImage, RawSplit
from ladle.data.yolo_images import Gathered, gather
from ladle.data.yolo_labels import absolute, label_folder, label_of
from ladle.data.yolo_layouts import Description, describe, find_description
from ladle.data.yolo_rows import read_row
from ladle.errors import UserError

__all__ = ["find_splits", "read_yolo"]


@dataclass
class _Reading:
    """The state of reading the label files of a split.

    ``owners`` counts the images of each label file, ``unlabeled`` images without one, ``capital`` those with the suffix
    ``.TXT``; ``sixths`` are the rows with a sixth number.
    """

    about: Description
    defects: list[Defect]
    owners: dict[Path, int] = field(default_factory=lambda: defaultdict(int))
    unlabeled: int = 0
    capital: int = 0
    sixths: list[tuple[RawImage, str, float]] = field(default_factory=list)


def find_splits(data: Path) -> dict[str, Callable[[], RawSplit]]:
    """The splits of a YOLO folder or of the file that describes it, each with a function that reads it."""
    file = find_description(data)
    return {split: partial(read_yolo, file, split) for split in describe(file).splits} if file is not None else {}


def read_yolo(file: Path, split: str) -> RawSplit:
    """Read one split of a YOLO data set; the image of an invalid label file is recorded as unusable."""
    about = describe(file)
    found = gather(about, split)
    reading = _Reading(about, [*about.defects, *found.defects])
    for raw_image in found.raw_images:
        _fill(raw_image, reading)
    _check_sixths(reading)
    _check_labeled(found, reading)
    _report_unpaired(found, reading)
    notes = [*about.notes, *found.notes]
    if reading.unlabeled:
        notes.append(
            f"{reading.unlabeled} of {len(found.raw_images)} images have no label file and count as background"
        )
    if reading.capital:
        which = f"{reading.capital} of {len(found.raw_images)} images have no label file that ends in .txt"
        notes.append(f"{which}: those that end in .TXT are read, which other programs may not do")
    source = found.places[0] if len(found.places) == 1 else file
    ids = tuple(range(len(about.classes)))
    return RawSplit(found.raw_images, about.classes, ids, reading.defects, source, tuple(notes), form="center and size")


def _fill(raw_image: RawImage, reading: _Reading) -> None:
    raw_image.fractions = True
    if raw_image.faults:
        return
    file = label_of(raw_image.file, reading.about.base)
    if file is None:
        reading.unlabeled += 1
        return
    reading.owners[file] += 1
    reading.capital += file.suffix == ".TXT"
    raw_image.name = _name(file, reading)
    try:
        text = read_text(file)
    except UserError as error:
        raw_image.faults.append(Defect(raw_image.name, str(error).removeprefix(f"{file}: "), fatal=True))
        return
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if words:
            _add(words, f"line {number}", raw_image, reading)


def _name(file: Path, reading: _Reading) -> str:
    folder = absolute(reading.about.file.parent)
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else str(file)


def _add(words: list[str], record: str, raw_image: RawImage, reading: _Reading) -> None:
    try:
        row = read_row(words, len(reading.about.classes), reading.about.points)
    except UserError as error:
        raw_image.faults.append(Defect(f"{raw_image.name}: {record}", str(error), fatal=True))
        return
    raw_image.add(record, row.corners, row.label)
    if row.sixth is not None:
        reading.sixths.append((raw_image, record, row.sixth))
    if row.remark:
        reading.defects.append(Defect(f"{raw_image.name}: {record}", row.remark))


def _check_sixths(reading: _Reading) -> None:
    """Sixth numbers are confidences if all lie between 0 and 1; otherwise no row with one can be trusted."""
    odd = next((value for _, _, value in reading.sixths if not 0 <= value <= 1), None)
    for raw_image, record, value in reading.sixths:
        where = f"{raw_image.name}: {record}"
        if odd is None:
            reading.defects.append(Defect(where, "sixth number (a confidence); ignored"))
        else:
            what = (
                f"expected a confidence between 0 and 1 as sixth number, found {value} here and {odd} in this split: "
            )
            raw_image.faults.append(Defect(where, f"{what}an angle? boxes that are turned are not read", fatal=True))


def _check_labeled(found: Gathered, reading: _Reading) -> None:
    """Raise UserError for a split without any label file; if their folder exists, all images are background."""
    sound = [raw_image for raw_image in found.raw_images if not raw_image.faults]
    if not sound or reading.unlabeled < len(sound):
        return
    folder = absolute(sound[0].file).parent
    expected = label_folder(folder, reading.about.base)
    if expected == folder or not expected.is_dir():
        absence = "none there, nor in a folder called labels" if expected == folder else "no such folder"
        raise UserError(f"{found.places[0]}: expected its label files in {expected}, found {absence}")


def _report_unpaired(found: Gathered, reading: _Reading) -> None:
    """Record label files without an image, and those of several images."""
    for file in found.labels:
        if file not in reading.owners:
            reading.defects.append(Defect(_name(file, reading), "label file without an image; ignored"))
    for file, images in reading.owners.items():
        if images > 1:
            what = f"label file of {images} images of one name; read for each of them"
            reading.defects.append(Defect(_name(file, reading), what))
