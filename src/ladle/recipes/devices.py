"""Selection of the device."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from ladle.errors import UserError

__all__ = ["Device", "find_device"]

Device = Literal["auto", "cpu", "cuda"]


def find_device(device: Device) -> str:
    """The requested device, which must be available; ``auto`` selects a GPU if there is one."""
    if device not in get_args(Device):
        raise UserError(f"--device {device}: expected one of {', '.join(get_args(Device))}")
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise UserError("--device cuda: torch finds no CUDA device; use --device cpu, or install a CUDA build of torch")
    if device == "auto":
        return "cuda" if available else "cpu"
    return device
