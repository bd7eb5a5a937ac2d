"""Output folders and files of the recipes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ladle.errors import UserError
from ladle.evaluation import Evaluation, coco_results
from ladle.files import write_atomically
from ladle.recipes.console import say
from ladle.recipes.folders import asked_for_by, check_path, neighbors
from ladle.types import Detections
from ladle.visual import unwritten

__all__ = [
    "RESULTS",
    "about_labels",
    "check_out",
    "coco_rows",
    "free_folder",
    "output_folder",
    "title_of",
    "write_rows",
]

RESULTS = "results.json"
"""The file of COCO results that ``val`` and ``predict`` write."""
_COCO_MOST = 100
_SHOWN = 8


def free_folder(wanted: Path) -> Path:
    """Make ``wanted``, or its first numbered sibling that does not exist: ``NAME-2``, ``NAME-3`` and so on."""
    wanted.parent.mkdir(parents=True, exist_ok=True)
    for folder in neighbors(wanted):
        with suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


def check_out(out: str | None) -> None:
    """Raise :class:`UserError` if ``out`` cannot be a folder, as far as this can be checked before it is made."""
    if out is None:
        return
    check_path("--out", out, "runs/predict")
    place = next(path for path in (Path(out), *Path(out).parents) if path.exists())
    if not place.is_dir():
        raise UserError(f"--out {out}: expected a folder, found the file {place}: name another")


def output_folder(out: str | None, usual: Path) -> Path:
    """Make the output folder: ``out``, or a new numbered one with the usual name.

    If ``out`` has results of an earlier run, a line announces that they are replaced.
    """
    with asked_for_by("--out", out or str(usual)):
        if out is None:
            return free_folder(usual)
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
    if (folder / RESULTS).exists():
        say(f"{folder} holds results of an earlier run: they are replaced")
    return folder


def coco_rows(found: Mapping[Any, Detections], category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The rows of a file of COCO results, generated image by image."""
    for image, detections in found.items():
        yield from coco_results({image: detections}, category_ids)


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write a JSON list atomically, one element per line, without holding it in memory."""

    def write(part: Path) -> None:
        with part.open("w", encoding="ascii") as file:
            joint = "["
            for row in rows:
                file.write(f"{joint}\n{json.dumps(row)}")
                joint = ","
            file.write("\n]\n" if joint == "," else "[]\n")

    write_atomically(path, write)


def title_of(title: str, evaluation: Evaluation) -> str:
    """The title of a table of AP; it notes if the number of detections differs from COCO's."""
    if evaluation.most == _COCO_MOST:
        return title
    return f"{title}\nup to {evaluation.most} detections of an image count, not {_COCO_MOST} as in COCO"


def about_labels(classes: Sequence[str]) -> list[str]:
    """A line if drawings and charts cannot show the name of a class."""
    pairs = [f"{label} is {name}" for label, name in unwritten(classes).items()]
    more = [f"and {len(pairs) - _SHOWN} more"] if len(pairs) > _SHOWN else []
    if not pairs:
        return []
    return [f"no font here has all letters of some names, so in drawings {', '.join([*pairs[:_SHOWN], *more])}"]
