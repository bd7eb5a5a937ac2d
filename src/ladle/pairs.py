"""Candidate pairs of a prior and an object in a flat list, instead of a matrix of priors by objects.

The points of a grid that lie inside a box are a rectangle of cells on each level, so they can be enumerated without a
search, and the list is only as long as the boxes are large. On a GPU and inside ``torch.compile`` the length of a
list must not depend on tensor values (reading them would force a device sync or break the graph). There the same list
is padded, and ``real`` is False in the padding.

Two flat indices are used throughout: ``image * P + prior`` numbers the priors of the whole batch, and
``image * G + object`` its objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import contains, iou
from ladle.device import fused, may_look
from ladle.overlaps import object_slices
from ladle.types import Grid, Priors, Record
from ladle.windows import window_priors

__all__ = [
    "Pairs",
    "compact",
    "leading",
    "pairs_inside",
    "ranks",
    "resolve_conflicts",
    "resolve_conflicts_in_lists",
]

LONGEST = 1 << 20
"""About the largest number of pairs in one list; such a list takes some 40 MiB."""

_SLACK = 1e-3
"""Tolerance, in cells, for rounding when a coordinate becomes a cell index; an exact test follows."""


@dataclass(frozen=True)
class Pairs(Record):
    """N pairs of a prior and an object, sorted by image, then object, then prior.

    ``image``, ``object`` and ``prior`` are indices into the batch, the G objects and the P priors of an image. Entries
    whose ``real`` is False are padding with valid indices, and must not influence a result. ``width`` is set if every
    object has exactly that many entries, so that the list can be viewed as a table (-1, width).
    """

    image: Int[Tensor, " N"]
    object: Int[Tensor, " N"]
    prior: Int[Tensor, " N"]
    real: Bool[Tensor, " N"]
    width: int | None = None

    @classmethod
    def table(cls, prior: Int[Tensor, "B G W"], real: Bool[Tensor, "B G W"], first: int = 0) -> Pairs:
        """The pairs of a table with W priors for each of G objects, which are numbered from ``first``."""
        image = torch.arange(prior.shape[0], device=prior.device).view(-1, 1, 1).expand_as(prior)
        number = torch.arange(first, first + prior.shape[1], device=prior.device).view(1, -1, 1).expand_as(prior)
        return cls(image.flatten(), number.flatten(), prior.flatten(), real.flatten(), prior.shape[2])

    @classmethod
    def chosen(cls, index: Int[Tensor, "B P"], mask: Bool[Tensor, "B P"]) -> Pairs:
        """Every prior that ``mask`` marks, paired with object ``index``; sorted by image and prior, not by object."""
        if may_look(mask):
            image, prior = mask.nonzero(as_tuple=True)
            return cls(image, index[image, prior], prior, torch.ones_like(prior, dtype=torch.bool))
        prior = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        image = torch.arange(mask.shape[0], device=mask.device).unsqueeze(1).expand_as(mask)
        return cls(image.flatten(), index.flatten(), prior.flatten(), mask.flatten())

    def of_prior(self, values: Tensor) -> Tensor:
        """Gather per-prior ``values`` (B or 1, P, ...) for each pair: (N, ...)."""
        if values.shape[0] == 1:
            return values[0].index_select(0, self.prior)
        return values.flatten(0, 1).index_select(0, self.image * values.shape[1] + self.prior)

    def of_object(self, values: Tensor) -> Tensor:
        """Gather per-object ``values`` (B, G, ...) for each pair: (N, ...)."""
        rows = values.flatten(0, 1)
        if self.width is not None and len(self.prior) == len(rows) * self.width:
            return rows.unsqueeze(1).expand(-1, self.width, *rows.shape[1:]).flatten(0, 1)  # a row for each object
        return values.flatten(0, 1).index_select(0, self.image * values.shape[1] + self.object)

    def of_label(self, logits: Float[Tensor, "B P C"], labels: Int[Tensor, "B G"]) -> Float[Tensor, " N"]:
        """The logit of each pair's prior for the class of its object; for class 0 where the pair is padding."""
        _, priors, classes = logits.shape
        label = self.of_object(labels) * self.real
        return logits.flatten().index_select(0, (self.image * priors + self.prior) * classes + label)

    def sum_per_object(self, values: Float[Tensor, " N"], batch: int, objects: int) -> Float[Tensor, "B G"]:
        """The sum of ``values`` over each object's pairs, in float64, so that their order does not matter."""
        sums = values.new_zeros(batch * objects, dtype=torch.float64)
        sums = sums.index_add(0, self.image * objects + self.object, values.double())
        return sums.view(batch, objects).to(values.dtype)

    def sum_per_image(self, values: Float[Tensor, " N"], batch: int) -> Float[Tensor, " B"]:
        """The sum of ``values`` over each image's pairs, in float64."""
        none = values.new_zeros(batch, dtype=torch.float64)
        return none.index_add(0, self.image, values.double()).to(values.dtype)

    def iou(self, boxes: Float[Tensor, "#B P 4"], objects: Float[Tensor, "B G 4"]) -> Float[Tensor, " N"]:
        """The IoU of each pair's box and object."""
        return iou(self.of_prior(boxes), self.of_object(objects))

    def of_level(self, regions: Float[Tensor, "B G L 4"], level: Int[Tensor, " P"]) -> Float[Tensor, "N 4"]:
        """The region of each pair's object on the level of its prior."""
        row = (self.image * regions.shape[1] + self.object) * regions.shape[2] + level.index_select(0, self.prior)
        return regions.flatten(0, 2).index_select(0, row)

    def inside(self, priors: Priors, regions: Float[Tensor, "B G L 4"], margin: float = 0.0) -> Bool[Tensor, " N"]:
        """Whether each prior's center is more than ``margin`` inside the object's region on the prior's level."""
        return contains(self.of_level(regions, priors.level), self.of_prior(priors.centers), margin)

    def at(self, positions: Int[Tensor, " M"], width: int | None = None) -> Pairs:
        """The pairs at the given positions of the list."""
        picked = self.map(lambda tensor: tensor.index_select(0, positions))
        return picked.replaced(width=width)

    def keep(self, mask: Bool[Tensor, " N"]) -> Pairs:
        """The pairs that ``mask`` marks: a shorter list on the CPU, else the same list with the others as padding."""
        if may_look(mask):
            return self.at(mask.nonzero().squeeze(1))
        return self.replaced(real=self.real & mask)

    @property
    def columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``image``, ``object``, ``prior`` and ``real``."""
        return self.image, self.object, self.prior, self.real

    def join(self, other: Pairs) -> Pairs:
        """Concatenate this list and ``other``; the result is not sorted by image, and so is no table."""
        image, number, prior, real = map(torch.cat, zip(self.columns, other.columns, strict=True))
        return Pairs(image, number, prior, real)


def pairs_inside(
    priors: Priors,
    regions: Float[Tensor, "B G 4"] | Float[Tensor, "B G L 4"],
    included: Bool[Tensor, "B G"],
    margin: float = 0.0,
    most: int | None = None,
) -> Iterator[Pairs]:
    """The valid priors whose center lies more than ``margin`` pixels inside an object's region, in bounded lists.

    Each list covers a contiguous range of the objects of all images; usually there is only one. An object without such
    a prior has no entry, or only padding.

    Args:
        priors: the priors; on regular grids they are enumerated, otherwise all are tested.
        regions: one box per object, or one per object and level, in pixels.
        included: the objects to consider; the others get no pairs.
        margin: least distance, in pixels, between the center and the sides of the region; must be exceeded.
        most: largest width and height of a region in cells, if the caller knows it. It bounds the padded lists.
    """
    if regions.ndim == 3:
        regions = regions.unsqueeze(2).expand(-1, -1, len(priors.counts), -1)
    if priors.grids is not None and may_look(included):
        all_valid = bool(priors.valid.all())
        for pairs in _rectangles(priors, priors.grids, regions, included, margin):
            yield pairs if all_valid else pairs.keep(pairs.of_prior(priors.valid))
        return
    if priors.grids is not None and most is not None and len({grid.each for grid in priors.grids}) == 1:
        prior, real = window_priors(priors, priors.grids, regions, included, margin, most)
        yield Pairs.table(prior, real)
        return
    for pairs in _everything(priors, included):
        yield pairs.keep(pairs.inside(priors, regions, margin) & pairs.of_prior(priors.valid))


def leading(pairs: Pairs, cost: Float[Tensor, " N"], k: int) -> tuple[Pairs, Int[Tensor, " M"]]:
    """The ``k`` pairs of lowest cost of each object, and their positions in the list.

    An object with fewer pairs gets fewer. On equal costs the earlier prior comes first on the CPU; on other devices
    the order is that of ``topk``. Pairs of infinite cost are never returned.
    """
    cost = torch.where(pairs.real, cost, torch.inf)
    if pairs.width is not None and pairs.width > 0:
        # A table: one topk over rows of ``width``. kept and order are (objects, min(k, width)).
        kept, order = cost.view(-1, pairs.width).topk(min(k, pairs.width), largest=False)
        start = torch.arange(0, len(cost), pairs.width, device=cost.device).unsqueeze(-1)
        positions = (order + start).flatten()
        best = pairs.at(positions, width=kept.shape[1])
        return best.replaced(real=best.real & kept.flatten().isfinite()), positions
    order, rank = _ranked(pairs, cost)
    chosen = (rank < k) & cost.index_select(0, order).isfinite()
    if may_look(chosen):
        order = order[chosen]
        return pairs.at(order), order
    return pairs.at(order).replaced(real=chosen), order


def ranks(pairs: Pairs, cost: Float[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The rank of each pair by cost within its object, from 0; on equal costs the earlier pair first, padding last.

    The list need not be sorted.
    """
    order, rank = _ranked(pairs, torch.where(pairs.real, cost, torch.inf))
    return torch.empty_like(rank).scatter_(0, order, rank)


