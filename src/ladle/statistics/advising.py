"""Sentences of advice that follow from who learns what, each with the number that it follows from."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

from ladle.statistics.summary import QUANTILES, Group, Statistics, share

__all__ = ["advice"]

_MANY_WITHOUT = 1.0
"""Percent of objects without a positive from which on it is worth a change."""
_MOST = 50.0
"""Percent from which on objects without a positive have one cause."""
_CONTESTED = 10.0
"""Percent of positives that lie in several objects from which on they are many."""
_FEW = 3
"""A median of fewer positives per object is few."""
_ENOUGH = 10
"""Objects that a group must hold before it is singled out."""
_TIMES = 2.0
"""How many times the overall share a group must have to be singled out."""
_FULLEST = 90.0
"""Percent of positives on one level from which on the others learn next to nothing."""
_MULTIPLE = 32


def advice(numbers: Statistics) -> list[str]:
    """What to try, a sentence each; one sentence where nothing stands out.

    Objects without a positive that are too small for the priors ask for larger images or a smaller stride, those that
    hold priors for another assigner.

    Examples:
        >>> from ladle.statistics import Statistics, advice
        >>> nothing = Statistics(1, 0, 0, None, (), (), None, (), (), (), (), (), 0, None, 640)
        >>> advice(nothing)
        ['There is no object to learn in these images.']
    """
    if not numbers.objects:
        return ["There is no object to learn in these images."]
    found = [*_about_small(numbers), *_about_rule(numbers), *_about_groups(numbers), *_about_few(numbers)]
    found += [*_about_contested(numbers), *_about_levels(numbers)]
    if found:
        return found
    return [
        f"Nothing stands out: {_of(numbers.without, numbers.objects)} objects have no positive, and the median object "
        f"has {_median(numbers):g}."
    ]


def _about_small(numbers: Statistics) -> Iterator[str]:
    """Objects without a positive that lie between the priors: only a finer grid over them helps."""
    missed = numbers.without - numbers.holding
    if _few_without(numbers) or share(missed, numbers.without) < _MOST or not numbers.levels:
        return
    stride = min(level.stride for level in numbers.levels)
    side = max(numbers.side_without or 1.0, 1.0)
    wanted = ceil(numbers.imgsz * stride / side / _MULTIPLE) * _MULTIPLE
    larger = (
        f"--imgsz {wanted} would make it {stride:g}" if wanted > numbers.imgsz else "a larger --imgsz makes it longer"
    )
    yield (
        f"Larger images or a smaller stride: {_of(missed, numbers.without)} objects without a positive hold the center "
        f"of no prior; their median shorter side is {side:.0f} pixels at --imgsz {numbers.imgsz}, the finest stride "
        f"{stride:g} ({larger})."
    )


def _about_rule(numbers: Statistics) -> Iterator[str]:
    """Objects without a positive that hold priors: the rule passes them over."""
    if _few_without(numbers) or share(numbers.holding, numbers.without) < _MOST:
        return
    yield (
        f"Another assigner: {_of(numbers.holding, numbers.without)} objects without a positive hold the center of a "
        "prior, so the assigner passes over priors that are there (--assigner; compare with `ladle assign diff`)."
    )


def _about_groups(numbers: Statistics) -> Iterator[str]:
    """The group of each kind that has far more objects without a positive than the rest."""
    if _few_without(numbers):
        return
    whole = share(numbers.without, numbers.objects)
    kinds = {
        "objects of the class {}": numbers.by_class,
        "objects whose longer side over the shorter is {}": numbers.by_aspect,
    }
    for words, groups in kinds.items():
        worst = max((one for one in groups if one.objects >= _ENOUGH), key=_share, default=None)
        if worst is not None and _share(worst) >= _TIMES * whole:
            yield (
                f"Look at {words.format(worst.name)}: {_of(worst.without, worst.objects)} have no positive, "
                f"{whole:.1f} % of all objects (`ladle assign show`)."
            )


def _about_few(numbers: Statistics) -> Iterator[str]:
    if _median(numbers) < _FEW and share(numbers.without, numbers.objects) < _MOST:
        yield (
            f"More positives: the median object has {_median(numbers):g}, fewer than {_FEW}; larger images or an "
            "assigner that takes more priors for each object give more."
        )


def _about_contested(numbers: Statistics) -> Iterator[str]:
    contested, positive = numbers.total("contested"), numbers.total("positive")
    if share(contested, positive) >= _CONTESTED:
        yield (
            f"Crowded images: {_of(contested, positive)} positive priors lie in two objects or more; larger images or "
            "a smaller stride put more priors into each object alone, and an assigner that uses predictions decides "
            "between the objects by what is seen there."
        )


def _about_levels(numbers: Statistics) -> Iterator[str]:
    """Levels that learn nothing, or nearly nothing, beside the fullest one."""
    positive = numbers.total("positive")
    if not positive or len(numbers.levels) < 2:
        return
    fullest = max(numbers.levels, key=lambda level: level.positive)
    idle = [f"{level.stride:g}" for level in numbers.levels if not level.positive]
    if share(fullest.positive, positive) >= _FULLEST:
        finest = fullest.stride == min(level.stride for level in numbers.levels)
        mend = "larger images" if finest else "smaller images, or priors of other sizes,"
        yield (
            f"One level learns nearly everything: {_of(fullest.positive, positive)} positives are on stride "
            f"{fullest.stride:g}; {mend} use the others."
        )
    elif idle:
        yield (
            f"Idle levels: of {positive} positives none is on stride {' or '.join(idle)}; larger images use coarse "
            "levels, smaller images fine ones."
        )


def _few_without(numbers: Statistics) -> bool:
    return share(numbers.without, numbers.objects) < _MANY_WITHOUT


def _median(numbers: Statistics) -> float:
    return numbers.quantiles[QUANTILES.index(0.5)]


def _share(group: Group) -> float:
    return share(group.without, group.objects)


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} ({share(part, whole):.1f} %)"
