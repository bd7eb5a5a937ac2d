"""A detector in one file: its weights and, in the header, its spec.

The file may be untrusted. Its header is read as plain data and checked against the limits of a spec and against the
tensors in the file. The detector is built only afterwards, so that rejecting a file takes neither memory nor time.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ladle.detectors.detector import Detector, DetectorSpec
from ladle.errors import UserError
from ladle.files import write_atomically

__all__ = ["absence", "adopt_weights", "load_detector", "read_spec", "save_detector"]

_KEY = "ladle"
_OF_CLASSES = re.compile(r".*((class_conv|class_score|box_deltas)\.(\d+\.)?(weight|bias)|center_prior)")
"""The weights of heads that have rows for each class: of dense ones, anchor by anchor."""
_EDGES = 4
"""Rows for each box."""
_KINDS = dict.fromkeys(("F64", "F32", "F16", "BF16"), "numbers") | {"I64": "whole numbers"}
"""Kinds of tensors by their type in a file; a detector has all numbers in float32."""


class _TensorInfo(NamedTuple):
    """Kind and shape of a tensor, without its values."""

    kind: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.kind} of shape {list(self.shape)}"


def save_detector(detector: Detector, file: Path | str, half: bool = False) -> None:
    """Write the detector as safetensors, whole or not at all; ``half`` stores float16.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from ladle.detectors import save_detector
        >>> from ladle.families import detector_spec
        >>> detector = detector_spec("paa-tiny", ("cat", "dog")).build()
        >>> with TemporaryDirectory() as folder:
        ...     save_detector(detector, Path(folder, "cats.safetensors"))
        ...     [file.name for file in Path(folder).iterdir()]
        ['cats.safetensors']
    """
    from safetensors.torch import save

    file = Path(file)
    tensors = {name: value.detach().cpu().contiguous() for name, value in detector.state_dict().items()}
    if half:
        tensors = {name: v.half() if v.is_floating_point() else v for name, v in tensors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    # safetensors' save_file leaves temporary files if killed, and makes files that only the owner can read.
    write_atomically(file, lambda part: part.write_bytes(save(tensors, {_KEY: detector.spec.to_json()})))


def read_spec(file: Path) -> DetectorSpec:
    """The spec in the header of a detector's file."""
    return _read_header(file)[0]


def load_detector(file: Path | str) -> Detector:
    """Build the detector of a file and load every one of its weights; a partial fit is an error.

    Examples:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from ladle.detectors import load_detector, save_detector
        >>> from ladle.families import detector_spec
        >>> with TemporaryDirectory() as folder:
        ...     file = Path(folder, "cats.safetensors")
        ...     save_detector(detector_spec("paa-tiny", ("cat", "dog")).build(), file)
        ...     load_detector(file).spec.classes
        ('cat', 'dog')
    """
    file = Path(file)
    spec, found = _read_header(file)
    _compare(file, spec, found)
    detector = spec.build()
    state = _read_tensors(file)
    broken = [name for name, value in state.items() if not value.isfinite().all()]
    if broken:
        raise UserError(
            f"{file}: expected finite weights, found nan or infinite ones in {len(broken)} tensors (first: "
            f"{broken[0]}); the file is damaged or of a run that diverged, train the detector again with a lower --lr"
        )
    with torch.no_grad():
        detector.load_state_dict(state)
    return detector


def absence(file: Path) -> str:
    """Why there is no file of weights: a sentence about what lies there instead."""
    best = file / "weights" / "best.safetensors"
    if file.is_dir():
        return f"this is the folder of a run, whose weights are {best}" if best.is_file() else "this is a folder"
    return "this is no regular file" if file.exists() else "there is no such file"


def _unreadable(file: Path, error: Exception) -> str:
    """What a file is that holds no tensors, by its name."""
    if file.suffix in (".onnx", ".pt2"):
        return f"{file} is an exported detector; expected its weights, the .safetensors file that it was made from"
    if file.suffix in (".pt", ".pth", ".ckpt"):
        return (
            f"{file} is a checkpoint of PyTorch; expected weights saved by ladle, such as best.safetensors in the "
            "folder weights of a run; `ladle convert` makes them of public checkpoints"
        )
    return f"{file} is not a readable safetensors file ({error})"


