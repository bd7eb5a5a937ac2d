"""Batches of images without objects."""

import torch

from ladle.types import Batch, GroundTruth


def batch_of(images, sizes=None):
    """A batch of images as they are, of ``sizes`` without their padding."""
    sizes = torch.tensor([list(images.shape[2:])] * len(images)) if sizes is None else torch.tensor(sizes)
    truth = GroundTruth.pad([torch.zeros(0, 4)] * len(images), [torch.zeros(0).long()] * len(images))
    return Batch(images, truth, sizes, sizes, tuple(range(len(images))))
