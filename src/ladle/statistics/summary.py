"""Who learns what on a whole data set, summed up: objects without a positive, positives per object, levels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from ladle.boxes import SIZES
from ladle.statistics.counts import ObjectCounts, PriorCounts

__all__ = ["ASPECTS", "QUANTILES", "SIZES", "Group", "Level", "Statistics", "share", "summarize"]

ASPECTS = {"up to 1.5": (0.0, 1.5), "1.5 to 3": (1.5, 3.0), "3 and more": (3.0, float("inf"))}
"""The longer side over the shorter one: from, up to but not including."""
QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
"""Of the positives per object, such that 0.5 is the median."""
_LEAST_SIDE = 1e-3


@dataclass(frozen=True)
class Group:
    """Some of the objects: how many there are, how many have no positive, and how many positives one has on average."""

    name: str
    objects: int
    without: int
    mean_positives: float | None


@dataclass(frozen=True)
class Level:
    """A level of the pyramid: what its priors are for, how many objects learn there, how many belong there.

    ``served`` counts the objects with a positive on this level, ``belonging`` those whose side is nearest to that of
    its priors. The other numbers are those of :class:`~ladle.statistics.PriorCounts`.
    """

    stride: float
    priors: int
    positive: int
    ignored: int
    inside_several: int
    contested: int
    several: int
    served: int
    belonging: int


@dataclass(frozen=True)
class Statistics:
    """Who learns what on the images of a data set.

    Args:
        images: how many were looked at.
        objects: that may be learned; crowds are left out.
        without: objects that no prior learns.
        mean_positives: priors that learn an object, averaged over objects.
        quantiles: the same, at each of :data:`QUANTILES`.
        histogram: objects with 0, 1, 2 ... positives; the last entry counts all with as many or more.
        mean_affinity: sum of an object's affinities, averaged over objects.
        by_size: groups of objects by their area on disk, see :data:`SIZES`.
        by_class: groups of objects by their class, of all classes that have an object.
        by_level: groups of objects by the level that they belong to, called by its stride.
        by_aspect: groups of objects by the ratio of their sides, see :data:`ASPECTS`.
        levels: what the priors of each level are for.
        holding: objects without a positive that hold the center of a prior.
        side_without: median of the shorter sides of objects without a positive, in pixels of the network input.
        imgsz: long side of the images in pixels.
        distances: mean distance of the centers of an object and of a prior of its image, across in sums of their widths
            and down in sums of their heights: m and n of :class:`~ladle.assigners.SimD` for these images and priors.
    """

    images: int
    objects: int
    without: int
    mean_positives: float | None
    quantiles: tuple[float, ...]
    histogram: tuple[int, ...]
    mean_affinity: float | None
    by_size: tuple[Group, ...]
    by_class: tuple[Group, ...]
    by_level: tuple[Group, ...]
    by_aspect: tuple[Group, ...]
    levels: tuple[Level, ...]
    holding: int
    side_without: float | None
    imgsz: int
    distances: tuple[float, float] | None = None

    def total(self, name: str) -> int:
        """A number of :class:`Level` summed over levels, such as that of ``positive`` priors."""
        return sum(int(getattr(level, name)) for level in self.levels)

    def as_json(self) -> dict[str, Any]:
        """All numbers as JSON holds them."""
        return asdict(self)


def share(part: float, whole: float) -> float:
    """The part in percent of the whole; 0 of nothing."""
    return 100 * part / whole if whole else 0.0


def summarize(
    objects: ObjectCounts,
    priors: PriorCounts,
    classes: Sequence[str],
    strides: Sequence[float],
    images: int,
    imgsz: int,
    longest: int = 20,
) -> Statistics:
    """Sum up what was counted; the histogram of positives per object ends with ``longest`` or more.

    Examples:
        >>> from ladle.assigners import ATSS
        >>> from ladle.statistics import count_objects, count_priors, summarize
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = ATSS()(predictions, priors, truth)
        >>> counts = count_objects(plan, priors, truth), count_priors(plan, priors, truth)
        >>> numbers = summarize(*counts, classes="abcde", strides=(8, 16, 32), images=2, imgsz=256)
        >>> numbers.objects, numbers.without
        (12, 0)
    """
    positives = objects.positives.sum(1).cpu().numpy()
    sides = objects.sides.cpu().numpy()
    none = positives == 0
    ratio = sides.max(1, initial=0) / np.maximum(sides.min(1, initial=np.inf), _LEAST_SIDE)
    size, label, level = (one.cpu().numpy() for one in (objects.area, objects.label, objects.level))
    shorter = np.sort(sides[none].min(1, initial=np.inf))
    return Statistics(
        images=images,
        objects=len(positives),
        without=int(none.sum()),
        mean_positives=_mean(positives),
        quantiles=tuple(np.quantile(positives, QUANTILES).tolist()) if len(positives) else (),
        histogram=tuple(np.bincount(positives.clip(max=longest), minlength=longest + 1).tolist()),
        mean_affinity=_mean(objects.affinity.cpu().numpy()),
        by_size=_groups(positives, _ranges(size, SIZES)),
        by_class=_groups(positives, ((name, label == n) for n, name in enumerate(classes) if (label == n).any())),
        by_level=_groups(positives, ((f"{stride:g}", level == n) for n, stride in enumerate(strides))),
        by_aspect=_groups(positives, _ranges(ratio, ASPECTS)),
        levels=_levels(objects, priors, strides),
        holding=int((none & (objects.inside.cpu().numpy() > 0)).sum()),
        side_without=float(np.median(shorter)) if len(shorter) else None,
        imgsz=imgsz,
        distances=_distances(objects),
    )


def _distances(objects: ObjectCounts) -> tuple[float, float] | None:
    if not len(objects.label):
        return None
    across, down = (objects.distances.sum(0) / objects.priors.sum()).tolist()
    return across, down


def _mean(values: Float[np.ndarray, " N"] | Int[np.ndarray, " N"]) -> float | None:
    return float(values.mean()) if len(values) else None


def _ranges(
    values: Float[np.ndarray, " N"], ranges: dict[str, tuple[float, float]]
) -> Iterator[tuple[str, Bool[np.ndarray, " N"]]]:
    for name, (low, high) in ranges.items():
        yield name, (values >= low) & (values < high)


def _groups(
    positives: Int[np.ndarray, " N"], marked: Iterator[tuple[str, Bool[np.ndarray, " N"]]]
) -> tuple[Group, ...]:
    return tuple(
        Group(name, int(mark.sum()), int((positives[mark] == 0).sum()), _mean(positives[mark])) for name, mark in marked
    )


def _levels(objects: ObjectCounts, priors: PriorCounts, strides: Sequence[float]) -> tuple[Level, ...]:
    served = (objects.positives > 0).sum(0).tolist()
    belonging = objects.level.bincount(minlength=len(strides)).tolist()
    counted = (priors.valid, priors.positive, priors.ignored, priors.inside_several, priors.contested, priors.several)
    rows = zip(strides, *(one.tolist() for one in counted), served, belonging, strict=True)
    return tuple(Level(*row) for row in rows)
