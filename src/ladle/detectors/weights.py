"""A detector in one file: its weights and, in the header, everything needed to build it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ladle.detectors.detector import Detector, DetectorSpec
from ladle.errors import UserError
from ladle.files import write_atomically

__all__ = ["load_detector", "read_spec", "save_detector", "state_in_order"]

_KEY = "ladle"
_OF_CLASSES = ("class_conv.weight", "class_conv.bias", "center_prior")
"""The weights of a dense head that have a row for each class, anchor by anchor."""


def save_detector(detector: Detector, file: Path | str, half: bool = False) -> None:
    """Write the detector as safetensors, whole or not at all; ``half`` stores float16."""
    from safetensors.torch import save_file

    file = Path(file)
    tensors = {name: value.detach().cpu().contiguous() for name, value in detector.state_dict().items()}
    if half:
        tensors = {name: v.half() if v.is_floating_point() else v for name, v in tensors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda part: save_file(tensors, part, metadata={_KEY: detector.spec.to_json()}))


def read_spec(file: Path) -> DetectorSpec:
    """The spec in the header of a detector's file."""
    from safetensors import SafetensorError, safe_open

    if not file.is_file():
        raise UserError(f"{file}: there is no such file; expected a detector saved by ladle (.safetensors)")
    try:
        with safe_open(file, framework="pt") as stream:
            header = stream.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a readable safetensors file ({error})") from error
    if _KEY not in header:
        raise UserError(f"{file} holds tensors but no ladle detector: expected a file written by `ladle train`")
    try:
        return DetectorSpec.from_json(header[_KEY])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} describes its detector in a way this version cannot read ({error!r})") from error


def load_detector(file: Path | str) -> Detector:
    """Build the detector of a file and load every one of its weights; a partial fit is an error."""
    from safetensors.torch import load_file

    file = Path(file)
    detector = read_spec(file).build()
    state = {name: v.float() if v.is_floating_point() else v for name, v in load_file(file).items()}
    expected = detector.state_dict()
    wrong = sorted(set(state) ^ set(expected)) or [n for n, v in state.items() if v.shape != expected[n].shape]
    if wrong:
        raise UserError(
            f"{file}: {len(wrong)} tensors do not fit a {detector.spec.name} (first: {wrong[0]}); "
            "it is incomplete or of another version, train it again"
        )
    with torch.no_grad():
        detector.load_state_dict(state)
    return detector


def state_in_order(detector: Detector, classes: Sequence[str]) -> dict[str, Tensor]:
    """The weights of a detector in one stage with its classes, which it must know all by name, in another order."""
    order = torch.tensor([detector.spec.classes.index(name) for name in classes])
    return {
        name: value.unflatten(0, (-1, len(order))).index_select(1, order).flatten(0, 1)
        if name.endswith(_OF_CLASSES)
        else value
        for name, value in detector.state_dict().items()
    }
