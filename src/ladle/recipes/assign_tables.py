"""Who learns what, as the rows of tables and the bars of charts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import nan
from typing import Any

import torch

from ladle.names import readable
from ladle.statistics import QUANTILES, Comparison, Difference, Group, ObjectCounts, Statistics, share
from ladle.types import GroundTruth
from ladle.visual import Bar, BarPanel

__all__ = [
    "LEVELS",
    "MOST_OBJECTS",
    "bars_of",
    "compared_rows",
    "difference_rows",
    "group_tables",
    "image_rows",
    "level_rows",
    "object_rows",
    "overview_rows",
]

Row = dict[str, object]

LEVELS = (
    "priors by level; shared: inside several objects; served: objects with a positive here; belong: objects so large"
)
"""The title of the table of :func:`level_rows`."""
MOST_OBJECTS = 12
"""So many objects of an image are listed below it."""
_TENTH = 10.0
"""Axes of percent go this far at least, so that one object of thousands does not look like many."""
_MOST_CLASSES = 25
"""So many classes are drawn in a chart."""


def overview_rows(numbers: Statistics) -> list[Row]:
    """The numbers about all objects and all priors together."""
    priors, positive = numbers.total("priors"), numbers.total("positive")
    rows = {
        "objects": f"{numbers.objects} in {numbers.images} images",
        "objects without a positive": _of(numbers.without, numbers.objects),
        "of these with a prior's center inside": _of(numbers.holding, numbers.without),
        "positives per object": f"mean {_number(numbers.mean_positives):.1f}, {_spread(numbers)}",
        "affinity per object": f"mean {_number(numbers.mean_affinity):.2f}",
        "positive priors": _of(positive, priors),
        "ignored priors": _of(numbers.total("ignored"), priors),
        "priors inside several objects": _of(numbers.total("inside_several"), priors),
        "positive priors inside several objects": _of(numbers.total("contested"), positive),
        "priors that learn several objects": _of(numbers.total("several"), positive),
        "distance of priors from objects": _distances(numbers.distances),
    }
    return [{"number": name, "value": value} for name, value in rows.items()]


def _distances(found: tuple[float, float] | None) -> str:
    """Mean distances in the form in which SimD takes them."""
    if found is None:
        return "none"
    across, down = (f"{one:.3f}" for one in found)
    return f"mean {across} across, {down} down: SimD(m={across}, n={down})"


def group_tables(numbers: Statistics) -> dict[str, list[Row]]:
    """Objects without a positive by every kind of group, a table each by its title."""
    classes = readable([group.name for group in numbers.by_class])
    return {
        "by size on disk (COCO)": [_group_row("size", one.name, one) for one in numbers.by_size],
        "by the level that they belong to": [_group_row("stride", one.name, one) for one in numbers.by_level],
        "by longer side over shorter side": [_group_row("ratio", one.name, one) for one in numbers.by_aspect],
        "by class": [_group_row("class", name, one) for name, one in zip(classes, numbers.by_class, strict=True)],
    }


def level_rows(numbers: Statistics) -> list[Row]:
    """What the priors of each level are for; :data:`LEVELS` says what the columns are."""
    positive = numbers.total("positive")
    return [
        {
            "stride": f"{level.stride:g}",
            "priors": level.priors,
            "positive": level.positive,
            "%": share(level.positive, positive),
            "ignored": level.ignored,
            "shared": level.inside_several,
            "served": level.served,
            "belong": level.belonging,
        }
        for level in numbers.levels
    ]


def bars_of(numbers: Statistics) -> list[BarPanel]:
    """The charts of ``assign stats``."""
    worst = sorted(numbers.by_class, key=lambda one: (-share(one.without, one.objects), -one.objects))[:_MOST_CLASSES]
    more = f", worst {_MOST_CLASSES} of {len(numbers.by_class)}" if len(numbers.by_class) > len(worst) else ""
    last = len(numbers.histogram) - 1
    shown = max((number for number, objects in enumerate(numbers.histogram) if objects), default=-1) + 1
    counts = [
        Bar(f"{number}{' or more' if number == last else ''}", objects, str(objects))
        for number, objects in enumerate(numbers.histogram[:shown])
    ]
    positive = numbers.total("positive")
    levels = [
        Bar(f"stride {level.stride:g}", share(level.positive, positive), f"{level.positive}")
        for level in numbers.levels
    ]
    return [
        BarPanel("Without a positive, by size", "% of objects", _bars(numbers.by_size), _TENTH),
        BarPanel("Positives on each level", "% of positive priors", levels),
        BarPanel("Without a positive, by level", "% of objects", _bars(numbers.by_level, "stride "), _TENTH),
        BarPanel("Without a positive, by ratio of sides", "% of objects", _bars(numbers.by_aspect), _TENTH),
        BarPanel("Positives of an object", "objects", counts),
        BarPanel(f"Without a positive, by class{more}", "% of objects", _bars(worst), _TENTH),
    ]


def object_rows(objects: ObjectCounts, image: int, classes: Sequence[str], strides: Sequence[float]) -> Iterator[Row]:
    """The objects of one image of a batch with their positives by level, those with the fewest first."""
    mine = (objects.image == image).nonzero().flatten()
    counts = objects.positives[mine].sum(1)
    names = readable(classes)
    for place in mine[counts.argsort(stable=True)][:MOST_OBJECTS].tolist():
        levels = objects.positives[place].tolist()
        yield {
            "class": names[int(objects.label[place])],
            "pixels": "{:.0f} x {:.0f}".format(*objects.sides[place].tolist()),
            "belongs to stride": f"{strides[int(objects.level[place])]:g}",
            "positives": sum(levels),
        } | {f"on stride {stride:g}": count for stride, count in zip(strides, levels, strict=True)}


def compared_rows(found: Comparison, image: int, truth: GroundTruth, classes: Sequence[str]) -> Iterator[Row]:
    """The objects of one image of a batch under two assignments, those that differ most first."""
    mine = (found.image == image).nonzero().flatten()
    either = found.first + found.second - found.both
    common = torch.where(either > 0, found.both / either.clamp(min=1), 1.0)[mine]
    names = readable(classes)
    for place in mine[common.argsort(stable=True)][:MOST_OBJECTS].tolist():
        number = int(found.object[place])
        x1, y1, x2, y2 = truth.boxes[image, number].tolist()
        yield {
            "class": names[int(truth.labels[image, number])],
            "pixels": f"{x2 - x1:.0f} x {y2 - y1:.0f}",
            "positives, first": int(found.first[place]),
            "second": int(found.second[place]),
            "shared": int(found.both[place]),
        }


def difference_rows(found: Difference) -> list[Row]:
    """The numbers about all images together."""
    one, two = (count / found.objects if found.objects else nan for count in (found.first, found.second))
    rows = {
        "agreement, pairs in both over pairs in either": f"{100 * found.agreement:.1f} %",
        "the same of affinities": f"{100 * found.weighted:.1f} %",
        "positives per object": f"first {one:.1f}, second {two:.1f}",
        "objects": f"{found.objects} in {found.images} images",
        "objects that only the first serves": _of(found.only_first, found.objects),
        "objects that only the second serves": _of(found.only_second, found.objects),
        "objects without a positive in both": _of(found.neither, found.objects),
    }
    return [{"number": name, "value": value} for name, value in rows.items()]


def image_rows(found: Difference, named: Callable[[Any], str], most: int) -> list[Row]:
    """The images that differ most."""
    return [
        {
            "image": readable([named(one.name)])[0],
            "agree %": 100 * one.agreement,
            "objects": one.objects,
            "first": one.first,
            "second": one.second,
            "shared": one.shared,
            "1st only": one.only_first,
            "2nd only": one.only_second,
        }
        for one in found.by_image[:most]
    ]


def _group_row(kind: str, name: str, group: Group) -> Row:
    return {
        kind: name,
        "objects": group.objects,
        "without": group.without,
        "% without": share(group.without, group.objects) if group.objects else nan,
        "positives each": _number(group.mean_positives),
    }


def _bars(groups: Sequence[Group], before: str = "") -> list[Bar]:
    names = readable([f"{before}{group.name}" for group in groups])
    return [
        Bar(name, share(group.without, group.objects), f"{group.without} of {group.objects}")
        for name, group in zip(names, groups, strict=True)
    ]


def _spread(numbers: Statistics) -> str:
    """The positives of the median object and of others."""
    at = dict(zip(QUANTILES, numbers.quantiles, strict=False))
    return f"median {at[0.5]:g}, from {at[0.0]:g} to {at[1.0]:g}, 8 in 10 from {at[0.1]:g} to {at[0.9]:g}"


def _number(value: float | None) -> float:
    return nan if value is None else value


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} ({share(part, whole):.1f} %)"
