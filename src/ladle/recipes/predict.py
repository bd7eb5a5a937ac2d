"""Detect objects in images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ladle.data import load_image
from ladle.data.depth import ValueRange, parse_range
from ladle.data.loader import collate
from ladle.data.samples import Sample, unlabeled
from ladle.data.transforms import Resize
from ladle.detectors import Detector, load_detector
from ladle.errors import UserError
from ladle.files import path_as_text
from ladle.limits import verify_arguments
from ladle.recipes.console import say, warn
from ladle.recipes.devices import Device, find_device
from ladle.recipes.options import Batch, MaxDet, Share, Side
from ladle.recipes.outputs import about_labels, check_out
from ladle.recipes.predicted import Album
from ladle.recipes.scoring import detect
from ladle.recipes.searching import Search, find_images
from ladle.recipes.sources import remarks_on_files
from ladle.types import Batch as Images
from ladle.types import Detections

__all__ = ["Found", "predict"]


class Found(dict[Path, Detections]):
    """The detections of each image, by its file; ``damaged`` has the error message of each file that cannot be read."""

    def __init__(self, found: Mapping[Path, Detections], damaged: Mapping[Path, str]) -> None:
        super().__init__(found)
        self.damaged = dict(damaged)


def predict(
    source: str | Path | list[str | Path],
    model: str | Path,
    score: Share = 0.3,
    imgsz: Side | None = None,
    batch: Batch = 8,
    device: Device = "auto",
    out: str | Path | None = None,
    max_det: MaxDet | None = None,
    value_range: str | None = None,
) -> Found:
    """Draw detections and write them as COCO results.

    Args:
        source: an image, a folder of images, or a pattern such as ``'photos/*.jpg'``; or several of them.
        model: weights saved by ladle.
        score: least score that is drawn; ``results.json`` holds all detections.
        imgsz: long side of the images; by default that of training.
        batch: images per batch.
        device: ``auto``, ``cpu`` or ``cuda``.
        out: folder for the drawings, ``results.json`` and ``images.json``, which maps each ``image_id`` to its file and
            its drawing; by default ``runs/predict``, with a number if it exists.
        max_det: largest number of detections in an image; by default that of training, usually 100.
        value_range: values of 16-bit images that become black and white; by default those of training.
    """
    verify_arguments(predict, score=score, imgsz=imgsz, batch=batch, max_det=max_det)
    out = path_as_text(out)
    check_out(out)
    search = find_images(list(map(path_as_text, source if isinstance(source, list) else [source])))
    detector = load_detector(model).eval()
    if max_det is not None:
        detector.keep(max_det)
    where = find_device(device)
    detector.to(where)
    values = detector.spec.value_range if value_range is None else parse_range(value_range)
    for line in remarks_on_files(search.files, values):
        say(line)

    views = _Views(detector.spec.imgsz if imgsz is None else imgsz, values, alone=len(search.files) == 1)
    drawn = cut = 0
    with Album(out, search.files, detector.spec, score, values) as album:
        for files, images in views.batches(search.files, batch):
            found, more = detect(detector, images.to(where))
            drawn += sum(map(album.add, files, found))
            cut += more
    if not album.found:
        (first, *others) = views.damaged.values()
        raise UserError(f"none of the {len(others) + 1} files can be read" if others else first)
    # The words of this line stay: scripts read it.
    say(f"{drawn} objects of score {score} or more in {len(album.found)} pictures, drawn into {album.folder}")
    for line in _remarks(search, detector, cut):
        say(line)
    if views.damaged:
        warn(f"{len(views.damaged)} of {len(search.files)} files could not be read; the others are done")
    return Found(album.found, views.damaged)


class _Views:
    """Load images as network inputs; errors are stored in ``damaged`` and, unless ``alone``, printed."""

    def __init__(self, imgsz: int, values: ValueRange, alone: bool = False) -> None:
        self.damaged: dict[Path, str] = {}
        self._alone = alone
        self._values = values
        self._resize = Resize(imgsz)

    def batches(self, files: Sequence[Path], count: int) -> Iterator[tuple[list[Path], Images]]:
        """The files and the images of each batch of up to ``count``."""
        for start in range(0, len(files), count):
            views = {file: view for file in files[start : start + count] if (view := self._view(file)) is not None}
            if views:
                yield list(views), collate(list(views.values()))

    def _view(self, file: Path) -> Sample | None:
        try:
            image = load_image(file, value_range=self._values)
        except UserError as error:
            self.damaged[file] = str(error)
            if not self._alone:
                warn(str(error))
            return None
        return self._resize(unlabeled(image, str(file)))


def _remarks(search: Search, detector: Detector, cut: int) -> Iterator[str]:
    """Lines about skipped files, dropped detections and renamed classes."""
    most = detector.spec.inference.keep
    if cut:
        yield f"{cut} images gave more than {most} detections: the {most} with the highest scores are kept (--max-det)"
    if search.passed_over:
        such = search.passed_over[0]
        yield f"{len(search.passed_over)} files skipped, such as {such}: hidden, left by an archive, or pipes"
    if search.unread:
        such = search.unread[0]
        yield f"{len(search.unread)} files skipped, such as {such}: the format is not supported"
    yield from about_labels(detector.spec.classes)
