"""From what ``--data`` says to pictures."""

from __future__ import annotations

from pathlib import Path

from ladle.data import read
from ladle.data.scenes import split_scenes
from ladle.data.sources import CatalogueSource, Remembered, Source
from ladle.errors import UserError
from ladle.recipes.options import Run

__all__ = ["open_source"]

SCENES = "scenes"
"""``--data scenes`` are the built-in scenes, ``scenes:3000`` that many to train on."""
_TRAIN_SCENES, _VAL_SCENES, _MOST_SCENES = 800, 300, 1_000_000


def open_source(data: str, split: str, run: Run, imgsz: int) -> Source:
    """The pictures of one split of a folder, of a file, or of the built-in scenes."""
    name, _, count = data.partition(":")
    if name == SCENES and not Path(data).exists():
        if count and not (count.isascii() and count.isdecimal() and 0 < int(count[:10]) <= _MOST_SCENES):
            raise UserError(f"--data {data}: expected scenes, or scenes:N with N from 1 to {_MOST_SCENES} for training")
        if split not in ("train", "val"):
            raise UserError(f"--split {split}: the built-in scenes have the splits train and val")
        train, val = split_scenes(int(count or _TRAIN_SCENES), _VAL_SCENES)
        return Remembered(train if split == "train" else val)
    return CatalogueSource(read(data, split, run.on_defect), cache=2 * imgsz if run.cache else 0)
