"""The output folder of ``predict``: drawings, results, and the list of files."""

from __future__ import annotations

import json
import os
import time
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from types import TracebackType

from ladle.data import load_image
from ladle.data.depth import ALL_VALUES, ValueRange
from ladle.detectors import DetectorSpec
from ladle.recipes.outputs import RESULTS, coco_rows, output_folder, write_rows
from ladle.types import Detections
from ladle.visual import draw_detections

__all__ = ["Album", "drawing_names"]

_IMAGES = "images.json"
_LONGEST = 180
"""Largest number of bytes in the name of a drawing; file systems allow 255, suffix and number included."""
_PAUSE = 60.0
"""Seconds between two writes of the results."""
_SHARE = 0.05
"""Writing the results takes at most this share of the time."""


class Album:
    """Draws the detections of each image and keeps ``results.json`` and ``images.json`` up to date.

    They are written every minute and at the end, also after an error. The folder is made with the first image.
    Only files that an earlier album lists in ``images.json`` are overwritten.
    """

    def __init__(
        self, out: str | None, files: Sequence[Path], spec: DetectorSpec, score: float, values: ValueRange = ALL_VALUES
    ) -> None:
        self.found: dict[Path, Detections] = {}
        self.folder: Path | None = None
        self._out, self._files, self._spec, self._score = out, files, spec, score
        self._values = values
        self._names: dict[Path, str] = {}
        self._old: list[Path] = []
        self._next = time.monotonic() + _PAUSE

    def __enter__(self) -> Album:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.save()
        if kind is None:
            for drawing in self._old:
                drawing.unlink(missing_ok=True)

    def add(self, file: Path, found: Detections) -> int:
        """Draw one image; return the number of drawn objects."""
        folder = self.folder if self.folder is not None else self._open()
        above = found.scores >= self._score
        shown = found.map(lambda values: values[above])
        path = folder / self._names[file]
        draw_detections(load_image(file, value_range=self._values), shown, self._spec.classes, path)
        self._old = [drawing for drawing in self._old if drawing != path]
        self.found[file] = found
        if time.monotonic() >= self._next:
            self.save()
        return int(above.sum())

    def save(self) -> None:
        """Write the detections so far."""
        if self.folder is None:
            return
        start = time.monotonic()
        numbers = {file: number for number, file in enumerate(self._files, start=1)}
        found = {numbers[file]: one for file, one in self.found.items()}
        write_rows(self.folder / RESULTS, coco_rows(found, self._spec.category_ids))
        images = ({"id": numbers[file], "file_name": str(file), "drawing": self._names[file]} for file in self.found)
        write_rows(self.folder / _IMAGES, images)
        now = time.monotonic()
        self._next = now + max(_PAUSE, (now - start) / _SHARE)

    def _open(self) -> Path:
        folder = self.folder = output_folder(self._out, Path("runs") / "predict")
        self._old = _old_drawings(folder, self._files)
        taken = {path.stem for path in folder.iterdir() if path.suffix.lower() == ".png" and path not in self._old}
        names = drawing_names(self._files, taken)
        self._names = {file: f"{name}.png" for file, name in zip(self._files, names, strict=True)}
        return folder


def drawing_names(files: Sequence[Path], taken: Collection[str] = ()) -> list[str]:
    """A name for each file's drawing: that of the file without suffix, numbered if others or ``taken`` have it.

    All names differ also on file systems that ignore case or normalize Unicode.
    """
    stems = [_fitting(file.stem) for file in files]
    unnumbered, given = set(map(_key, stems)), set(map(_key, taken))
    numbers: dict[str, int] = defaultdict(lambda: 1)
    names = []
    for stem in stems:
        name, key = stem, _key(stem)
        while _key(name) in given or (name != stem and _key(name) in unnumbered):
            numbers[key] += 1
            name = f"{stem}-{numbers[key]}"
        given.add(_key(name))
        names.append(name)
    return names


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _fitting(stem: str) -> str:
    while len(os.fsencode(stem)) > _LONGEST:
        stem = stem[:-1]
    return stem


def _old_drawings(folder: Path, sources: Sequence[Path]) -> list[Path]:
    """The drawings of an earlier album in this folder, except those that are now inputs."""
    try:
        images = json.loads((folder / _IMAGES).read_text(encoding="utf-8"))
        names = {image["drawing"] for image in images}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return []
    drawings = [folder / name for name in names if isinstance(name, str) and Path(name).name == name]
    inputs = {file.resolve() for file in sources}
    return [one for one in drawings if one.suffix == ".png" and one.is_file() and one.resolve() not in inputs]
