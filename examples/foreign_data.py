"""A custom data set of Python objects: written as a COCO folder, checked, used for training.

It can also be used without files, as a source: any object with ``classes``, ``category_ids``, ``len`` and ``sample``
can be passed to ``make_loader``. Both are shown. Takes some twenty seconds on a CPU::

    python examples/foreign_data.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from ladle import Run, check, train
from ladle.data.loader import make_loader
from ladle.data.samples import Sample

CLASSES = ("tall", "wide")


@dataclass(frozen=True)
class Photo:
    """An image (height, width, 3) of bytes, and its objects as (class name, left, top, right, bottom) in pixels."""

    pixels: np.ndarray
    objects: tuple[tuple[str, int, int, int, int], ...]


@dataclass(frozen=True)
class Photos:
    """Photos as a source for ``make_loader``."""

    photos: Sequence[Photo]
    classes: tuple[str, ...] = CLASSES
    category_ids: tuple[int, ...] = (1, 2)

    def __len__(self) -> int:
        return len(self.photos)

    def sample(self, index: int) -> Sample:
        """One photo as tensors."""
        photo = self.photos[index]
        height, width, _ = photo.pixels.shape
        return Sample(
            image=torch.from_numpy(photo.pixels).permute(2, 0, 1),
            boxes=torch.tensor([box for _, *box in photo.objects]).float(),
            labels=torch.tensor([CLASSES.index(name) for name, *_ in photo.objects]),
            crowd=torch.zeros(len(photo.objects), dtype=torch.bool),
            id=index,
            original=(height, width),
        )


def take_photo(random: np.random.Generator) -> Photo:
    """Noise with one bright bar in it, tall or wide."""
    pixels = random.integers(0, 90, (64, 80, 3), dtype=np.uint8)
    name = CLASSES[random.integers(2)]
    width, height = (12, 36) if name == "tall" else (36, 12)
    left, top = int(random.integers(80 - width)), int(random.integers(64 - height))
    pixels[top : top + height, left : left + width] += 150
    return Photo(pixels, ((name, left, top, left + width, top + height),))


def write_coco(photos: Sequence[Photo], folder: Path, split: str) -> None:
    """Write images and ``annotations/instances_SPLIT.json``; COCO's boxes are left, top, width, height."""
    (folder / split).mkdir(parents=True)
    (folder / "annotations").mkdir(exist_ok=True)
    images, annotations = [], []
    for number, photo in enumerate(photos, start=1):
        height, width, _ = photo.pixels.shape
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        Image.fromarray(photo.pixels).save(folder / split / f"{number}.png")
        for name, left, top, right, bottom in photo.objects:
            box = [left, top, right - left, bottom - top]
            kind = {"category_id": CLASSES.index(name) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": number} | kind)
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(document), encoding="utf-8")


def main(epochs: int = 6, photos: int = 64) -> float:
    """Write, check and train; return the AP."""
    random = np.random.default_rng(0)
    parts = {
        "train": [take_photo(random) for _ in range(photos)],
        "val": [take_photo(random) for _ in range(photos // 4)],
    }
    batch = next(iter(make_loader(Photos(parts["train"]), batch=4, imgsz=64)))
    print(f"as a source: images {tuple(batch.images.shape)}, labels {batch.truth.labels.flatten().tolist()}")

    with TemporaryDirectory() as folder:
        data = Path(folder, "bars")
        for split, part in parts.items():
            write_coco(part, data, split)
        check(str(data))
        run = Run(
            epochs=epochs, imgsz=64, batch=8, warmup=5, device="cpu", quiet=True, project=str(Path(folder, "runs"))
        )
        trained = train(str(data), "fcos-tiny", run)
        print(f"as a COCO folder: AP {100 * trained.evaluation.ap:.1f} after {epochs} epochs")
        return trained.evaluation.ap


if __name__ == "__main__":
    main()