def resolve_conflicts(
    pairs: Pairs, score: Float[Tensor, " N"], batch: int, priors: int
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """Give each prior the object of its pair with the highest ``score``; on a tie the object listed first.

    Returns:
        Which priors are in a pair, and the object of each; 0 where a prior is in none.
    """
    return resolve_conflicts_in_lists([(pairs, score)], batch, priors)


def resolve_conflicts_in_lists(
    parts: Iterable[tuple[Pairs, Tensor]], batch: int, priors: int
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """:func:`resolve_conflicts` for several lists with ascending objects, each given with its scores (N,).

    Each list takes two scatters over the B * P priors, so no prior-by-object matrix is built.
    """
    waiting = iter(parts)
    held = list(islice(waiting, 1))
    if held and not may_look(held[0][1]):
        held += islice(waiting, 1)
        if len(held) == 1:
            listed, score = held[0]
            found: tuple[Tensor, Tensor] = _BEST_PAIRS(*listed.columns, score, batch, priors)
            return found
    return _merged(chain(held, waiting), batch, priors)


def _merged(parts: Iterable[tuple[Pairs, Tensor]], batch: int, priors: int) -> tuple[Tensor, Tensor]:
    """:func:`resolve_conflicts_in_lists` in plain operations, one list at a time."""
    best, index = None, None  # of each of the B * P priors: the highest score so far, and its object
    no_object = torch.iinfo(torch.long).max
    for pairs, score in parts:
        flat_prior = pairs.image * priors + pairs.prior  # (N,)
        score = torch.where(pairs.real, score, -torch.inf)
        none = score.new_full((batch * priors,), -torch.inf)
        value = none.scatter_reduce(0, flat_prior, score, "amax")  # (B * P,), the best score in this list
        # The lowest object number among the pairs that reach it, so that ties go to the object listed first.
        tied = torch.where(pairs.real & (score == value.index_select(0, flat_prior)), pairs.object, no_object)
        winner = torch.full_like(none, no_object, dtype=torch.long).scatter_reduce(0, flat_prior, tied, "amin")
        if best is None or index is None:
            best, index = value, winner
        else:
            better = (value > best) | (index == no_object)
            best, index = torch.where(better, value, best), torch.where(better, winner, index)
    if index is None:
        raise ValueError("expected at least one list of pairs, found none")
    taken = (index < no_object).view(batch, priors)
    return taken, torch.where(taken, index.view(batch, priors), 0)


def compact(mask: Bool[Tensor, "B P"]) -> tuple[Int[Tensor, "B n"], Bool[Tensor, "B n"]]:
    """The indices of the marked columns of every row, and which of these entries exist.

    n is the largest number of marked columns in a row. On a GPU and in a compiled graph, where n may not depend on the
    mask, all columns are returned together with the mask itself.
    """
    batch, columns = mask.shape
    if not may_look(mask):
        return torch.arange(columns, device=mask.device).expand(batch, -1), mask
    row, column = mask.nonzero(as_tuple=True)
    count = mask.sum(1)
    most = int(count.max()) if batch else 0
    first = count.cumsum(0) - count  # (B,), how many marks all earlier rows have
    slot = torch.arange(len(row), device=mask.device) - first[row]  # the rank of each mark in its own row
    index = torch.zeros(batch, most, dtype=torch.long, device=mask.device)
    index[row, slot] = column
    return index, torch.arange(most, device=mask.device) < count.unsqueeze(1)


def _ranked(pairs: Pairs, cost: Float[Tensor, " N"]) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """The order of the list by object and then by cost, and the rank within the object of each pair *in that order*.

    Both keys are packed into one integer of 64 bits, object above and cost below, because one sort of integers is much
    faster on the CPU than two sorts of floats. The bits of a float32 compare like an integer once all bits of a
    negative number except the sign are flipped.
    """
    bits = (cost + 0.0).view(torch.int32)  # adding 0.0 turns -0.0 into 0.0, which must compare as equal
    comparable = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    group = pairs.image * (1 << 20) + pairs.object  # (N,), one number for each object of the batch
    order = ((group << 32) + comparable.long()).argsort(stable=True)
    group = group.index_select(0, order)
    position = torch.arange(len(group), device=group.device)
    begins = torch.cat([torch.ones_like(group[:1], dtype=torch.bool), group[1:] != group[:-1]])
    # The running maximum of the positions at which a group begins is where the current group began.
    return order, position - torch.where(begins, position, 0).cummax(0).values


def _rectangles(
    priors: Priors,
    grids: tuple[Grid, ...],
    regions: Float[Tensor, "B G L 4"],
    included: Bool[Tensor, "B G"],
    margin: float,
) -> Iterator[Pairs]:
    """Enumerate the priors inside the regions on the CPU, one slice of objects at a time.

    The cells inside a region form a rectangle on each level, and each of its rows is a run of consecutive priors. So
    the list is built in two expansions: rectangles to rows, rows to priors.
    """
    first, extent = _inside(priors, grids, regions, included, margin)
    # Per level (L,): columns, priors per location, and the number of the level's first prior.
    wide, each, base = torch.tensor([(g.width, g.each, g.height * g.width * g.each) for g in grids]).unbind(-1)
    base = base.cumsum(0) - base
    corner = base + (first[..., 1] * wide + first[..., 0]) * each  # (B, G, L), the first prior of each rectangle
    for part in _balanced((extent.prod(-1) * each).sum((0, 2))):
        # Rectangles to rows. R = B * g * L rectangles; block, down, lengths and begin have one entry per row.
        heights = extent[:, part, :, 1].flatten()  # (R,)
        block = torch.repeat_interleave(heights)  # the rectangle of each row
        down = torch.arange(len(block)) - (heights.cumsum(0) - heights).index_select(0, block)  # row in the rectangle
        level = block % len(grids)
        lengths = extent[:, part, :, 0].flatten().index_select(0, block) * each[level]
        begin = corner[:, part].flatten().index_select(0, block) + down * (wide * each)[level]

        # Rows to priors: N entries, ``run`` is the row of each.
        run = torch.repeat_interleave(lengths)
        position = torch.arange(len(run))
        prior = (begin - (lengths.cumsum(0) - lengths)).index_select(0, run).add_(position)
        flat_object, width = block // len(grids), part.stop - part.start
        image = flat_object // width
        number = (flat_object - image * width + part.start).index_select(0, run)
        yield Pairs(image.index_select(0, run), number, prior, torch.ones_like(prior, dtype=torch.bool))


def _inside(
    priors: Priors,
    grids: tuple[Grid, ...],
    regions: Float[Tensor, "B G L 4"],
    included: Bool[Tensor, "B G"],
    margin: float,
) -> tuple[Int[Tensor, "B G L 2"], Int[Tensor, "B G L 2"]]:
    """First column and row inside each region, and how many columns and rows there are, as (x, y).

    These are exactly the locations whose center passes the test. The borders are first computed up to rounding; then
    the test is applied to the outermost columns and rows. The center of a location is that of its first prior.
    """
    firsts, extents, start = [], [], 0
    for level, grid in enumerate(grids):
        cells = slice(start, start + grid.height * grid.width * grid.each)
        center = priors.centers[:, cells].unflatten(1, (grid.height, grid.width, grid.each))[..., 0, :]  # (B, H, W, 2)
        # ``line`` holds the x of every column, then the y of every row.
        for axis, line in enumerate((center[:, 0, :, 0], center[:, :, 0, 1])):
            line = line.expand(len(included), -1)
            low, high = regions[:, :, level, axis], regions[:, :, level, axis + 2]
            begin = ((low + margin) / grid.stride - grid.offset - _SLACK).ceil().clamp(0, line.shape[1] - 1).long()
            end = ((high - margin) / grid.stride - grid.offset + _SLACK).floor().clamp(0, line.shape[1] - 1).long()
            begin = begin + (line.gather(1, begin) - low > margin).logical_not()
            end = end - (high - line.gather(1, end) > margin).logical_not().long()
            firsts.append(begin)
            extents.append((end + 1 - begin).clamp(min=0))
        start = cells.stop
    shape = (len(grids), 2)
    extent = torch.stack(extents, dim=2).unflatten(2, shape) * included[..., None, None]
    return torch.stack(firsts, dim=2).unflatten(2, shape), extent * (extent.amin(-1, keepdim=True) > 0)


def _everything(priors: Priors, included: Bool[Tensor, "B G"]) -> Iterator[Pairs]:
    """Every prior paired with every object, one slice of objects at a time."""
    batch, objects = included.shape
    count = priors.boxes.shape[1]
    for part in object_slices(batch, count, objects, included):
        prior = torch.arange(count, device=included.device).expand(batch, part.stop - part.start, -1)
        yield Pairs.table(prior, included[:, part, None].expand_as(prior), part.start)


def _balanced(count: Int[Tensor, " G"]) -> Iterator[slice]:
    """Cut the objects into ranges of at most about :data:`LONGEST` pairs, at least one object each."""
    start, held = 0, 0
    for number, pairs in enumerate(count.tolist()):
        if held and held + pairs > LONGEST:
            yield slice(start, number)
            start, held = number, 0
        held += pairs
    yield slice(start, len(count))


def _best_pairs(
    image: Tensor, number: Tensor, prior: Tensor, real: Tensor, score: Tensor, batch: int, priors: int
) -> tuple[Tensor, Tensor]:
    """:func:`resolve_conflicts` of plain tensors, in plain operations."""
    return _merged([(Pairs(image, number, prior, real), score)], batch, priors)


_BEST_PAIRS = fused(
    "best_pairs(Tensor image, Tensor number, Tensor prior, Tensor real, Tensor score, int batch, int priors) "
    "-> (Tensor, Tensor)",
    _best_pairs,
    module="conflicts",
    launches=5,
)
