"""How far two assignments of the same objects to the same priors agree."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ladle.statistics.counts import pairs_of
from ladle.types import Assignment, GroundTruth, Record

__all__ = ["Comparison", "Difference", "ImageDifference", "compare"]


@dataclass(frozen=True)
class Comparison(Record):
    """Two assignments side by side, of B images and of their N objects that may be learned.

    A *pair* is a prior and an object that it learns, however weakly. ``shared`` pairs are in both assignments,
    ``either`` counts those in one at least. ``least`` and ``greatest`` sum the smaller and the larger affinity of all
    pairs. ``first`` and ``second`` are the positives of each object by each assignment, ``both`` those that they share.
    """

    shared: Int[Tensor, " B"]
    either: Int[Tensor, " B"]
    least: Float[Tensor, " B"]
    greatest: Float[Tensor, " B"]
    image: Int[Tensor, " N"]
    object: Int[Tensor, " N"]
    first: Int[Tensor, " N"]
    second: Int[Tensor, " N"]
    both: Int[Tensor, " N"]

    def of_image(self, image: int, name: Hashable) -> ImageDifference:
        """The difference in one image of the batch."""
        mine = self.image == image
        served = (self.first[mine] > 0, self.second[mine] > 0)
        return ImageDifference(
            name,
            int(self.shared[image]),
            int(self.either[image]),
            float(self.least[image]),
            float(self.greatest[image]),
            int(mine.sum()),
            int(self.first[mine].sum()),
            int(self.second[mine].sum()),
            int((served[0] & ~served[1]).sum()),
            int((~served[0] & served[1]).sum()),
            int((~served[0] & ~served[1]).sum()),
        )


class ImageDifference(NamedTuple):
    """How far two assignments of one image agree: sums of :class:`Comparison` over it, and who serves its objects."""

    name: Hashable
    shared: int
    either: int
    least: float
    greatest: float
    objects: int
    first: int
    second: int
    only_first: int
    only_second: int
    neither: int

    @property
    def agreement(self) -> float:
        """Intersection over union of the pairs; 1 where there are none."""
        return self.shared / self.either if self.either else 1.0


@dataclass(frozen=True)
class Difference:
    """How far two assignments agree on a data set.

    Args:
        images: how many were looked at.
        objects: that may be learned.
        agreement: intersection over union of the pairs of all images together; 1 where there are none.
        weighted: the same of affinities: the sum of the smaller over the sum of the larger of each pair.
        first: pairs of the first assignment.
        second: pairs of the second assignment.
        shared: pairs of both.
        only_first: objects with a positive by the first assignment alone.
        only_second: objects with a positive by the second assignment alone.
        neither: objects without a positive by both.
        by_image: the same for each image, those that differ most first.
    """

    images: int
    objects: int
    agreement: float
    weighted: float
    first: int
    second: int
    shared: int
    only_first: int
    only_second: int
    neither: int
    by_image: tuple[ImageDifference, ...]

    @classmethod
    def of(cls, images: Sequence[ImageDifference]) -> Difference:
        """Sum up images; those of least agreement come first, of equals the one with more pairs."""

        def total(name: str) -> Any:
            return sum(getattr(one, name) for one in images)

        either, greatest = total("either"), total("greatest")
        summed = ("first", "second", "shared", "only_first", "only_second", "neither")
        return cls(
            images=len(images),
            objects=total("objects"),
            agreement=total("shared") / either if either else 1.0,
            weighted=total("least") / greatest if greatest else 1.0,
            by_image=tuple(sorted(images, key=lambda one: (one.agreement, -one.either))),
            **{name: total(name) for name in summed},
        )

    def as_json(self) -> dict[str, Any]:
        """All numbers as JSON holds them."""
        rows = [one._asdict() | {"agreement": one.agreement} for one in self.by_image]
        return {field.name: getattr(self, field.name) for field in fields(self)} | {"by_image": rows}


def compare(first: Assignment, second: Assignment, truth: GroundTruth) -> Comparison:
    """Compare two assignments of the same batch to the same priors.

    Examples:
        >>> from ladle.assigners import ATSS, PAA
        >>> from ladle.statistics import compare
        >>> from ladle.testing import example_scene
        >>> scene = example_scene()
        >>> found = compare(ATSS()(*scene), ATSS()(*scene), scene[2])
        >>> bool((found.shared == found.either).all())
        True
    """
    batch, objects = truth.labels.shape
    one, other = pairs_of(first, truth), pairs_of(second, truth)
    keys, place = torch.unique(torch.cat([one.key, other.key]), return_inverse=True)
    affinity = torch.zeros(2, len(keys), dtype=torch.float64, device=keys.device)
    affinity[0, place[: len(one.key)]] = one.affinity.double()
    affinity[1, place[len(one.key) :]] = other.affinity.double()
    learns = affinity > 0
    image = keys // max(objects, 1) // max(first.objects.shape[1], 1)
    home = image * objects + keys % max(objects, 1)
    both = learns.all(0)
    whose, number = truth.learnable.nonzero(as_tuple=True)
    counts = [torch.bincount(home[mark], minlength=batch * objects) for mark in (learns[0], learns[1], both)]
    sums = [torch.zeros(batch, dtype=torch.float64, device=keys.device) for _ in range(2)]
    return Comparison(
        torch.bincount(image[both], minlength=batch),
        torch.bincount(image, minlength=batch),
        sums[0].scatter_add_(0, image, affinity.amin(0)),
        sums[1].scatter_add_(0, image, affinity.amax(0)),
        whose,
        number,
        *(count[whose * objects + number] for count in counts),
    )
