"""Prior-object pairs worth looking at, in a flat list, instead of a matrix of priors by objects.

Points on a grid need not be searched: the ones inside a box are a rectangle of cells, level by level. So the list is as
long as the boxes are large, not as priors are many. Where the length of a list may not depend on what tensors hold (on
a GPU, whose queue looking would stop, and in a compiled graph) the same list is padded: ``real`` tells the pairs from
the padding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.boxes import centers, contains
from ladle.overlaps import may_look, object_slices
from ladle.types import Grid, GroundTruth, Priors, Record

__all__ = ["Pairs", "compact", "leading", "pairs_inside", "ranks", "settle", "settle_parts", "squares"]

LONGEST = 1 << 20
"""About how many pairs a list holds at most, some 40 MiB."""

_SLACK = 1e-3
"""In cells: what rounding may cost when a coordinate becomes a cell; the exact test follows."""


@dataclass(frozen=True)
class Pairs(Record):
    """N pairs, image by image and object by object, the priors of an object in ascending order.

    Entries that are not ``real`` are padding, to be left out of everything; their indices are legal. ``width`` is set
    if every object has that many entries.
    """

    image: Int[Tensor, " N"]
    object: Int[Tensor, " N"]
    prior: Int[Tensor, " N"]
    real: Bool[Tensor, " N"]
    width: int | None = None

    @classmethod
    def table(cls, prior: Int[Tensor, "B G W"], real: Bool[Tensor, "B G W"], first: int = 0) -> Pairs:
        """W priors for each of the G objects from the one numbered ``first`` on."""
        image = torch.arange(prior.shape[0], device=prior.device).view(-1, 1, 1).expand_as(prior)
        number = torch.arange(first, first + prior.shape[1], device=prior.device).view(1, -1, 1).expand_as(prior)
        return cls(image.flatten(), number.flatten(), prior.flatten(), real.flatten(), prior.shape[2])

    @classmethod
    def chosen(cls, index: Int[Tensor, "B P"], mask: Bool[Tensor, "B P"]) -> Pairs:
        """Every marked prior with the object it has in ``index``; ordered by image and prior, not by object."""
        if may_look(mask):
            image, prior = mask.nonzero(as_tuple=True)
            return cls(image, index[image, prior], prior, torch.ones_like(prior, dtype=torch.bool))
        prior = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        image = torch.arange(mask.shape[0], device=mask.device).unsqueeze(1).expand_as(mask)
        return cls(image.flatten(), index.flatten(), prior.flatten(), mask.flatten())

    def of_prior(self, values: Tensor) -> Tensor:
        """What each pair's prior has of ``values`` (B or 1, P, ...): (N, ...)."""
        if values.shape[0] == 1:
            return values[0].index_select(0, self.prior)
        return values.flatten(0, 1).index_select(0, self.image * values.shape[1] + self.prior)

    def of_object(self, values: Tensor) -> Tensor:
        """What each pair's object has of ``values`` (B, G, ...): (N, ...)."""
        return values.flatten(0, 1).index_select(0, self.image * values.shape[1] + self.object)

    def of_label(self, logits: Float[Tensor, "B P C"], labels: Int[Tensor, "B G"]) -> Float[Tensor, " N"]:
        """What each pair's prior says of its object's class; of class 0 where the pair is padding."""
        _, priors, classes = logits.shape
        label = torch.where(self.real, self.of_object(labels), 0)
        return logits.flatten().index_select(0, (self.image * priors + self.prior) * classes + label)

    def at(self, positions: Int[Tensor, " M"], width: int | None = None) -> Pairs:
        """The pairs at these positions of the list."""
        picked = self.map(lambda tensor: tensor.index_select(0, positions))
        return replace(picked, width=width)

    def keep(self, mask: Bool[Tensor, " N"]) -> Pairs:
        """The pairs that ``mask`` marks; the list gets shorter only where looking is free."""
        if may_look(mask):
            return self.at(mask.nonzero().squeeze(1))
        return replace(self, real=self.real & mask)

    def join(self, other: Pairs) -> Pairs:
        """Both lists, one after the other."""
        mine, theirs = vars(self), vars(other)
        joined = {name: torch.cat([mine[name], theirs[name]]) for name in ("image", "object", "prior", "real")}
        return Pairs(**joined, width=self.width if self.width == other.width else None)


