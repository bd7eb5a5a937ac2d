"""Files at work: the bytes of one as a function of arrays."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ladle.errors import UserError, first_line

__all__ = ["RunFile", "onnx_runner", "onnx_session", "program_runner", "session_runner"]

RunFile = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
"""Images and sizes to what a file answers."""


def onnx_session(model: bytes | Path, threads: int | None = None) -> Any:
    """A session of onnxruntime on the processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        source = str(model) if isinstance(model, Path) else model
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a kind of its own for each cause
        what = model if isinstance(model, Path) else "onnxruntime"
        raise UserError(f"{what} cannot be run ({first_line(error)})") from error


def onnx_runner(model: bytes | Path, threads: int | None = None) -> RunFile:
    """What onnxruntime makes of an ONNX file, on the processor."""
    return session_runner(onnx_session(model, threads))


def session_runner(session: Any) -> RunFile:
    """The same of a session."""

    def run(images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        outputs = session.run(None, {"images": images.numpy(), "sizes": sizes.numpy()})
        return tuple(torch.from_numpy(np.asarray(one)) for one in outputs)

    return run


def program_runner(model: bytes) -> RunFile:
    """What PyTorch makes of a ``.pt2`` file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.export.load(io.BytesIO(model)).module()

    @torch.no_grad()
    def run(images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = network(images, sizes)
        return outputs

    return run
