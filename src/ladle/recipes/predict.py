"""Find objects in pictures."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from pathlib import Path

import torch

from ladle.data import load_picture
from ladle.data.loader import collate
from ladle.data.pictures import SUFFIXES
from ladle.data.samples import Sample
from ladle.data.transforms import Resize
from ladle.detectors import Detector, load_detector
from ladle.errors import UserError
from ladle.evaluation import coco_results
from ladle.recipes.console import say
from ladle.types import Detections
from ladle.visual import draw_detections

__all__ = ["predict"]


def predict(
    source: str,
    model: str,
    score: float = 0.3,
    imgsz: int | None = None,
    batch: int = 8,
    device: str = "auto",
    out: str = "runs/predict",
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
    """
    files = list(_pictures(source))
    detector = load_detector(model).eval()
    where = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    detector.to(where)
    side = imgsz or detector.spec.imgsz

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[Path, Detections] = {}
    for start in range(0, len(files), batch):
        found |= _find(detector, files[start : start + batch], side, where)
    for file, name in zip(files, _names(files), strict=True):
        confident = found[file].map(lambda values, keep=found[file].scores >= score: values[keep])
        draw_detections(load_picture(file), confident, detector.spec.classes, folder / f"{name}.png")

    numbered = dict(enumerate(files, start=1))
    results = coco_results({n: found[file] for n, file in numbered.items()}, detector.spec.category_ids)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    images = [{"id": n, "file_name": str(file)} for n, file in numbered.items()]
    (folder / "images.json").write_text(json.dumps(images, ensure_ascii=False), encoding="utf-8")
    drawn = sum(int((one.scores >= score).sum()) for one in found.values())
    say(f"{drawn} objects of score {score} or more in {len(files)} pictures, drawn into {folder}")
    return found


def _find(detector: Detector, files: list[Path], side: int, device: str) -> dict[Path, Detections]:
    nothing = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool)
    samples = []
    for file in files:
        image = load_picture(file)
        sample = Sample(image, *nothing, id=str(file), original=(image.shape[1], image.shape[2]))
        samples.append(Resize(side)(sample, torch.Generator()))
    batch = collate(samples).to(device)
    return {file: one.to("cpu") for file, one in zip(files, detector.detect(batch), strict=True)}


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


def _names(files: list[Path]) -> list[str]:
    """A distinct name for each drawn picture: its stem, numbered where several share it."""
    seen: dict[str, int] = {}
    names = []
    for file in files:
        seen[file.stem] = seen.get(file.stem, 0) + 1
        names.append(file.stem if seen[file.stem] == 1 else f"{file.stem}-{seen[file.stem]}")
    return names
