"""The packages that an export needs and Ladle does not: asked for when they are used."""

from __future__ import annotations

from importlib.util import find_spec

from ladle.errors import UserError

__all__ = ["check_packages"]

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def check_packages(purpose: str) -> None:
    """Raise :class:`UserError` where a package of ONNX is not installed; ``purpose`` is what needs it."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UserError(f"{purpose} needs {' and '.join(missing)}: pip install 'ladle[onnx]'")
