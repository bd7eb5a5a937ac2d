"""Runs whose teacher was recorded for fixed views: what would change the views is refused."""

from __future__ import annotations

from ladle.data.depth import spelled
from ladle.data.sources import DatasetSource, Source
from ladle.errors import UserError
from ladle.recipes.contents import contents_of
from ladle.recipes.jobs import Job
from ladle.recipes.parts import Parts
from ladle.teachers import DenseTeacher, parse_uri

__all__ = ["check_fixed_views", "has_fixed_views"]

_CHANGES = ("flip", "jitter", "crop", "mosaic", "mixup", "scale_jitter", "multiscale", "rotate", "shear")
"""The flags that change views at random; with 0 they do not."""


def has_fixed_views(parts: Parts) -> bool:
    """Whether the teacher is a recording of dense predictions."""
    return isinstance(parts.teacher, DenseTeacher) or (
        parts.foreign is not None and parse_uri(parts.foreign.text).kind == "dense"
    )


def check_fixed_views(job: Job, parts: Parts, images: Source, imgsz: int) -> None:
    """Raise :class:`UserError` unless a recording of dense predictions can be replayed exactly in a run."""
    found = parts.foreign() if parts.foreign is not None else parts.teacher
    if not isinstance(found, DenseTeacher):
        return
    header, text = found.header, f"--teacher {found.file.folder}"
    changing = [name for name in _CHANGES if getattr(job.run, name)]
    if changing:
        now = " ".join(f"--{name.replace('_', '-')} {getattr(job.run, name):g}" for name in changing)
        zero = " ".join(f"--{name.replace('_', '-')} 0" for name in changing)
        raise UserError(f"{text}: it was recorded for views that do not change, found {now}: give {zero}")
    if imgsz != header.imgsz:
        raise UserError(
            f"{text}: it was recorded at {header.imgsz} px, found {imgsz} px: give --imgsz {header.imgsz}, or record "
            "another"
        )
    if contents_of(images).sha256 != header.data:
        raise UserError(
            f"{text}: it was recorded for other training images; record these by "
            f"`{header.command('OTHER.ladle', job.data)}`"
        )
    if job.unlabelled is not None:
        raise UserError(f"{text}: nothing is recorded for the images of --unlabelled {job.unlabelled}: leave it out")
    if job.run.batch == "auto":
        raise UserError(f"{text}: --batch auto tries images that are not recorded: give a number, such as --batch 16")
    if isinstance(images, DatasetSource):
        _check_pixels(text, images, found)


def _check_pixels(text: str, images: DatasetSource, teacher: DenseTeacher) -> None:
    """Raise :class:`UserError` if the same files would be read otherwise."""
    header = teacher.header
    if images.value_range != header.values:
        raise UserError(
            f"{text}: it was recorded with --value-range {spelled(header.values)}, found "
            f"{spelled(images.value_range)}: give the former, or record another"
        )
    longest = max(max(one.height, one.width) for one in images.dataset.images)
    if images.cache and longest > images.cache:
        raise UserError(
            f"{text}: --cache keeps images of up to {images.cache} px, which changes those of up to {longest} px a "
            "little: leave --cache out"
        )
