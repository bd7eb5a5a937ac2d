"""Images with their assignments, the most telling ones first, as pages of HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from jaxtyping import UInt8
from torch import Tensor

from ladle.recipes.assigning import Assigned
from ladle.types import Assignment, GroundTruth, Priors
from ladle.visual import assignment_jpeg
from ladle.visual.html import Html, figure, heading, links, paragraph, section, table, write_page

__all__ = ["Gallery", "Kept", "cut_out"]

_ON_A_PAGE = 20
_ALONE, _BESIDE = 150, 110
"""Dots per inch of a drawing of one panel and of several: as wide as a page can show."""


class Kept(NamedTuple):
    """One image, its objects, the priors and the assignments, each a batch of one, and what is written about it."""

    title: str
    caption: str
    rows: list[dict[str, object]]
    image: UInt8[Tensor, "3 H W"]
    truth: GroundTruth
    priors: Priors
    plans: dict[str, Assignment]


@dataclass
class Gallery:
    """Keeps the ``most`` images of least rank, so that the memory does not grow with the data set."""

    most: int
    seen: int = 0
    _kept: list[tuple[tuple[float, ...], int, Kept]] = field(default_factory=list)

    def wants(self, rank: tuple[float, ...]) -> bool:
        """Whether an image of this rank is kept, and counts it as seen."""
        self.seen += 1
        return len(self._kept) < self.most or (rank, self.seen) < self._kept[-1][:2]

    def keep(self, rank: tuple[float, ...], image: Kept) -> None:
        """Keep an image, and let go the one of greatest rank where there are too many; of equals the first stays."""
        self._kept.append((rank, self.seen, image))
        self._kept.sort(key=lambda one: one[:2])
        del self._kept[self.most :]

    @property
    def images(self) -> list[Kept]:
        """The images that are kept, in the order of their ranks."""
        return [one for _, _, one in self._kept]

    def __len__(self) -> int:
        return len(self._kept)

    def write(self, folder: Path, stem: str, title: str, lines: Sequence[str], head: Sequence[Html] = ()) -> list[Path]:
        """Write the pages: ``stem.html``, ``stem-2.html`` and so on; earlier pages of this name are removed."""
        for old in folder.glob(f"{stem}*.html"):
            if re.fullmatch(rf"{re.escape(stem)}(-\d+)?", old.stem):
                old.unlink()
        images = self.images
        parts = [images[start : start + _ON_A_PAGE] for start in range(0, max(len(images), 1), _ON_A_PAGE)]
        starts = [number * _ON_A_PAGE for number in range(len(parts))]
        ends = [start + len(part) for start, part in zip(starts, parts, strict=True)]
        titles = [
            f"{start + 1} to {end}" if end > start + 1 else f"{end}" for start, end in zip(starts, ends, strict=True)
        ]
        files = {title: f"{stem}{f'-{number}' if number > 1 else ''}.html" for number, title in enumerate(titles, 1)}
        pages: list[Path] = []
        for (here, file), part in zip(files.items(), parts, strict=True):
            opening = [*map(paragraph, lines), *head] if not pages else []
            menu = links(files, here)
            pages.append(write_page(folder / file, title, [*opening, menu, *map(_shown, part), menu]))
        return pages


def cut_out(
    found: Assigned, row: int, titles: Sequence[str], title: str, caption: str, rows: list[dict[str, object]]
) -> Kept:
    """One image of a batch, without the padding, and what belongs to it."""
    height, width = found.batch.sizes[row].tolist()
    one = slice(row, row + 1)
    priors = found.priors
    shared = replace(
        priors,
        boxes=priors.boxes[one] if len(priors.boxes) > 1 else priors.boxes,
        valid=priors.valid[one] if len(priors.valid) > 1 else priors.valid,
    )
    real = found.batch.truth.valid[row].nonzero().flatten()
    plans = [plan.map(lambda values: values[one].clone()) for plan in found.plans]
    return Kept(
        title,
        caption,
        rows,
        found.batch.images[row, :, :height, :width].cpu().clone(),
        found.batch.truth.map(lambda values: values[one, : int(real.max()) + 1 if len(real) else 0].clone()).to("cpu"),
        shared.to("cpu"),
        {name: plan.to("cpu") for name, plan in zip(titles, plans, strict=True)},
    )


def _shown(image: Kept) -> Html:
    dpi = _ALONE if len(image.plans) == 1 else _BESIDE
    drawn = assignment_jpeg(image.image, image.truth, image.priors, image.plans, dpi)
    alt = f"{image.title}: every prior that learns an object, as a dot in the color of the object"
    return section(heading(image.title), figure(drawn, alt, image.caption), table(image.rows))
