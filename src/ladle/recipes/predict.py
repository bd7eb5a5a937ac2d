"""Find objects in pictures."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from ladle.data import load_picture
from ladle.data.depth import ValueRange, parse_range, spelled
from ladle.data.loader import make_loader
from ladle.data.pictures import SUFFIXES
from ladle.data.samples import Sample
from ladle.detectors import load_detector
from ladle.errors import UserError
from ladle.evaluation import coco_results
from ladle.recipes.console import say
from ladle.recipes.devices import Device, find_device
from ladle.recipes.options import Batch, Share, Side
from ladle.recipes.sources import remarks_on_files
from ladle.types import Detections
from ladle.visual import draw_detections

__all__ = ["predict"]


def predict(
    source: str,
    model: str,
    score: Share = 0.3,
    imgsz: Side | None = None,
    batch: Batch = 8,
    device: Device = "auto",
    out: str = "runs/predict",
    value_range: str | None = None,
) -> dict[Path, Detections]:
    """Draw what a detector finds and write it as COCO results.

    Args:
        source: a picture, a folder of pictures, or a pattern such as ``'photos/*.jpg'``.
        model: weights saved by ladle.
        score: least score that is drawn; ``results.json`` holds everything found.
        imgsz: long side of the pictures; by default what the detector was trained at.
        batch: pictures at once.
        device: ``auto``, ``cpu`` or ``cuda``.
        out: folder for the drawn pictures, ``results.json`` and ``images.json``, which says which file each
            ``image_id`` is.
        value_range: values of 16-bit pictures that become black and white; by default what the detector was trained
            with.
    """
    files = list(_pictures(source))
    detector = load_detector(model).eval()
    where = find_device(device)
    detector.to(where)
    values = parse_range(value_range or spelled(detector.spec.value_range))
    for line in remarks_on_files(files, values):
        say(line)
    loader = make_loader(_Unlabelled(files, values), batch, detector.spec.imgsz if imgsz is None else imgsz)

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    seen = (one.to("cpu") for pictures in loader for one in detector.detect(pictures.to(where)))
    found = dict(zip(files, seen, strict=True))
    for file, name in zip(files, _names(files), strict=True):
        draw_detections(
            load_picture(file, value_range=values),
            _confident(found[file], score),
            detector.spec.classes,
            folder / f"{name}.png",
        )

    numbered = dict(enumerate(files, start=1))
    results = coco_results({n: found[file] for n, file in numbered.items()}, detector.spec.category_ids)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    images = [{"id": n, "file_name": str(file)} for n, file in numbered.items()]
    (folder / "images.json").write_text(json.dumps(images, ensure_ascii=False), encoding="utf-8")
    drawn = sum(int((one.scores >= score).sum()) for one in found.values())
    say(f"{drawn} objects of score {score} or more in {len(files)} pictures, drawn into {folder}")
    return found


class _Unlabelled:
    """Pictures of which nothing is known, as a source."""

    classes: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()

    def __init__(self, files: list[Path], value_range: ValueRange) -> None:
        self.files, self.value_range = files, value_range

    def __len__(self) -> int:
        return len(self.files)

    def sample(self, index: int) -> Sample:
        image = load_picture(self.files[index], value_range=self.value_range)
        nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool)
        return Sample(image, *nothing, id=index, original=(image.shape[1], image.shape[2]))


def _pictures(source: str) -> Iterator[Path]:
    """The files a source names, sorted; an error where it names none."""
    path = Path(source)
    if path.is_file():
        yield path
        return
    listed = path.rglob("*") if path.is_dir() else map(Path, glob.glob(source, recursive=True))  # noqa: PTH207
    files = sorted(file for file in listed if file.is_file() and file.suffix.lower() in SUFFIXES)
    if not files:
        raise UserError(f"{source}: expected a picture, a folder of pictures or a pattern, found no picture there")
    yield from files


def _confident(found: Detections, score: float) -> Detections:
    sure = found.scores >= score
    return found.map(lambda values: values[sure])


def _names(files: list[Path]) -> list[str]:
    """A distinct name for each drawn picture: its stem, numbered where several share it."""
    seen: dict[str, int] = {}
    names = []
    for file in files:
        seen[file.stem] = seen.get(file.stem, 0) + 1
        names.append(file.stem if seen[file.stem] == 1 else f"{file.stem}-{seen[file.stem]}")
    return names
