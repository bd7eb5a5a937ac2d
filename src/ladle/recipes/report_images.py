"""The images of a report, with objects and detections drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ladle.data.sources import Source
from ladle.errors import UserError
from ladle.files import read_regular
from ladle.recipes.contents import contents_of, difference
from ladle.recipes.jobs import OBJECT, Job
from ladle.recipes.report_values import Scored, Seen
from ladle.recipes.sources import open_source
from ladle.visual.html import Html, figure, section, table
from ladle.visual.lettering import labels_of
from ladle.visual.thumbnails import Mark, thumbnail

__all__ = ["Drawn", "assigned_name", "draw_assigned", "draw_images", "open_images"]

_MOST_BYTES = 1_200_000
"""Of all images of a page."""
_MOST_ASSIGNED = 200_000
"""Of an image with its assignment; a larger file is not one of a run."""
_CHANGED = "The images are not shown, since the data are not those of the run any more"
_OBJECT, _CORRECT, _WRONG = "#f0e442", "#0072b2", "#d55e00"
"""Three of the colors of Okabe and Ito: yellow, blue and vermilion."""


class Drawn(NamedTuple):
    """The figures of the worst and the best images of a student; ``note`` tells why there are none.

    ``assigned`` are those of the training images whose objects have the fewest positives.
    """

    worst: list[Html]
    best: list[Html]
    note: str | None = None
    assigned: tuple[Html, ...] = ()


def open_images(job: Job) -> tuple[Source | None, str | None]:
    """The validation images of a run; where they are gone or have changed, None and a sentence about it."""
    if job.data.startswith(OBJECT):
        return None, "The data were given as an object in Python, so the images cannot be opened again."
    try:
        source = open_source(job.data, "val", job.run, job.run.imgsz or 640)
    except (UserError, OSError) as error:
        # The error would advise to correct --data, which a report does not take.
        is_gone = not Path(job.data).exists()
        found = f"are not at {job.data} any more" if is_gone else f"cannot be opened: {error}"
        return None, f"The images are not shown, since the data {found}."
    changed = difference(job.contents[1], contents_of(source)) if job.contents is not None else None
    if changed is not None:
        return None, f"{_CHANGED}: {changed}."
    return source, None


def draw_images(one: Scored | None, source: Source | None, note: str | None, pages: int = 1) -> Drawn:
    """Draw the worst and the best images of a student; ``pages`` students share the bytes of one page."""
    if source is None or one is None:
        return Drawn([], [], note)
    if len(source) != one.images:  # those of a run without a summary of its data are not compared before
        return Drawn([], [], f"{_CHANGED}: there are {len(source)} instead of {one.images}.")
    most = _MOST_BYTES // max(1, pages * (len(one.worst) + len(one.best)))
    names = [row.name for row in one.classes]
    try:
        return Drawn(
            [_figure(seen, source, names, most) for seen in one.worst],
            [_figure(seen, source, names, most) for seen in one.best],
        )
    except (UserError, OSError) as error:
        return Drawn([], [], f"The images are not shown, since one cannot be opened: {error}.")


def assigned_name(number: int) -> str:
    """The file, in the folder of plots, of an image with its assignment."""
    return f"assigned-{number + 1}.jpg"


def draw_assigned(one: Scored | None, plots: Path) -> tuple[Html, ...]:
    """The training images whose objects have the fewest positives, drawn at the end of the run; without lost files."""
    if one is None or one.learning is None:
        return ()
    figures = []
    for number, drawn in enumerate(one.learning.drawn):
        try:
            data = read_regular(plots / assigned_name(number), _MOST_ASSIGNED)
        except (UserError, OSError):
            continue
        figures.append(section(figure(data, drawn.caption, drawn.caption), table(drawn.objects)))
    return tuple(figures)


def _figure(seen: Seen, source: Source, classes: Sequence[str], most: int) -> Html:
    labels = labels_of(classes, most=18)
    marks = [Mark(one.box, _OBJECT, labels[one.label] if one.kind == "missed" else None, True) for one in seen.objects]
    for one in reversed(seen.detections):
        color = _CORRECT if one.kind == "correct" else _WRONG
        label = labels[one.label]
        marks.append(Mark(one.box, color, label._replace(text=f"{label.text} {one.score or 0:.2f}")))
    caption = f"{seen.name}: {_counted(seen)}"
    return figure(thumbnail(source.sample(seen.index).image, marks, most), caption, caption)


def _counted(seen: Seen) -> str:
    """The objects that are found and the errors by kind, also those of detections that are not drawn."""
    kinds = Counter(one.kind for one in seen.detections) + Counter(seen.others)
    kinds += Counter(one.kind for one in seen.objects)
    wrong = [f"{count} {kind}" for kind, count in kinds.items() if kind not in ("correct", "found", "attempted")]
    told = ", ".join([f"{kinds['found']} of {len(seen.objects)} objects found", *wrong])
    drawn, detected = len(seen.detections), len(seen.detections) + sum(seen.others.values())
    return f"{told}; of {detected} detections the {drawn} of highest score are drawn" if seen.others else told
