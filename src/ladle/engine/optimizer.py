"""Optimizer settings as values, and the parameter groups of a detector."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypedDict, runtime_checkable

import torch
from torch import nn

from ladle.device import steps_fused
from ladle.errors import UserError

__all__ = ["SGD", "AdamW", "OptimizerSpec", "ParameterGroup", "parameter_groups"]

BACKBONE = re.compile(r"(student|students\.\w+)\.backbone\.")
"""The names of backbone parameters in an objective."""


@runtime_checkable
class OptimizerSpec(Protocol):
    """Anything that builds a torch optimizer for the trainable parameters of an objective.

    Every group of the built optimizer holds ``initial_lr``; the loop sets ``lr`` to that times the schedule's factor.
    """

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return a fresh optimizer over ``module``'s trainable parameters."""


class ParameterGroup(TypedDict):
    """One group as torch's optimizers take it."""

    params: list[nn.Parameter]
    lr: float
    initial_lr: float
    weight_decay: float


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent with momentum, the choice of the convolutional detectors.

    ``lr`` is for the whole batch over all devices. ``backbone_lr`` is a factor on the learning rate of
    ``student.backbone``. ``decay_vectors`` also decays norms and biases, as the published SGD recipes of RetinaNet,
    ATSS, PAA and GFL do.
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    backbone_lr: float = 1.0
    decay_vectors: bool = True

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return a fresh optimizer over ``module``'s trainable parameters."""
        groups = parameter_groups(module, self.lr, self.weight_decay, self.backbone_lr, self.decay_vectors)
        momentum, fused = self.momentum, _fused(groups)
        return torch.optim.SGD(_plain(groups), lr=self.lr, momentum=momentum, nesterov=self.nesterov, fused=fused)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, the choice of transformers; norms and biases are not decayed.

    ``lr`` is for the whole batch over all devices. ``backbone_lr`` is a factor on the learning rate of
    ``student.backbone`` (DETR uses 0.1). ``decay_vectors`` also decays norms and biases.
    """

    lr: float
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    backbone_lr: float = 1.0
    decay_vectors: bool = False

    def build(self, module: nn.Module) -> torch.optim.Optimizer:
        """Return a fresh optimizer over ``module``'s trainable parameters."""
        groups = parameter_groups(module, self.lr, self.weight_decay, self.backbone_lr, self.decay_vectors)
        return torch.optim.AdamW(_plain(groups), lr=self.lr, betas=self.betas, fused=_fused(groups))


def parameter_groups(
    module: nn.Module, lr: float, weight_decay: float, backbone_lr: float = 1.0, decay_vectors: bool = False
) -> list[ParameterGroup]:
    """Split the trainable parameters of an objective by learning rate and weight decay.

    Parameters of at most one dimension (norms, biases, learnt scales) and biases of any shape have no decay unless
    ``decay_vectors``. Groups and their parameters follow the order of ``module.named_parameters()``, so that a saved
    optimizer state finds its parameters again.
    """
    groups: dict[tuple[bool, bool], ParameterGroup] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        backbone = BACKBONE.match(name) is not None
        decays = decay_vectors or not (parameter.ndim <= 1 or name.endswith(".bias"))
        rate, decay = lr * (backbone_lr if backbone else 1.0), weight_decay if decays else 0.0
        empty = ParameterGroup(params=[], lr=rate, initial_lr=rate, weight_decay=decay)
        groups.setdefault((backbone, decays), empty)["params"].append(parameter)
    if not groups:
        raise UserError("there is nothing to train: every parameter of the student is frozen; thaw some layers")
    return list(groups.values())


def _fused(groups: Iterable[ParameterGroup]) -> bool | None:
    return steps_fused(parameter for group in groups for parameter in group["params"])


def _plain(groups: Iterable[ParameterGroup]) -> list[dict[str, object]]:
    return [dict(group) for group in groups]
