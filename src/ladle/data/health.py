"""A report on a data set before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Num

from ladle.data.copies import shared
from ladle.data.dataset import Defect, DetectionDataset
from ladle.data.decoding import values_of
from ladle.data.fitness import differences, notes, obstacles, range_of
from ladle.data.reading import Format, detect_format, meant, read
from ladle.data.reading import splits as offered_splits
from ladle.data.repairs import Progress, silent
from ladle.errors import UserError

__all__ = ["Health", "Quantiles", "SplitHealth", "inspect"]

Quantiles = tuple[float, float, float, float, float]
"""Minimum, first quartile, median, third quartile, maximum; all 0 without values."""

_SMALL, _MEDIUM = 32.0**2, 96.0**2
"""COCO's limits between small, medium and large objects, in square pixels."""
_SHOWN = 10


@dataclass(frozen=True)
class SplitHealth:
    """Statistics of one split. Crowd regions count in ``crowd`` only; sides are square roots of areas, in pixels."""

    name: str
    images: int
    objects: int
    crowd: int
    empty: int
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    heights: Quantiles
    widths: Quantiles
    sides: Quantiles
    per_image: Quantiles
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
    """The findings about a data set.

    Attributes:
        source: the folder or file of the data set.
        format: its format.
        splits: the statistics of each split.
        shared: images with the same content in several splits.
        fatal: one sentence for each finding that prevents training; empty if the data can be used.
        aside: the same for splits that training does not read.
        notes: remarks about all splits together.
    """

    source: Path
    format: Format
    splits: tuple[SplitHealth, ...]
    shared: tuple[str, ...]
    fatal: tuple[str, ...]
    aside: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def render(self) -> str:
        """The report as plain text."""
        lines = [f"{self.source} ({self.format.upper()})"]
        for split in self.splits:
            lines += ["", *_render_split(split)]
        lines += ["", f"shared between splits: {len(self.shared)} images", *_some(self.shared)]
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"not read by training: {sentence}" for sentence in self.aside]
        lines += [f"FATAL: {sentence}" for sentence in self.fatal] or ["no fatal defects"]
        return "\n".join(lines)


def inspect(
    data: Path | str,
    splits: Sequence[str] | None = None,
    decode: bool = True,
    imgsz: int = 640,
    progress: Progress = silent,
) -> Health:
    """Examine all splits of a data set, or the given ones; defects are reported and not raised.

    Args:
        data: the folder or file of the data set.
        splits: the splits to examine, the first of which is trained on. By default all splits are examined, and
            ``train`` and ``val``, or the splits used instead of them, are those that training reads.
        decode: whether every image is decoded, to find damaged ones and the range of 16-bit values.
        imgsz: image size of the training, in pixels.
        progress: called for every image with what is done, the number of images so far, and that of all images.

    Raises:
        UserError: only if there is no data set.
    """
    kind, source = detect_format(data), Path(data)
    fatal: list[str] = []
    aside: list[str] = []
    roles = _roles(source, fatal) if splits is None else {name: [] for name in splits}
    datasets, unread = _read_all(source, splits if splits is not None else offered_splits(source), decode, progress)
    for name, sentence in unread.items():
        (fatal if name in roles else aside).append(f"{name}: {sentence}")
    trained = {name: datasets[name] for name in roles if name in datasets}
    others = {name: dataset for name, dataset in datasets.items() if name not in trained}
    fatal += [*_refused(trained), *obstacles(trained, imgsz)]
    beside = obstacles({**dict([*trained.items()][:1]), **others}, imgsz)
    aside += [*_refused(others), *(sentence for sentence in beside if sentence not in fatal)]
    value_range, sentence_on_range = range_of(values_of([*trained.values()])) if decode else (None, "")
    return Health(
        source=source,
        format=kind,
        splits=tuple(
            _examine(name, one, (*roles.get(name, ()), *notes(one, imgsz, value_range)))
            for name, one in datasets.items()
        ),
        shared=tuple(" = ".join(f"{name}/{file.name}" for name, file in one.items()) for one in shared(datasets)),
        fatal=tuple(fatal),
        aside=tuple(aside),
        notes=(*differences(trained), *filter(None, [sentence_on_range])),
    )


def _read_all(
    source: Path, splits: Sequence[str], decode: bool, progress: Progress
) -> tuple[dict[str, DetectionDataset], dict[str, str]]:
    """The splits that can be read, and why the others cannot."""
    datasets: dict[str, DetectionDataset] = {}
    unread: dict[str, str] = {}
    for name in splits:
        try:
            datasets[name] = read(source, name, "skip", decode, _of_split(name, progress))
        except UserError as error:
            unread[name] = str(error)
    return datasets, unread


def _of_split(name: str, progress: Progress) -> Progress:
    return lambda what, done, of: progress(f"{name}: {what}", done, of)


def _roles(source: Path, fatal: list[str]) -> dict[str, list[str]]:
    """The splits that training reads, the training split first, each with notes on its choice."""
    roles: dict[str, list[str]] = {}
    for role in ("train", "val"):
        try:
            name, note = meant(source, role)
        except UserError as error:
            fatal.append(str(error))
        else:
            roles.setdefault(name, []).extend([note] if note else [])
    if len(roles) == 1 and not fatal:
        roles[next(iter(roles))].append("the same images train and validate")
    return roles


def _refused(splits: Mapping[str, DetectionDataset]) -> list[str]:
    return [f"{name}: {one}" for name, dataset in splits.items() for one in dataset.defects if one.fatal]


def _examine(name: str, dataset: DetectionDataset, remarks: tuple[str, ...]) -> SplitHealth:
    images = dataset.images
    crowd = np.concatenate([image.crowd for image in images])
    labels = np.concatenate([image.labels for image in images])[~crowd]
    areas = np.concatenate([image.areas for image in images])[~crowd]
    loads = np.array([int((~image.crowd).sum()) for image in images])
    small, medium = int((areas < _SMALL).sum()), int(((areas >= _SMALL) & (areas < _MEDIUM)).sum())
    return SplitHealth(
        name=name,
        images=len(images),
        objects=len(labels),
        crowd=int(crowd.sum()),
        empty=int((loads == 0).sum()),
        classes=dataset.classes,
        counts=tuple(np.bincount(labels, minlength=len(dataset.classes)).tolist()),
        heights=_quantiles(np.array([image.height for image in images])),
        widths=_quantiles(np.array([image.width for image in images])),
        sides=_quantiles(np.sqrt(areas)),
        per_image=_quantiles(loads),
        small=small,
        medium=medium,
        large=len(areas) - small - medium,
        defects=dataset.defects,
        notes=remarks,
    )


def _quantiles(values: Num[np.ndarray, " n"]) -> Quantiles:
    if not len(values):
        return 0.0, 0.0, 0.0, 0.0, 0.0
    low, quarter, median, three_quarters, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1)).tolist()
    return low, quarter, median, three_quarters, high


def _render_split(split: SplitHealth) -> list[str]:
    lines = [
        f"{split.name}: {split.images} pictures, {split.empty} of them without objects, {split.objects} objects"
        + (f", {split.crowd} ignored regions" if split.crowd else ""),
        f"  height   {_spread(split.heights)}",
        f"  width    {_spread(split.widths)}",
        f"  objects  {_spread(split.per_image)} an image",
        f"  side     {_spread(split.sides)}; {split.small} small, {split.medium} medium, {split.large} large",
    ]
    pad = max(map(len, split.classes), default=0)
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