def _read_header(file: Path) -> tuple[DetectorSpec, dict[str, _TensorInfo]]:
    """The spec, and kind and shape of every tensor; no tensor is read."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise UserError(f"{file}: {absence(file)}; expected a detector saved by ladle (.safetensors)")
    try:
        with safe_open(file, framework="pt") as stream:
            header = stream.metadata() or {}
            found = {name: _tensor_info(stream.get_slice(name)) for name in stream.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(_unreadable(file, error)) from error
    if _KEY not in header:
        raise UserError(f"{file} holds tensors but no ladle detector: expected a file written by `ladle train`")
    return DetectorSpec.from_json(header[_KEY], f"{file}: its header"), found


def _tensor_info(tensor: Any) -> _TensorInfo:
    kind: str = tensor.get_dtype()
    return _TensorInfo(_KINDS.get(kind, kind), tuple(tensor.get_shape()))


def _compare(file: Path, spec: DetectorSpec, found: Mapping[str, _TensorInfo]) -> None:
    """Raise :class:`UserError` unless the tensors are exactly those of the detector, built on the meta device."""
    try:
        with torch.device("meta"):
            skeleton = spec.build().state_dict()
    except UserError as error:
        raise UserError(f"{file}: its header describes a detector that cannot be built: {error}") from error
    expected = {
        name: _TensorInfo("numbers" if value.is_floating_point() else "whole numbers", tuple(value.shape))
        for name, value in skeleton.items()
    }
    wrong = [name for name in sorted({*found, *expected}) if found.get(name) != expected.get(name)]
    if wrong:
        raise UserError(
            f"{file}: {len(wrong)} tensors do not fit a {spec.name} (first: {wrong[0]}, expected "
            f"{expected.get(wrong[0], 'none')}, found {found.get(wrong[0], 'none')}); it is incomplete or of another "
            "version, train it again"
        )


def _read_tensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(_unreadable(file, error)) from error
    return {name: value.float() if value.is_floating_point() else value for name, value in loaded.items()}


@torch.no_grad()
def adopt_weights(student: Detector, trained: Detector) -> tuple[str, ...]:
    """Give a detector the weights of a trained one that differs from it in the classes alone.

    Classes are matched by name, in any order: their rows of the last layers are copied, those of other classes stay as
    they are. Returns the names of the classes that ``trained`` does not know.

    Examples:
        >>> import torch
        >>> from ladle.detectors import adopt_weights
        >>> from ladle.families import detector_spec
        >>> trained = detector_spec("paa-tiny", ("cat", "dog")).build()
        >>> student = detector_spec("paa-tiny", ("dog", "horse")).build()
        >>> adopt_weights(student, trained)
        ('horse',)
        >>> rows = [one.stages[0].class_conv.weight for one in (student, trained)]
        >>> torch.equal(rows[0][0], rows[1][1])
        True
    """
    given = trained.state_dict()
    for name, value in student.state_dict().items():
        if _OF_CLASSES.fullmatch(name) is None:
            value.copy_(given[name])
            continue
        mine, theirs = (_rows(name, len(one), d.spec.classes) for one, d in ((value, student), (given[name], trained)))
        places = {row: place for place, row in enumerate(theirs)}
        shared = [place for place, row in enumerate(mine) if row in places]
        value[shared] = given[name][[places[mine[place]] for place in shared]]
    return tuple(name for name in student.spec.classes if name not in trained.spec.classes)


def _rows(tensor: str, count: int, classes: Sequence[str]) -> list[tuple[str | None, int]]:
    """What each row is for: a class, None for background, and a number that tells several rows of a class apart."""
    in_regions = (None, *classes)
    if "class_score" in tensor:
        return [(name, 0) for name in in_regions]
    if "box_deltas" in tensor:
        return [(name, edge) for name in in_regions[: count // _EDGES] for edge in range(_EDGES)]
    return [(name, anchor) for anchor in range(count // len(classes)) for name in classes]