def pairs_inside(
    priors: Priors,
    regions: Float[Tensor, "B G 4"] | Float[Tensor, "B G L 4"],
    wanted: Bool[Tensor, "B G"],
    margin: float = 0.0,
    most: int | None = None,
) -> Iterator[Pairs]:
    """The valid priors whose center lies in an object's region, by more than ``margin`` pixels, in bounded lists.

    Each list holds a contiguous range of the objects of all images; usually there is one. ``regions`` may differ from
    level to level. ``most`` promises that no region is wider or higher than so many cells, which bounds padded lists.
    An object without such a prior has no entry (or none that is real).
    """
    if regions.ndim == 3:
        regions = regions.unsqueeze(2).expand(-1, -1, len(priors.counts), -1)
    if priors.grids is not None and may_look(wanted):
        every = bool(priors.valid.all())
        for pairs in _rectangles(priors, priors.grids, regions, wanted, margin):
            yield pairs if every else pairs.keep(pairs.of_prior(priors.valid))
        return
    if priors.grids is not None and most is not None:
        lists = iter([_windows(priors.grids, regions, wanted, most)])
    else:
        lists = _everything(priors, wanted)
    for pairs in lists:
        level = priors.level.index_select(0, pairs.prior)
        home = pairs.image * regions.shape[1] + pairs.object
        region = regions.reshape(-1, 4).index_select(0, home * regions.shape[2] + level)
        inside = contains(region, pairs.of_prior(priors.centers), margin)
        yield pairs.keep(inside & pairs.of_prior(priors.valid))


def squares(priors: Priors, truth: GroundTruth, radius: float) -> Float[Tensor, "B G L 4"]:
    """The square about each object's center that reaches ``radius`` strides of each level to every side."""
    starts = [sum(priors.counts[:level]) for level in range(len(priors.counts))]
    reach = (radius * torch.stack([priors.stride[start] for start in starts])).unsqueeze(-1)
    middle = centers(truth.boxes).unsqueeze(2)
    return torch.cat([middle - reach, middle + reach], dim=-1)


def leading(pairs: Pairs, cost: Float[Tensor, " N"], k: int) -> tuple[Pairs, Int[Tensor, " M"]]:
    """The ``k`` cheapest pairs of each object, fewer where it has fewer, and where they stand in the list.

    On equal costs the earlier prior comes first where looking is free; elsewhere the device decides. Pairs of infinite
    cost are passed over.
    """
    cost = torch.where(pairs.real, cost, torch.inf)
    if pairs.width is not None and pairs.width > 0:
        kept, order = cost.view(-1, pairs.width).topk(min(k, pairs.width), largest=False)
        start = torch.arange(0, len(cost), pairs.width, device=cost.device).unsqueeze(-1)
        positions = (order + start).flatten()
        best = pairs.at(positions, width=kept.shape[1])
        return replace(best, real=best.real & kept.flatten().isfinite()), positions
    order, rank = _ranked(pairs, cost)
    chosen = (rank < k) & cost.index_select(0, order).isfinite()
    if may_look(chosen):
        order = order[chosen]
        return pairs.at(order), order
    return replace(pairs.at(order), real=chosen), order


def ranks(pairs: Pairs, cost: Float[Tensor, " N"]) -> Int[Tensor, " N"]:
    """How many pairs of the same object, in any order, are cheaper, or as cheap and earlier; padding comes last."""
    order, rank = _ranked(pairs, torch.where(pairs.real, cost, torch.inf))
    return torch.empty_like(rank).scatter_(0, order, rank)


