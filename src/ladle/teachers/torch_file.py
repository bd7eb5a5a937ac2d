"""Teachers from programs of PyTorch: ``.pt2`` files of ``torch.export``, and TorchScript."""

from __future__ import annotations

import copy
import logging
import warnings
import zipfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ladle.errors import UserError, first_line
from ladle.teachers.exported import ExportedTeacher, open_exported
from ladle.teachers.program import FileTeacher, Program, open_program
from ladle.teachers.uri import TeacherURI
from ladle.untrusted import parse_json

__all__ = ["open_pt2", "open_torchscript"]

T = TypeVar("T")

_TRUST = "run_code"
_NAMES = {"boxes": ("boxes", "scores"), "distributions": ("scores", "distributions")}
"""The names of two outputs without one, by ``?layout=``."""


class _Exported:
    """A program of ``torch.export`` that can be moved to another device by PyTorch 2.7 or newer."""

    def __init__(self, program: Any) -> None:
        self.program, self.device = program, torch.device("cpu")
        self._module = program.module()

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Any:
        """Run it on its device."""
        return self._module(*(one.to(self.device) for one in inputs))

    def move(self, device: torch.device | str) -> None:
        """Make the program anew for a device, the constants in its graph included."""
        if torch.device(device) == self.device or find_spec("torch.export.passes") is None:
            return
        from torch.export import passes

        if hasattr(passes, "move_to_device_pass"):
            self.program = passes.move_to_device_pass(copy.copy(self.program), device)
            self.device, self._module = torch.device(device), self.program.module()


def open_pt2(uri: TeacherURI) -> FileTeacher | ExportedTeacher:
    """Open a ``.pt2`` file of ``torch.export``, of any origin or written by ``ladle export``.

    Raises:
        UserError: without ``?run_code=1``, or if the file or its outputs are not understood.
    """
    _check_trust(uri, "a .pt2 file of torch.export")
    # Files of `ladle export` may suppress by an operator of torchvision's.
    import torchvision  # noqa: F401

    network = _loaded(uri, lambda: _Exported(torch.export.load(uri.path)))
    program = network.program
    about = _about(uri)
    if about is not None:
        return open_exported(uri, about, lambda images, sizes: tuple(network(images, sizes)), network.move, (_TRUST,))
    values = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(values) != 1 or values[0].dtype != torch.float32:
        found = ", ".join(f"{tuple(one.shape)} of {one.dtype}" for one in values)
        raise uri.fail(f"expected one input, images of 32-bit floats, found {found}")
    shape = tuple(one if isinstance(one, int) else None for one in values[0].shape)
    return open_program(uri, Program(_named(uri, network), shape, {}, network.move), (_TRUST,))


def open_torchscript(uri: TeacherURI) -> FileTeacher:
    """Open a TorchScript file, a program that takes images and gives boxes with scores.

    Raises:
        UserError: without ``?run_code=1``, or if the file or its outputs are not understood.
    """
    _check_trust(uri, "a TorchScript file")
    network = _loaded(uri, lambda: torch.jit.load(uri.path, map_location="cpu").eval())
    return open_program(uri, Program(_named(uri, network), (None, 3, None, None), {}, network.to), (_TRUST,))


def _check_trust(uri: TeacherURI, what: str) -> None:
    """Raise :class:`UserError` unless there is such a file and the user trusts it."""
    if not Path(uri.path).is_file():
        raise uri.fail(f"there is no file {uri.path}; expected {what}")
    if uri.choice(_TRUST, ("0", "1"), "0") == "0":
        raise uri.fail(
            f"{what} can run any code on this machine while it is loaded: add ?{_TRUST}=1 if you trust where it comes "
            "from, or take an ONNX file or weights"
        )


def _loaded(uri: TeacherURI, load: Callable[[], T]) -> T:
    """What ``load`` loads, without warnings and logs; raises :class:`UserError` if PyTorch cannot."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)  # torch.export logs a traceback as a warning before it raises
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except Exception as error:  # of many kinds, for a file that is damaged or of another version
        raise uri.fail(f"PyTorch cannot load it ({first_line(error)})") from None
    finally:
        logging.disable(disabled)


def _about(uri: TeacherURI) -> dict[str, Any] | None:
    """What a file of ``ladle export`` says of itself; None for any other."""
    with zipfile.ZipFile(uri.path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/ladle.json")]
        if not names:
            return None
        about: dict[str, Any] = parse_json(archive.read(names[0]), f"{uri.path}: ladle.json")
        return about


def _named(uri: TeacherURI, network: Callable[[Tensor], Any]) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """A network whose outputs have names, as in an ONNX file: their keys, or those of ``?layout=``."""
    usual = _NAMES.get(uri.options.get("layout", ""), ())

    @torch.no_grad()
    def run(images: Tensor) -> Mapping[str, Tensor]:
        made = network(images)
        if isinstance(made, Tensor):
            made = (made,)
        if not isinstance(made, Mapping):
            names = usual if len(usual) == len(made) else [f"output{number}" for number in range(len(made))]
            made = dict(zip(names, made, strict=True))
        if not all(isinstance(one, Tensor) for one in made.values()):
            raise UserError("expected tensors as its outputs, or a dictionary of them")
        return dict(made)

    return run
