"""Random scenes with crowds, with padding of objects and with priors in the padding of images."""

from dataclasses import replace

import torch

from ladle.assigners import ATSS, FCOS, PAA, AutoAssign, DynamicSoftLabel, Hungarian, MaxIoU, TaskAligned
from ladle.testing import example_scene

RULES = (
    MaxIoU(),
    MaxIoU(rescue=None),
    ATSS(),
    FCOS(),
    PAA(),
    TaskAligned(),
    DynamicSoftLabel(),
    Hungarian(),
    AutoAssign(),
)


def scene(seed, objects=7):
    """Two images: object 2 is a crowd, object 5 of the second image is padding, the second image is narrower."""
    predictions, priors, truth = example_scene(objects=objects, seed=seed)
    crowd, there = torch.zeros_like(truth.crowd), truth.valid.clone()
    if objects > 5:
        crowd[:, 2], there[1, 5] = True, False
    valid = torch.ones(2, len(priors.stride), dtype=torch.bool)
    valid[1] = priors.centers[0, :, 0] < 200
    return predictions, replace(priors, valid=valid), replace(truth, crowd=crowd, valid=there)