def settle(
    pairs: Pairs, merit: Float[Tensor, " N"], batch: int, priors: int
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """Which priors are in a pair, and the object of the pair of most merit; on a tie the object listed first."""
    return settle_parts([(pairs, merit)], batch, priors)


def settle_parts(
    parts: Iterable[tuple[Pairs, Tensor]], batch: int, priors: int
) -> tuple[Bool[Tensor, "B P"], Int[Tensor, "B P"]]:
    """The same for pairs in several lists, of ascending objects; two scatters each, and no prior-by-object matrix."""
    best, index = None, None
    nobody = torch.iinfo(torch.long).max
    for pairs, merit in parts:
        place = pairs.image * priors + pairs.prior
        merit = torch.where(pairs.real, merit, -torch.inf)
        none = merit.new_full((batch * priors,), -torch.inf)
        value = none.scatter_reduce(0, place, merit, "amax")
        claim = torch.where(pairs.real & (merit == value.index_select(0, place)), pairs.object, nobody)
        claimant = torch.full_like(none, nobody, dtype=torch.long).scatter_reduce(0, place, claim, "amin")
        if best is None or index is None:
            best, index = value, claimant
        else:
            better = (value > best) | (index == nobody)
            best, index = torch.where(better, value, best), torch.where(better, claimant, index)
    if index is None:
        raise ValueError("there is no list of pairs to settle")
    taken = (index < nobody).view(batch, priors)
    return taken, torch.where(taken, index.view(batch, priors), 0)


def compact(mask: Bool[Tensor, "B P"]) -> tuple[Int[Tensor, "B n"], Bool[Tensor, "B n"]]:
    """The marked columns of every row moved to the front, as wide as the fullest row, and which entries exist.

    Where looking is not free nothing moves: all columns, and the mask itself.
    """
    batch, columns = mask.shape
    if not may_look(mask):
        return torch.arange(columns, device=mask.device).expand(batch, -1), mask
    row, column = mask.nonzero(as_tuple=True)
    count = mask.sum(1)
    most = int(count.max()) if batch else 0
    first = count.cumsum(0) - count
    slot = torch.arange(len(row), device=mask.device) - first[row]
    index = torch.zeros(batch, most, dtype=torch.long, device=mask.device)
    index[row, slot] = column
    return index, torch.arange(most, device=mask.device) < count.unsqueeze(1)


def _ranked(pairs: Pairs, cost: Float[Tensor, " N"]) -> tuple[Int[Tensor, " N"], Int[Tensor, " N"]]:
    """The order by object, then by cost, and the rank of each pair *in that order* within its object.

    One sort of integers, much faster on a processor than sorting floats twice: the bits of a float order like an
    integer once those of negative numbers, sign apart, are turned over.
    """
    bits = (cost + 0.0).view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    home = pairs.image * (1 << 20) + pairs.object
    order = ((home << 32) + ordered.long()).argsort(stable=True)
    home = home.index_select(0, order)
    spot = torch.arange(len(home), device=home.device)
    begins = torch.cat([torch.ones_like(home[:1], dtype=torch.bool), home[1:] != home[:-1]])
    return order, spot - torch.where(begins, spot, 0).cummax(0).values


def _rectangles(
    priors: Priors,
    grids: tuple[Grid, ...],
    regions: Float[Tensor, "B G L 4"],
    wanted: Bool[Tensor, "B G"],
    margin: float,
) -> Iterator[Pairs]:
    """Enumerate the cells inside, object slice by object slice: each row of a rectangle is a run of priors."""
    first, extent = _inside(priors, grids, regions, wanted, margin)
    wide, each, base = torch.tensor([(g.width, g.each, g.height * g.width * g.each) for g in grids]).unbind(-1)
    base = base.cumsum(0) - base
    corner = base + (first[..., 1] * wide + first[..., 0]) * each
    for part in _balanced((extent.prod(-1) * each).sum((0, 2))):
        heights = extent[:, part, :, 1].flatten()
        block = torch.repeat_interleave(heights)
        down = torch.arange(len(block)) - (heights.cumsum(0) - heights).index_select(0, block)
        level = block % len(grids)
        lengths = extent[:, part, :, 0].flatten().index_select(0, block) * each[level]
        begin = corner[:, part].flatten().index_select(0, block) + down * (wide * each)[level]

        run = torch.repeat_interleave(lengths)
        spot = torch.arange(len(run))
        prior = (begin - (lengths.cumsum(0) - lengths)).index_select(0, run).add_(spot)
        home, width = block // len(grids), part.stop - part.start
        image = home // width
        number = (home - image * width + part.start).index_select(0, run)
        yield Pairs(image.index_select(0, run), number, prior, torch.ones_like(prior, dtype=torch.bool))


def _inside(
    priors: Priors,
    grids: tuple[Grid, ...],
    regions: Float[Tensor, "B G L 4"],
    wanted: Bool[Tensor, "B G"],
    margin: float,
) -> tuple[Int[Tensor, "B G L 2"], Int[Tensor, "B G L 2"]]:
    """First column and row inside each region, and how many columns and rows there are.

    Exactly those whose center passes the test: it is put to the columns and rows at the borders, which are found but
    for rounding. The center of a location is that of its first prior.
    """
    firsts, extents, start = [], [], 0
    for level, grid in enumerate(grids):
        cells = slice(start, start + grid.height * grid.width * grid.each)
        center = priors.centers[:, cells].unflatten(1, (grid.height, grid.width, grid.each))[..., 0, :]
        for axis, line in enumerate((center[:, 0, :, 0], center[:, :, 0, 1])):
            line = line.expand(len(wanted), -1)
            low, high = regions[:, :, level, axis], regions[:, :, level, axis + 2]
            begin = ((low + margin) / grid.stride - grid.offset - _SLACK).ceil().clamp(0, line.shape[1] - 1).long()
            end = ((high - margin) / grid.stride - grid.offset + _SLACK).floor().clamp(0, line.shape[1] - 1).long()
            begin = begin + (line.gather(1, begin) - low > margin).logical_not()
            end = end - (high - line.gather(1, end) > margin).logical_not().long()
            firsts.append(begin)
            extents.append((end + 1 - begin).clamp(min=0))
        start = cells.stop
    shape = (len(grids), 2)
    extent = torch.stack(extents, dim=2).unflatten(2, shape) * wanted[..., None, None]
    return torch.stack(firsts, dim=2).unflatten(2, shape), extent * (extent.amin(-1, keepdim=True) > 0)


def _windows(
    grids: tuple[Grid, ...], regions: Float[Tensor, "B G L 4"], wanted: Bool[Tensor, "B G"], most: int
) -> Pairs:
    """Enumerate ``most`` by ``most`` cells per object and level, wherever they are real."""
    start, extent = _cells(grids, regions, wanted)
    parts, reals, base = [], [], 0
    for number, grid in enumerate(grids):
        step = torch.arange(most, device=wanted.device)
        real = step < extent[:, :, number].unsqueeze(-1)
        column, row = (start[:, :, number].unsqueeze(-1) + torch.where(real, step, 0)).unbind(2)
        cell = row.unsqueeze(-1) * grid.width + column.unsqueeze(-2)
        prior = cell.unsqueeze(-1) * grid.each + torch.arange(grid.each, device=wanted.device)
        exists = (real[:, :, 1].unsqueeze(-1) & real[:, :, 0].unsqueeze(-2)).unsqueeze(-1).expand_as(prior)
        parts.append((prior.clamp(0, grid.height * grid.width * grid.each - 1) + base).flatten(2))
        reals.append(exists.flatten(2))
        base += grid.height * grid.width * grid.each
    return Pairs.table(torch.cat(parts, -1), torch.cat(reals, -1))


def _everything(priors: Priors, wanted: Bool[Tensor, "B G"]) -> Iterator[Pairs]:
    """Every prior with every object, object slice by object slice."""
    batch, objects = wanted.shape
    count = priors.boxes.shape[1]
    for part in object_slices(batch, count, objects):
        prior = torch.arange(count, device=wanted.device).expand(batch, part.stop - part.start, -1)
        yield Pairs.table(prior, wanted[:, part, None].expand_as(prior), part.start)


def _cells(
    grids: tuple[Grid, ...], regions: Float[Tensor, "B G L 4"], wanted: Bool[Tensor, "B G"]
) -> tuple[Int[Tensor, "B G L 2"], Int[Tensor, "B G L 2"]]:
    """First column and row of each rectangle of cells, and how many columns and rows it has; none where not wanted."""
    starts, extents = [], []
    for level, grid in enumerate(grids):
        # Python numbers, not tensors made of them: those would have to be sent to the device.
        cell = regions[:, :, level] / grid.stride - grid.offset
        size = (grid.width, grid.height)
        low = [(cell[..., axis] - _SLACK).ceil().clamp(0, size[axis]) for axis in (0, 1)]
        high = [(cell[..., axis + 2] + _SLACK).floor().clamp(-1, size[axis] - 1) for axis in (0, 1)]
        first = torch.stack(low, dim=-1).long()
        starts.append(first)
        extents.append((torch.stack(high, dim=-1).long() + 1 - first).clamp(min=0))
    return torch.stack(starts, dim=2), torch.stack(extents, dim=2) * wanted[..., None, None]


def _balanced(count: Int[Tensor, " G"]) -> Iterator[slice]:
    """Cut the objects into ranges of about :data:`LONGEST` pairs, at least one object each."""
    start, held = 0, 0
    for number, pairs in enumerate(count.tolist()):
        if held and held + pairs > LONGEST:
            yield slice(start, number)
            start, held = number, 0
        held += pairs
    yield slice(start, len(count))
