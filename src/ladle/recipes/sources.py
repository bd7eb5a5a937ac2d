"""Open the images of ``--data``, and collect notes about them before training or evaluation."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ladle.data import DetectionDataset, read
from ladle.data.copies import shared
from ladle.data.decoding import values_of
from ladle.data.depth import ALL_VALUES, ValueRange, parse_range, spelled
from ladle.data.fitness import deep_note, differences, notes, obstacles, range_of, unseen
from ladle.data.images import read_header
from ladle.data.scenes import split_scenes
from ladle.data.sources import DatasetSource, Remembered, Source, Splits
from ladle.detectors import read_spec
from ladle.errors import UserError
from ladle.recipes.console import say
from ladle.recipes.options import OnDefect, Run
from ladle.teachers import TeacherURI

__all__ = [
    "Supply",
    "is_scenes",
    "known_remarks",
    "open_for_teacher",
    "open_known",
    "open_source",
    "remarks",
    "remarks_on_files",
    "supply",
]

SCENES = "scenes"
"""``--data scenes`` selects the built-in scenes, ``scenes:3000`` with 3000 for training."""
_TRAIN_SCENES, _VAL_SCENES, _MOST_SCENES = 800, 300, 1_000_000


class Supply(NamedTuple):
    """The images of both splits of a training run, the range of 16-bit values, and lines of notes about the data."""

    train: Source
    val: Source
    value_range: ValueRange | None
    notes: list[str]


def is_scenes(data: str) -> bool:
    """Whether the built-in scenes are meant, and not a file or folder of this name."""
    return data.partition(":")[0] == SCENES and not Path(data).exists()


def open_source(data: str, split: str, run: Run, imgsz: int) -> Source:
    """The images of one split of a folder, of a file, or of the built-in scenes."""
    if is_scenes(data):
        count = data.partition(":")[2]
        if count and not (count.isascii() and count.isdecimal() and 0 < int(count[:10]) <= _MOST_SCENES):
            raise UserError(f"--data {data}: expected scenes, or scenes:N with N from 1 to {_MOST_SCENES} for training")
        if split not in ("train", "val"):
            raise UserError(f"--split {split}: the built-in scenes have the splits train and val")
        return _scenes(int(count or _TRAIN_SCENES), _VAL_SCENES)[split == "val"]
    value_range = ALL_VALUES if run.value_range is None else parse_range(run.value_range)
    return DatasetSource(read(data, split, run.on_defect), 2 * imgsz if run.cache else 0, value_range)


def open_known(
    data: str,
    split: str,
    imgsz: int,
    model: str,
    classes: Sequence[str],
    value_range: str | ValueRange,
    on_defect: OnDefect = "repair",
) -> Source:
    """The images of a split as a trained detector takes them; ``model`` and its ``classes`` are told in errors.

    Raises :class:`UserError` where no class of the data has the name of one of the detector's.
    """
    values = value_range if isinstance(value_range, str) else spelled(value_range)
    source = open_source(data, split, Run(value_range=values, on_defect=on_defect), imgsz)
    if not set(source.classes) & set(classes):
        raise UserError(
            f"{model} has the classes {', '.join(classes)}, but {data} has {', '.join(source.classes) or 'none'}: "
            "no class has the same name"
        )
    return source


def open_for_teacher(
    data: str, splits: Sequence[str], imgsz: int, teacher: TeacherURI, on_defect: OnDefect = "repair"
) -> dict[str, Source]:
    """The images of splits as a teacher takes them: values of 16 bits as it was trained, or as students get them."""
    values = spelled(read_spec(Path(teacher.path)).value_range) if teacher.kind == "ladle" else None
    run = Run(value_range=values, on_defect=on_defect)
    sources = {split: open_source(data, split, run, imgsz) for split in splits}
    datasets = {split: source.dataset for split, source in sources.items() if isinstance(source, DatasetSource)}
    if values is not None or not _holds_deep(datasets):
        return sources
    for other in {"train", "val"} - datasets.keys():
        with suppress(UserError):  # there may be no other split
            datasets[other] = read(data, other, on_defect)
    value_range, _ = _range(run, datasets)
    assert value_range is not None
    return {
        split: replace(source, value_range=value_range) if isinstance(source, DatasetSource) else source
        for split, source in sources.items()
    }


@lru_cache(maxsize=1)
def _scenes(train: int, val: int) -> tuple[Source, Source]:
    """The built-in scenes for training and validation; several runs of one process draw each only once."""
    images = split_scenes(train, val)
    return Remembered(images[0]), Remembered(images[1])


def supply(data: str, run: Run, imgsz: int, given: Splits | None = None) -> Supply:
    """Both splits of a training run; raises UserError for data that cannot be trained on.

    If there are images of 16 bits and no ``--value-range``, the range is chosen to fit all of them.
    """
    train, val = given or (open_source(data, split, run, imgsz) for split in ("train", "val"))
    if not isinstance(train, DatasetSource) or not isinstance(val, DatasetSource):
        return Supply(train, val, None, [])
    splits = {"train": train.dataset, "val": val.dataset}
    found = obstacles(splits, imgsz)
    if found:
        raise UserError(
            f"{data} cannot be trained on: {'; '.join(found)} (`ladle check {shlex.quote(data)}` shows more)"
        )
    value_range, range_notes = _range(run, splits)
    if value_range is not None:
        train, val = (replace(source, value_range=value_range) for source in (train, val))
    together = [
        *_few(run, len(train)),
        *differences(splits),
        *unseen("train", train.dataset),
        *_copies(splits),
        *range_notes,
    ]
    lines = [f"note: {note}" for note in together]
    return Supply(train, val, value_range, [*lines, *remarks(train, "train", imgsz), *remarks(val, "val", imgsz)])


def remarks(source: Source, split: str, imgsz: int) -> list[str]:
    """A line for every note, repair and skipped image of a split, at one image size."""
    if not isinstance(source, DatasetSource):
        return []
    empty = [] if source.dataset.holds_objects else ["no objects to score"]
    noted = [f"note: {note}" for note in (*empty, *notes(source.dataset, imgsz, source.value_range))]
    return [f"{split}: {line}" for line in (*noted, *source.dataset.acts())]


def known_remarks(source: Source, split: str, imgsz: int, model: str, classes: Sequence[str]) -> list[str]:
    """The remarks for a trained detector, with a line about classes of the data that are none of its ``classes``."""
    names = [name for name in source.classes if name not in classes]
    unknown = [f"note: {model} does not know {', '.join(map(repr, names))}, and finds none of it"] if names else []
    return [*remarks(source, split, imgsz), *unknown]


def remarks_on_files(files: Sequence[Path], value_range: ValueRange) -> list[str]:
    """A line about images without annotations, if some of them have 16 bits.

    Images that cannot be opened are skipped here; loading them raises the error.
    """
    deep = sum(map(_is_deep, files))
    return [f"note: {note}" for note in [deep_note(deep, len(files), value_range)] if note]


def _is_deep(file: Path) -> bool:
    try:
        return read_header(file).deep
    except UserError:
        return False


def _range(run: Run, splits: Mapping[str, DetectionDataset]) -> tuple[ValueRange | None, list[str]]:
    """The range of 16-bit values, None without such images, and lines of notes about it."""
    if not _holds_deep(splits):
        unused = f"--value-range {run.value_range} changes nothing: no image has 16 bits a channel"
        return None, [unused] if run.value_range is not None else []
    if run.value_range is not None:
        return parse_range(run.value_range), []
    say("looking for the largest value of all images with 16 bits a channel (--value-range skips this)", run.quiet)
    value_range, sentence = range_of(values_of([*splits.values()]))
    return value_range, [sentence] if sentence else []


def _holds_deep(splits: Mapping[str, DetectionDataset]) -> bool:
    """Whether any image has 16 bits a channel."""
    return any(image.deep for split in splits.values() for image in split.images)


def _few(run: Run, images: int) -> list[str]:
    step = run.batch_size * run.world
    found = f"a step takes {step} images, more than the {images} of train: some are used several times in it"
    return [found] if images < step else []


def _copies(splits: Mapping[str, DetectionDataset]) -> list[str]:
    copies, images = len(shared(splits)), len(splits["val"])
    return [f"{copies} of the {images} images of val are in train too, so the AP is too high"] if copies else []
