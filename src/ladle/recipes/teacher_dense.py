"""Record the dense predictions of a teacher for every training image, so that it need not be in memory in training."""

from __future__ import annotations

import math
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ladle.data.depth import ALL_VALUES
from ladle.data.loader import make_loader, padded_side
from ladle.data.sources import DatasetSource, Source, Subset
from ladle.detectors import Detector, DetectorSpec, load_detector
from ladle.errors import UserError
from ladle.files import remove_partials
from ladle.recipes.console import say
from ladle.recipes.contents import contents_of
from ladle.recipes.options import OnDefect, Run
from ladle.recipes.origins import teacher_hash
from ladle.recipes.preflight import check_strength
from ladle.recipes.sources import supply
from ladle.teachers import DenseHeader, Foreign, ForeignTeacher, TeacherURI, open_teacher
from ladle.teachers.dense_file import MAP, read_header, recorded_files, write_header, write_images
from ladle.teachers.detections import identity_frame
from ladle.types import Batch, Grid

__all__ = ["How", "record_dense"]

_FILE_BYTES = 2**28
"""About the size of one file, and so the memory that recording takes beside the teacher."""
_MOST_IMAGES = 1024
"""The largest number of images of a file."""


class How(NamedTuple):
    """How images are read and fed."""

    imgsz: int
    batch: int
    workers: int
    device: str
    on_defect: OnDefect = "repair"

    def batches(self, source: Source, images: range) -> Iterator[Batch]:
        """Some of the images, each padded to the square of the largest size."""
        chosen = Subset(source, list(images))
        return iter(make_loader(chosen, self.batch, self.imgsz, workers=self.workers, square=True))


class _Dense(NamedTuple):
    """A teacher with dense predictions: its name and classes, itself for its AP, and what it gives for a batch."""

    name: str
    classes: tuple[str, ...]
    spec: DetectorSpec | None
    teacher: Detector | ForeignTeacher
    predict: Callable[[Batch], tuple[dict[str, Tensor], tuple[Grid, ...]]]


def record_dense(uri: TeacherURI, data: str, out: str | None, how: How, features: bool) -> Path:
    """Record the dense predictions of a teacher for the training images; what is there already is kept.

    Raises:
        UserError: for a teacher without dense predictions, a folder with another recording, and too small a disk.
    """
    train, val, _, _ = supply(data, Run(on_defect=how.on_defect), how.imgsz)
    dense = _opened(uri, train, how.device, features)
    folder = Path(out if out is not None else f"{Path(dense.name).stem}.ladle")
    header = _header(uri, train, dense, how)
    begun = _begun(folder, header)
    missing = sorted(set(range(header.files)) - begun)
    images, whole = sum(len(header.images_of(number)) for number in missing), header.images * header.image_bytes
    say(
        f"{dense.name}: {images} of {header.images} images to record into {folder}, {_size(header.image_bytes)} each, "
        f"{_size(whole)} together"
    )
    _check_room(folder, images * header.image_bytes)
    if not begun:
        ap = check_strength(uri.text, dense.teacher, val, how.imgsz, how.batch, how.device, True)
        write_header(folder, replace(header, ap=None if math.isnan(ap) else ap), dense.spec)
    for number in missing:
        _record(folder, header, number, train, dense, how)
    given = shlex.quote(str(folder))
    say(f"{folder}: complete; train with --teacher {given} --imgsz {how.imgsz} --flip 0 --jitter 0 --crop 0")
    return folder


def _opened(uri: TeacherURI, source: Source, device: str, features: bool) -> _Dense:
    if uri.kind == "ladle":
        detector = load_detector(uri.path).requires_grad_(False).eval().to(device)
        spec = detector.spec
        if spec.regions:
            raise uri.fail(
                f"{spec.name} works in two stages, its predictions lie at proposals and not at fixed places; leave out "
                "--dense to record its final boxes"
            )
        return _Dense(spec.name, spec.classes, spec, detector, _of_ladle(detector, device, features))
    if features:
        raise uri.fail("it gives no feature maps; leave out --features")
    teacher = open_teacher(uri.text, source.classes, source.category_ids)
    teacher.to(device)
    made = teacher.detector
    return _Dense(made.name, made.classes, None, teacher, _of_foreign(made, uri, device))


