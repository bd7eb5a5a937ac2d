"""Images together with boxes that a teacher predicted for them, which follow every view of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ladle.data.samples import Sample, stretched
from ladle.data.sources import Source
from ladle.types import GroundTruth

__all__ = ["WithPredictions", "predicted_of", "without_predictions"]


@dataclass(frozen=True)
class WithPredictions:
    """A source whose samples also carry predicted boxes.

    They are marked as crowd regions, which no augmentation looks at, and have the label ``-1 - row``, where ``row`` is
    the number of the prediction. So they are flipped, cropped, resized and put into mosaics exactly as the objects of
    the image are; a box that a crop cuts keeps the part inside. :func:`predicted_of` takes them out of the samples.

    Args:
        source: the images.
        boxes: all predicted boxes, in pixels of the files.
        rows: the first row and the row after the last of each image, by its id; images without predictions lack.
    """

    source: Source
    boxes: Float[Tensor, "R 4"]
    rows: Mapping[int | str, tuple[int, int]]

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels."""
        return tuple(self.source.classes)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The data set's own ids of the labels."""
        return tuple(self.source.category_ids)

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, index: int) -> Sample:
        """Sample ``index`` with its predicted boxes."""
        sample = self.source.sample(index)
        first, end = self.rows.get(sample.id, (0, 0))
        boxes = stretched(self.boxes[first:end], sample.original, sample.size)
        return replace(
            sample,
            boxes=torch.cat([sample.boxes, boxes]),
            labels=torch.cat([sample.labels, -1 - torch.arange(first, end)]),
            crowd=torch.cat([sample.crowd, torch.ones(end - first, dtype=torch.bool)]),
        )


def predicted_of(samples: Sequence[Sample], multiple: int = 1) -> GroundTruth | None:
    """The predicted boxes of samples, with the numbers of the predictions as labels; None if there are none."""
    kept = [sample.labels < 0 for sample in samples]
    if not any(bool(one.any()) for one in kept):
        return None
    each = list(zip(samples, kept, strict=True))
    boxes, rows = [one.boxes[rows] for one, rows in each], [-1 - one.labels[rows] for one, rows in each]
    return GroundTruth.pad(boxes, rows, multiple=multiple)


def without_predictions(sample: Sample) -> Sample:
    """A sample without its predicted boxes."""
    real = sample.labels >= 0
    if bool(real.all()):
        return sample
    return replace(sample, boxes=sample.boxes[real], labels=sample.labels[real], crowd=sample.crowd[real])
