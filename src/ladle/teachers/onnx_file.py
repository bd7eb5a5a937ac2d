"""Teachers from ONNX files of any origin, run by onnxruntime."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ladle.errors import first_line
from ladle.teachers.exported import ExportedTeacher, open_exported
from ladle.teachers.program import FileTeacher, Program, open_program
from ladle.teachers.uri import TeacherURI
from ladle.untrusted import parse_json

__all__ = ["open_onnx"]


def open_onnx(uri: TeacherURI) -> FileTeacher | ExportedTeacher:
    """Open an ONNX file as a teacher, of any origin or written by ``ladle export``.

    Raises:
        UserError: if onnxruntime is missing, the file cannot be run, or its outputs or classes are not understood.
    """
    session = _session(uri)
    metadata = session.get_modelmeta().custom_metadata_map
    if "ladle_version" in metadata:
        about = {name: parse_json(text, f"{uri.path}: {name}") for name, text in metadata.items()}
        return open_exported(uri, about, lambda images, sizes: tuple(_run(session, images, sizes).values()), _stays)
    inputs = session.get_inputs()
    if len(inputs) != 1:
        raise uri.fail(f"expected one input, the images, found {', '.join(one.name for one in inputs)}")
    if inputs[0].type != "tensor(float)":
        raise uri.fail(f"expected an input of 32-bit floats, found {inputs[0].type}")
    shape = tuple(one if isinstance(one, int) else None for one in inputs[0].shape)
    return open_program(uri, Program(lambda images: _run(session, images), shape, metadata, _stays))


def _session(uri: TeacherURI) -> Any:
    if find_spec("onnxruntime") is None:
        raise uri.fail("a teacher in an ONNX file needs onnxruntime: pip install 'ladle[onnx]'")
    if not Path(uri.path).is_file():
        raise uri.fail(f"there is no file {uri.path}; expected an ONNX file of a detector")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(uri.path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a kind of its own for each cause
        raise uri.fail(f"onnxruntime cannot run it ({first_line(error)})") from error


def _run(session: Any, *inputs: Tensor) -> dict[str, Tensor]:
    """The outputs of a session by name, on the processor."""
    given = {one.name: tensor.cpu().numpy() for one, tensor in zip(session.get_inputs(), inputs, strict=True)}
    outputs = session.run(None, given)
    return {one.name: torch.from_numpy(made) for one, made in zip(session.get_outputs(), outputs, strict=True)}


def _stays(device: torch.device | str) -> None:
    """A session stays on the processor."""
