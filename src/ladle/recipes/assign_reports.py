"""The work behind ``ladle assign``: a pass over the images, then what is printed and written."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ladle.assigners import uses_predictions
from ladle.errors import UserError
from ladle.files import write_text
from ladle.recipes.assign_tables import (
    LEVELS,
    MOST_OBJECTS,
    bars_of,
    compared_rows,
    difference_rows,
    group_tables,
    image_rows,
    level_rows,
    object_rows,
    overview_rows,
)
from ladle.recipes.assigning import Assigned, Context, Options, Side, Wanted, open_context
from ladle.recipes.console import say, table
from ladle.recipes.gallery import Gallery, cut_out
from ladle.recipes.outputs import check_out, output_folder
from ladle.statistics import (
    Difference,
    ImageDifference,
    ObjectCounts,
    PriorCounts,
    Statistics,
    advice,
    compare,
    count_objects,
    count_priors,
    summarize,
)
from ladle.visual import draw_bars, html

__all__ = ["Shown", "counted", "diff", "offer_objects", "show", "stats"]

_LISTED = 10
"""So many images are listed on the terminal; the file has all."""
_LEGEND = (
    "A dot is a prior that learns the object of its color; it grows with the stride of its level. Grey crosses are "
    "ignored priors, all other priors are background. The number at a box says how many priors learn the object. Sizes "
    "are pixels of the network input."
)


class Shown(NamedTuple):
    """The pages that were written, the images drawn on them, those with objects, and the objects without a positive."""

    pages: list[Path]
    drawn: int
    images: int
    without: int


def show(options: Options, wanted: Wanted, most: int, out: str | None) -> Shown:
    """Draw the images whose objects have the fewest positives."""
    check_out(out)
    context = open_context(options)
    side = context.side(wanted)
    gallery, without = Gallery(most), 0
    for found in context.batches([side]):
        without += offer_objects(found, context, side, gallery)
    _check_objects(gallery.seen, options)
    folder = output_folder(out, Path("runs") / "assign" / "show")
    drawn = f"{len(gallery)} of the {gallery.seen} images with objects are drawn (--most), those of the worst objects"
    lines = [
        f"{side.title}, {options.data}",
        *context.remarks,
        f"{without} objects have no positive.",
        f"{drawn}.",
        _LEGEND,
    ]
    pages = gallery.write(folder, "show", "Who learns what", lines)
    say(f"{without} objects have no positive")
    say(f"{drawn}; {pages[0]} is the first of {len(pages)} pages")
    return Shown(pages, len(gallery), gallery.seen, without)


def stats(options: Options, wanted: Wanted, out: str | None) -> Statistics:
    """Count, print and write who learns what."""
    check_out(out)
    context = open_context(options)
    side = context.side(wanted)
    (numbers,) = counted(context, [side])
    _check_objects(numbers.objects, options)
    folder = _folder(out, "stats")
    title = f"{side.title} on {options.data}, {options.split}"
    tables = {title: overview_rows(numbers)}
    tables |= {f"objects without a positive, {name}": rows for name, rows in group_tables(numbers).items()}
    tables[LEVELS] = level_rows(numbers)
    for name, rows in tables.items():
        say(table(name, rows))
    told = advice(numbers)
    for line in told:
        say(line)
    _write_json(folder / "stats.json", options, context, [side], {"statistics": numbers.as_json(), "advice": told})
    chart = draw_bars(bars_of(numbers), folder / "stats.png")
    drawn = html.figure(chart.read_bytes(), "the numbers of the tables below, as bars", kind="png")
    parts = [*map(html.paragraph, context.remarks), html.bullets(told), drawn]
    parts += [html.table(rows, name) for name, rows in tables.items()]
    html.write_page(folder / "stats.html", title, parts)
    say(f"stats.json, stats.png and stats.html are in {folder}")
    return numbers


def diff(options: Options, wanted: Wanted, against: Wanted, most: int, out: str | None) -> Difference:
    """Compare, print and write two assignments."""
    check_out(out)
    if against == Wanted(None, None):
        raise UserError(
            "there is nothing to compare with: give --against-teacher, --against-model or --against-assigner"
        )
    context = open_context(options)
    second = Wanted(
        against.assigner if against.assigner is not None else wanted.assigner,
        against.teacher if against.teacher is not None else wanted.teacher,
        against.model,
    )
    sides = [context.side(wanted), context.side(second, against=True)]
    gallery, rows = Gallery(most), list[ImageDifference]()
    for found in context.batches(sides):
        rows += _offer_differences(found, context, sides, gallery)
    found_in_all = Difference.of(rows)
    _check_objects(found_in_all.objects, options)
    _report(found_in_all, gallery, context, sides, options, out)
    return found_in_all


def _report(
    found: Difference, gallery: Gallery, context: Context, sides: Sequence[Side], options: Options, out: str | None
) -> None:
    """Print a difference and write it."""
    folder = _folder(out, "diff")
    about = [f"first: {sides[0].title}", f"second: {sides[1].title}", *_alike(sides)]
    for line in about:
        say(line)
    overall, listed = difference_rows(found), image_rows(found, context.named, _LISTED)
    say(table(f"{options.data}, {options.split}", overall))
    title = f"the {len(listed)} of {found.images} images that differ most; 1st only: objects that only the first serves"
    say(table(title, listed))
    every = found.as_json()
    every["by_image"] = [row | {"name": context.named(row["name"])} for row in every["by_image"]]
    _write_json(folder / "diff.json", options, context, sides, {"difference": every})
    drawn = f"{len(gallery)} of the {gallery.seen} images with objects are drawn (--most), those that differ most"
    lines = [*about, *context.remarks, f"{drawn}.", _LEGEND]
    pages = gallery.write(folder, "diff", "Two assignments", lines, [html.table(overall)])
    say(f"{drawn}; {pages[0]} is the first of {len(pages)} pages, diff.json has all images")


def _alike(sides: Sequence[Side]) -> list[str]:
    """A line where both assignments must be the same."""
    one, other = (side.assign for side in sides)
    if one == other and not uses_predictions(one):
        return [f"note: {type(one).__name__} looks at no predictions, so both assignments are the same"]
    return []


def counted(
    context: Context, sides: Sequence[Side], look: Callable[[Assigned], object] = lambda _: None
) -> list[Statistics]:
    """Who learns what by each side, in one pass over the images; ``look`` is given every batch."""
    objects: list[list[ObjectCounts]] = [[] for _ in sides]
    priors: list[list[PriorCounts]] = [[] for _ in sides]
    for found in context.batches(sides):
        look(found)
        batch = found.batch
        enlarged = batch.originals / batch.sizes
        for plan, some, tallies in zip(found.plans, objects, priors, strict=True):
            some.append(count_objects(plan, found.priors, batch.truth, enlarged).to("cpu"))
            tallies.append(count_priors(plan, found.priors, batch.truth).to("cpu"))
    about = context.classes, context.strides, len(context.source), context.spec.imgsz
    parts = zip(objects, priors, strict=True)
    return [summarize(ObjectCounts.joined(some), PriorCounts.summed(tallies), *about) for some, tallies in parts]


def offer_objects(found: Assigned, context: Context, side: Side, gallery: Gallery) -> int:
    """Offer the images of a batch to the gallery; return how many objects have no positive."""
    truth = found.batch.truth
    counts = count_objects(found.plans[0], found.priors, truth).to("cpu")
    positives = counts.positives.sum(1)
    for row, name in enumerate(found.batch.ids):
        mine = positives[counts.image == row]
        if not len(mine):
            continue
        least = int(mine.min())
        rank = (float(least), -float((mine == least).sum()))
        if gallery.wants(rank):
            without = int((mine == 0).sum())
            caption = (
                f"{len(mine)} objects, {without} without a positive; {_listed(len(mine), 'with the most positives')}"
            )
            rows = list(object_rows(counts, row, context.classes, context.strides))
            gallery.keep(rank, cut_out(found, row, [side.title], context.named(name), caption, rows))
    return int((positives == 0).sum())


def _offer_differences(
    found: Assigned, context: Context, sides: Sequence[Side], gallery: Gallery
) -> list[ImageDifference]:
    """Offer the images of a batch to the gallery; return how far both assignments agree in each."""
    first, second = found.plans
    compared = compare(first, second, found.batch.truth).to("cpu")
    titles = [side.title for side in sides]
    if titles[0] == titles[1]:
        titles = [f"{number}: {title}" for number, title in zip(("first", "second"), titles, strict=True)]
    rows = []
    for row, name in enumerate(found.batch.ids):
        one = compared.of_image(row, name)
        rows.append(one)
        rank = (one.agreement, -float(one.either))
        if one.objects and gallery.wants(rank):
            caption = (
                f"agreement {100 * one.agreement:.1f} %: {one.shared} of {one.either} pairs are in both; "
                f"{one.only_first} objects are served by the first alone, {one.only_second} by the second alone; "
                f"{_listed(one.objects, 'that differ least')}"
            )
            lines = list(compared_rows(compared, row, found.batch.truth, context.classes))
            gallery.keep(rank, cut_out(found, row, titles, context.named(name), caption, lines))
    return rows


def _listed(objects: int, rest: str) -> str:
    """What the table below an image leaves out."""
    return "all are listed" if objects <= MOST_OBJECTS else f"the {objects - MOST_OBJECTS} {rest} are not listed"


def _check_objects(objects: int, options: Options) -> None:
    if not objects:
        raise UserError(
            f"--data {options.data}: expected objects to learn in the images of {options.split}, found none"
        )


def _folder(out: str | None, verb: str) -> Path:
    """The folder that results go to; replacing earlier ones is told."""
    folder = output_folder(out, Path("runs") / "assign" / verb)
    if (folder / f"{verb}.json").exists():
        say(f"{folder} holds results of an earlier `assign {verb}`: they are replaced")
    return folder


def _write_json(
    file: Path, options: Options, context: Context, sides: Sequence[Side], numbers: Mapping[str, Any]
) -> None:
    about = {
        "data": options.data,
        "split": options.split,
        "images": len(context.source),
        "imgsz": context.spec.imgsz,
        "seed": options.seed,
        "model": options.model,
        "assignments": [side.title for side in sides],
    }
    text = json.dumps(about | dict(numbers), indent=2, allow_nan=False)
    write_text(file, text + "\n")
