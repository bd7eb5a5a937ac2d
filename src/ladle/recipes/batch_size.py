"""``--batch auto``: how many images of a data set a device has memory for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from ladle.data.loader import padded_side
from ladle.data.sources import DatasetSource, Source
from ladle.data.transforms import Augmentation
from ladle.device import has_memory, release_memory
from ladle.errors import UserError
from ladle.recipes.devices import find_device
from ladle.recipes.jobs import Job
from ladle.recipes.options import USUAL_BATCH
from ladle.recipes.parts import Parts
from ladle.recipes.setup import Setup, build_objective
from ladle.teachers.detections import FINAL_MOST
from ladle.types import Batch, GroundTruth

__all__ = ["choose_batch", "crowded_batch"]

_MOST = 4096
_USUAL_OBJECTS = 100
"""Objects of an image in trial steps if the data set does not state how many there are."""
_MOSAIC = 4
"""Images in a mosaic."""


def choose_batch(job: Job, setup: Setup, parts: Parts, images: Source) -> tuple[int, str]:
    """The number of images per step and device of a run with ``--batch auto``, and the reason, as part of a sentence.

    Raises :class:`UserError` if the device has not enough memory for one image.
    """
    device = torch.device(find_device(job.run.device))
    if not has_memory(device):
        return USUAL_BATCH, "the usual number, because on a CPU memory is shared with all other programs"
    side = padded_side(max(job.run.scales(setup.imgsz) or (setup.imgsz,)))
    # What the teacher finds in images without labels is not known yet.
    found = FINAL_MOST if job.unlabelled is not None else 0
    objects = max(most_objects(images), found) * most_joined(job.run.augmentation)
    most = min(_MOST, max(1, len(images) // job.run.world))
    count = _largest(job, setup, parts, partial(crowded_batch, side, objects, len(images.classes)), most)
    release_memory(device)
    if not count:
        raise UserError(
            f"--batch auto: a step on one image of {side} pixels needs more memory than {device} has free: give a "
            "smaller --imgsz or --model"
        )
    if count >= 1 << (most.bit_length() - 1):
        return count, "as many as there are training images for"
    return count, f"found by steps on images of {side} x {side} pixels with {objects} objects, the most that can occur"


def _largest(job: Job, setup: Setup, parts: Parts, batch_of: Callable[[int], Batch], most: int) -> int:
    """The largest number of images that fits, 0 if there is none; everything that is made here can be freed then."""
    from ladle.engine.batch_size import largest_batch
    from ladle.engine.processes import one_process

    fabric = one_process(1, job.run.device)
    assert fabric is not None
    students = {name: spec.build() for name, spec in setup.specs.items()}
    objective = build_objective(job, setup, students, fabric.device, parts)
    return largest_batch(fabric, objective, batch_of, replace(job.settings(), weighed=setup.weighed), most)


def most_joined(augmentation: Augmentation) -> int:
    """How many images a view can be made of: those of a mosaic, and one that is mixed with it, which is no mosaic."""
    return (_MOSAIC if augmentation.mosaic else 1) + (1 if augmentation.mixup else 0)


def most_objects(images: Source) -> int:
    """The number of objects of the image that has most, if the data set states it."""
    if not isinstance(images, DatasetSource):
        return _USUAL_OBJECTS
    return max(1, *(len(image.labels) for image in images.dataset.images))


def crowded_batch(side: int, objects: int, classes: int, count: int) -> Batch:
    """A batch that needs the most memory: square images, each with as many objects as can occur."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    corners = torch.rand(objects, 2, generator=generator) * side * 0.7
    boxes = torch.cat([corners, corners + side * 0.25], dim=1)
    labels = torch.arange(objects) % classes
    sizes = torch.full((count, 2), side)
    return Batch(
        images=images,
        truth=GroundTruth.pad([boxes] * count, [labels] * count, multiple=16),
        sizes=sizes,
        originals=sizes,
        ids=tuple(range(count)),
    )
