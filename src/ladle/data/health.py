"""A check-up of a data set before anything is trained on it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Num

from ladle.data.catalogue import Catalogue, Defect
from ladle.data.reading import Format, detect_format, read
from ladle.data.reading import splits as offered_splits
from ladle.errors import UserError

__all__ = ["Health", "Quantiles", "SplitHealth", "inspect"]

Quantiles = tuple[float, float, float, float, float]
"""Minimum, quarter, median, three quarters, maximum; all 0 where there is nothing to measure."""

_SMALL, _MEDIUM = 32.0**2, 96.0**2
"""COCO's borders between small, medium and large objects, square pixels."""
_SHOWN = 10


@dataclass(frozen=True)
class SplitHealth:
    """What one split holds. Crowd regions count in ``crowd`` alone; sides are square roots of areas, in pixels."""

    name: str
    pictures: int
    objects: int
    crowd: int
    empty: int
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    heights: Quantiles
    widths: Quantiles
    sides: Quantiles
    per_picture: Quantiles
    small: int
    medium: int
    large: int
    defects: tuple[Defect, ...]
    notes: tuple[str, ...]

    @property
    def absent(self) -> tuple[str, ...]:
        """The classes without an object in this split."""
        return tuple(name for name, count in zip(self.classes, self.counts, strict=True) if not count)


@dataclass(frozen=True)
class Health:
    """The findings about a data set: its splits, the files they ``shared`` by content, and what is ``fatal``.

    ``fatal`` holds one sentence for everything that would make training fail; empty means the data set is usable.
    """

    source: Path
    format: Format
    splits: tuple[SplitHealth, ...]
    shared: tuple[str, ...]
    fatal: tuple[str, ...]

    def render(self) -> str:
        """The report as plain text."""
        lines = [f"{self.source} ({self.format.upper()})"]
        for split in self.splits:
            lines += ["", *_render_split(split)]
        lines += ["", f"shared between splits: {len(self.shared)} pictures", *_some(self.shared)]
        lines += [f"FATAL: {sentence}" for sentence in self.fatal] or ["no fatal defects"]
        return "\n".join(lines)


def inspect(data: Path | str, splits: Sequence[str] | None = None, decode: bool = True) -> Health:
    """Examine the given splits, or all, and report rather than raise whatever is wrong inside them.

    Every picture file is read whole to find copies; ``decode`` also decodes it to find damage. Raises UserError only
    where there is no data set to examine.
    """
    source = Path(data)
    fatal: list[str] = []
    catalogues: dict[str, Catalogue] = {}
    for name in splits if splits is not None else offered_splits(source):
        try:
            catalogues[name] = read(source, name, on_defect="skip", decode=decode)
        except UserError as error:
            fatal.append(f"{name}: {error}")
    examined = tuple(_examine(name, catalogue) for name, catalogue in catalogues.items())
    fatal += [f"{split.name}: {defect}" for split in examined for defect in split.defects if defect.fatal]
    fatal += [f"{split.name}: no objects to learn" for split in examined if not split.objects]
    fatal += _disagreements(catalogues)
    return Health(source, detect_format(source), examined, tuple(_shared(catalogues)), tuple(fatal))


def _examine(name: str, catalogue: Catalogue) -> SplitHealth:
    pictures = catalogue.pictures
    crowd = np.concatenate([picture.crowd for picture in pictures])
    labels = np.concatenate([picture.labels for picture in pictures])[~crowd]
    areas = np.concatenate([picture.areas for picture in pictures])[~crowd]
    loads = np.array([int((~picture.crowd).sum()) for picture in pictures])
    small, medium = int((areas < _SMALL).sum()), int(((areas >= _SMALL) & (areas < _MEDIUM)).sum())
    return SplitHealth(
        name=name,
        pictures=len(pictures),
        objects=len(labels),
        crowd=int(crowd.sum()),
        empty=int((loads == 0).sum()),
        classes=catalogue.classes,
        counts=tuple(np.bincount(labels, minlength=len(catalogue.classes)).tolist()),
        heights=_quantiles(np.array([picture.height for picture in pictures])),
        widths=_quantiles(np.array([picture.width for picture in pictures])),
        sides=_quantiles(np.sqrt(areas)),
        per_picture=_quantiles(loads),
        small=small,
        medium=medium,
        large=len(areas) - small - medium,
        defects=catalogue.defects,
        notes=catalogue.notes,
    )


def _quantiles(values: Num[np.ndarray, " n"]) -> Quantiles:
    if not len(values):
        return 0.0, 0.0, 0.0, 0.0, 0.0
    low, quarter, median, three_quarters, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
    return low, quarter, median, three_quarters, high


def _disagreements(catalogues: dict[str, Catalogue]) -> list[str]:
    return [
        f"{first} and {second}: expected the same classes, found {list(a.classes)} and {list(b.classes)}"
        for (first, a), (second, b) in combinations(catalogues.items(), 2)
        if (a.classes, a.category_ids) != (b.classes, b.category_ids)
    ]


def _shared(catalogues: dict[str, Catalogue]) -> Iterator[str]:
    """Name the pictures that several splits hold, by content."""
    copies: dict[bytes, dict[str, str]] = defaultdict(dict)
    digests: dict[Path, bytes] = {}
    for name, catalogue in catalogues.items():
        for picture in catalogue.pictures:
            if picture.file not in digests:
                digests[picture.file] = _digest(picture.file)
            copies[digests[picture.file]].setdefault(name, f"{name}/{picture.file.name}")
    yield from (" = ".join(places.values()) for places in copies.values() if len(places) > 1)


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()


def _render_split(split: SplitHealth) -> list[str]:
    lines = [
        f"{split.name}: {split.pictures} pictures, {split.empty} of them without objects, {split.objects} objects"
        + (f", {split.crowd} ignored regions" if split.crowd else ""),
        f"  height   {_spread(split.heights)}",
        f"  width    {_spread(split.widths)}",
        f"  objects  {_spread(split.per_picture)} a picture",
        f"  side     {_spread(split.sides)}; {split.small} small, {split.medium} medium, {split.large} large",
    ]
    pad = max(map(len, split.classes))
    ranked = sorted(zip(split.counts, split.classes, strict=True), key=lambda pair: -pair[0])
    lines += [f"  {name:{pad}}  {count}" for count, name in ranked]
    lines += [f"  no object of: {', '.join(map(repr, split.absent))}"] if split.absent else []
    lines += [f"  note: {note}" for note in split.notes]
    kinds: Counter[str] = Counter()
    for defect in split.defects:
        kinds[defect.what] += defect.count
    lines += [f"  {count} × {what}" for what, count in kinds.items()]
    return lines + _some([str(defect) for defect in split.defects])


def _spread(quantiles: Quantiles) -> str:
    low, quarter, median, three_quarters, high = (f"{value:.0f}" for value in quantiles)
    return f"{median} (half in {quarter}-{three_quarters}, all in {low}-{high})"


def _some(lines: Sequence[str]) -> list[str]:
    more = [f"    … and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [f"    {line}" for line in lines[:_SHOWN]] + more
