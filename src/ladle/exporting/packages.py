"""The packages that an export needs and Ladle does not: asked for when they are used."""

from __future__ import annotations

from importlib.util import find_spec

import torch

from ladle.errors import UserError

__all__ = ["check_exporter", "check_packages", "writes_onnx"]

_NEEDED = ("onnx", "onnxscript", "onnxruntime")
_OLDEST = (2, 7)
"""The oldest PyTorch whose exporter works with the packages of ``ladle[onnx]``."""


def check_packages(purpose: str) -> None:
    """Raise :class:`UserError` where a package of ONNX is not installed; ``purpose`` is what needs it."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"{purpose} needs {' and '.join(missing)}: pip install 'ladle[onnx]'")


def writes_onnx() -> bool:
    """Whether this PyTorch can write ONNX: it is 2.7 or newer."""
    return tuple(map(int, torch.__version__.split(".")[:2])) >= _OLDEST


def check_exporter(purpose: str) -> None:
    """Raise :class:`UserError` where ONNX cannot be written; ``purpose`` is what asks for it."""
    check_packages(purpose)
    if not writes_onnx():
        oldest = ".".join(map(str, _OLDEST))
        raise UserError(f"{purpose} needs PyTorch {oldest} or newer, found {torch.__version__}; --format pt2 does not")
