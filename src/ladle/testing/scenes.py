"""Small scenes, outputs and networks on which assigners and distillers are tested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from ladle.types import Assignment, Grid, GroundTruth, Output, Predictions, Priors, Pyramid

__all__ = ["Scene", "example_network", "example_output", "example_scene", "grid_priors"]

Scene = tuple[Predictions, Priors, GroundTruth]
"""The arguments of an assigner."""


def grid_priors(height: int, width: int, strides: Sequence[int] = (8, 16, 32), side: float = 8.0) -> Priors:
    """Priors with one square anchor, ``side`` strides wide, at every location of every level.

    ``height`` and ``width`` are those of the image in pixels.
    """
    boxes, counts, grids = [], [], []
    for stride in strides:
        y, x = torch.meshgrid(torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij")
        center = torch.stack([x, y, x, y], dim=-1).reshape(-1, 4).float()
        half = side * stride / 2
        boxes.append(center + torch.tensor([-half, -half, half, half]))
        counts.append(len(center))
        grids.append(Grid(len(range(0, height, stride)), len(range(0, width, stride)), float(stride), 0.0))
    level = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    every = torch.cat(boxes)
    valid = torch.ones(1, len(every), dtype=torch.bool)
    return Priors(every[None], torch.tensor(strides).float()[level], level, valid, tuple(counts), tuple(grids))


def example_scene(
    batch: int = 2, objects: int = 6, seed: int = 0, size: tuple[int, int] = (192, 256), classes: int = 5
) -> Scene:
    """Random objects, and predictions like those of a half-trained detector, which are better near objects.

    Returns:
        Predictions, priors and objects, the arguments of an assigner.
    """
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    priors = grid_priors(height, width)
    center = torch.rand(batch, objects, 2, generator=generator) * torch.tensor([width, height])
    half = torch.exp(torch.rand(batch, objects, 2, generator=generator) * 2.2 + 2.6) / 2
    low = (center - half).clamp(min=0)
    high = torch.minimum(center + half, torch.tensor([float(width), float(height)])).maximum(low + 2)
    labels = torch.randint(classes, (batch, objects), generator=generator)
    truth = GroundTruth.pad(list(torch.cat([low, high], dim=-1)), list(labels))

    count = priors.boxes.shape[1]
    logits = torch.randn(batch, count, classes, generator=generator) - 3
    noise = torch.randn(batch, count, 4, generator=generator) * priors.stride[:, None]
    boxes = priors.boxes + noise
    if objects:
        nearest = torch.cdist(priors.centers.expand(batch, -1, -1), (low + high) / 2).argmin(-1)
        target, label = truth.at(nearest)
        mix = torch.rand(batch, count, 1, generator=generator)  # 1: the box of the nearest object, 0: noise
        boxes = mix * target + (1 - mix) * boxes
        logits = logits.scatter_add(2, label.unsqueeze(-1), 4 * mix)
    boxes = torch.cat([boxes[..., :2].minimum(boxes[..., 2:] - 1), boxes[..., 2:]], dim=-1)
    quality = torch.randn(batch, count, generator=generator)
    return Predictions(logits, boxes, quality), priors, truth


def example_output(seed: int = 0, classes: int = 5) -> tuple[Output, GroundTruth, Assignment]:
    """A detector's output on a scene with its feature maps, and a plan with positive priors near the objects."""
    predictions, priors, truth = example_scene(seed=seed, classes=classes)
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, 8, 192 // s, 256 // s, generator=generator) for s in (8, 16, 32)]
    predictions = replace(predictions, edges=torch.randn(*predictions.boxes.shape, 9, generator=generator))
    middle = (truth.boxes[..., :2] + truth.boxes[..., 2:]) / 2
    distance, index = torch.cdist(priors.centers.expand(2, -1, -1), middle).min(-1)
    positive = distance < priors.stride
    valid = priors.valid.clone()
    valid[:, ::7] = False
    plan = Assignment.hard(index, positive & valid, valid.expand_as(positive))
    # Valid priors no longer fill a rectangle at the top left, as ``grids`` promises.
    return Output(predictions, replace(priors, valid=valid, grids=None), tuple(maps)), truth, plan


class _Network(NamedTuple):
    pyramid: Pyramid
    head: None = None


def example_network() -> _Network:
    """The description of a network whose outputs are like :func:`example_output`, for building a distiller."""
    return _Network(Pyramid((8, 8, 8), (8, 16, 32)))
