"""Compile the layers of a network that is trained, or leave them as they are where that fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from ladle.data.loader import padded_side
from ladle.detectors import Detector
from ladle.types import Predictions

__all__ = ["compile_layers"]


def compile_layers(
    network: Detector,
    batch: int,
    side: int,
    half: torch.dtype | None = None,
    backend: str | Callable[..., Any] = "inductor",
) -> str | None:
    """Compile backbone, feature pyramid and dense heads of a network in place, and try them on one batch.

    The names of its weights stay, and copies of it are not compiled. Region heads stay as they are, because their
    shapes depend on values. If anything fails, nothing is compiled and the reason is returned.

    Args:
        network: the network, on its device; its weights, buffers and gradients are the same afterwards.
        batch: images of a training step.
        side: their largest side in pixels.
        half: the precision of autocast in training; None is float32.
        backend: as for ``torch.compile``.
    """
    dense = [cast("nn.Module", head) for head in network.heads if not head.samples_first]
    parts = [network.backbone, network.neck, *dense]
    for part in parts:
        part.compile(backend=backend)
    try:
        _try(network, batch, padded_side(side), half)
    except Exception as error:  # compilers, drivers and missing packages raise nearly anything
        for part in parts:
            part._compiled_call_impl = None
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return None


def _try(network: Detector, batch: int, side: int, half: torch.dtype | None) -> None:
    """One step forward and backward, after which the network is as before."""
    before = [buffer.clone() for buffer in network.buffers()]
    images = torch.zeros(batch, 3, side, side, dtype=torch.uint8, device=network.mean.device)
    try:
        with torch.autocast(images.device.type, half, enabled=half is not None):
            features = network.train().extract_features(images)
            dense = [stage for stage in network.heads if not stage.samples_first]
            found = [stage(features, stage.propose(features, None, None, None), None)[0] for stage in dense]
        _sum(found).backward()
    finally:
        network.zero_grad()
        for buffer, kept in zip(network.buffers(), before, strict=True):
            buffer.copy_(kept)


def _sum(predictions: list[Predictions]) -> Tensor:
    parts = [one.logits.float().sum() + one.boxes.sum() for one in predictions]
    return torch.stack(parts).sum()