def _of_ladle(
    detector: Detector, device: str, features: bool
) -> Callable[[Batch], tuple[dict[str, Tensor], tuple[Grid, ...]]]:
    @torch.no_grad()
    def predict(batch: Batch) -> tuple[dict[str, Tensor], tuple[Grid, ...]]:
        batch = batch.to(device)
        maps, (stage,) = detector.extract_features(batch.images), detector.chain
        priors = stage.propose(maps, None, None, batch.sizes)
        made, _ = stage(maps, priors, None)
        assert priors.grids is not None
        found = {"boxes": made.boxes, "logits": made.logits, "frame": identity_frame(made.boxes)}
        found |= _given(quality=made.quality, edges=made.edges, center_prior=made.center_prior)
        found |= {f"{MAP}{number}": one for number, one in enumerate(maps if features else ())}
        return found, priors.grids

    return predict


def _of_foreign(
    detector: Foreign, uri: TeacherURI, device: str
) -> Callable[[Batch], tuple[dict[str, Tensor], tuple[Grid, ...]]]:
    @torch.no_grad()
    def predict(batch: Batch) -> tuple[dict[str, Tensor], tuple[Grid, ...]]:
        made = detector.find(batch.to(device))
        if made.grids is None:
            raise uri.fail("it gives final boxes and no dense predictions; leave out --dense to record them")
        found = {"boxes": made.boxes, "logits": made.logits, "frame": made.frame}
        return found | _given(quality=made.quality, edges=made.edges), made.grids

    return predict


def _given(quality: Tensor | None, edges: Tensor | None, center_prior: Tensor | None = None) -> dict[str, Tensor]:
    every = {"quality": quality, "edges": edges, "center_prior": center_prior}
    return {name: one for name, one in every.items() if one is not None}


def _header(uri: TeacherURI, source: Source, dense: _Dense, how: How) -> DenseHeader:
    """What will be recorded; the shapes are those of the first image."""
    tensors, grids = dense.predict(next(how.batches(source, range(1))))
    shapes = {name: tuple(one.shape[1:]) for name, one in tensors.items()}
    image_bytes = sum(4 * torch.Size(shape).numel() for shape in shapes.values())
    return DenseHeader(
        teacher=uri.located(),
        sha256=teacher_hash(uri.text),
        name=dense.name,
        classes=tuple(dense.classes),
        imgsz=how.imgsz,
        side=padded_side(how.imgsz),
        values=source.value_range if isinstance(source, DatasetSource) else ALL_VALUES,
        data=contents_of(source).sha256,
        images=len(source),
        per_file=max(1, min(_MOST_IMAGES, _FILE_BYTES // image_bytes)),
        grids=tuple((one.height, one.width, float(one.stride), float(one.offset), one.each) for one in grids),
        shapes=shapes,
        ap=None,
    )


def _begun(folder: Path, header: DenseHeader) -> set[int]:
    """The numbers of the files that are recorded already."""
    if not folder.exists():
        return set()
    before, _ = read_header(folder)
    names = {
        "sha256": "another teacher",
        "teacher": "another teacher",
        "data": "other images",
        "imgsz": "another imgsz",
    }
    for name in ("sha256", "teacher", "data", "imgsz", "values", "shapes", "grids", "per_file"):
        if getattr(before, name) != getattr(header, name):
            mend = f"give --imgsz {before.imgsz} to go on, or name another" if name == "imgsz" else "name another"
            raise UserError(
                f"--out {folder}: it holds a recording of {names.get(name, f'other {name}')}, of {before.teacher} at "
                f"{before.imgsz} px; {mend}"
            )
    remove_partials(folder)
    return recorded_files(folder, header)


def _check_room(folder: Path, needed: int) -> None:
    place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise UserError(
            f"--out {folder}: {_size(needed)} are needed and {_size(free)} are free: name a folder "
            "on a larger disk, or give a smaller --imgsz"
        )


def _size(count: int) -> str:
    """A number of bytes in words."""
    unit = next(power for power in (3, 2, 1) if count >= 2 ** (10 * power) or power == 1)
    return f"{count / 2 ** (10 * unit):.{unit - 1}f} {('KiB', 'MiB', 'GiB')[unit - 1]}"


def _record(folder: Path, header: DenseHeader, number: int, source: Source, dense: _Dense, how: How) -> None:
    """Write one file."""
    ids: list[int | str] = []
    parts: dict[str, list[Tensor]] = {name: [] for name in header.shapes}
    for batch in how.batches(source, header.images_of(number)):
        found, _ = dense.predict(batch)
        if {name: tuple(one.shape[1:]) for name, one in found.items()} != header.shapes:
            raise UserError(f"--teacher {header.teacher}: it gives predictions of other shapes for other images")
        ids += batch.ids
        for name, one in found.items():
            parts[name].append(one.float().cpu())
    write_images(folder, number, ids, {name: torch.cat(each) for name, each in parts.items()})
