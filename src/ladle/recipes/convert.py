"""Turn a public checkpoint into a detector of Ladle."""

from __future__ import annotations

from pathlib import Path

from ladle.detectors import save_detector
from ladle.errors import UserError
from ladle.families import from_published, published_spec, read_tensors
from ladle.files import read_regular
from ladle.names import shortened
from ladle.recipes.console import say

__all__ = ["convert"]

_MOST_BYTES = 2**20
"""Size limit of a file of class names."""


def convert(checkpoint: str | Path, model: str, classes: str | Path, out: str | Path | None = None) -> str:
    """Write the weights of mmdetection's or YOLOX's release as a detector, which then finds the same objects.

    Returns the path of the detector.

    Args:
        checkpoint: the file of the release, ``.pth`` or ``.safetensors``; only its tensors are read.
        model: which detector it is, such as ``rtmdet-s`` or ``atss-r50``.
        classes: a text file with the name of one class in each line, in the checkpoint's order.
        out: the file to write, ``.safetensors``; by default beside the checkpoint, with the name of the model.
    """
    names = _names(Path(classes))
    published_spec(model, names)
    file = Path(checkpoint).parent / f"{model}.safetensors" if out is None else Path(out)
    if file.suffix != ".safetensors":
        raise UserError(f"--out {out}: expected a name that ends with .safetensors")
    if file.exists():
        raise UserError(f"{file} exists already, and is not overwritten: give another name with --out")
    tensors = read_tensors(checkpoint)
    try:
        detector = from_published(tensors, model, names)
    except UserError as error:
        raise UserError(f"{checkpoint}: {error}") from None
    save_detector(detector, file)
    say(f"{model} with {len(names)} classes, {shortened(', '.join(names), 60)}: {file}")
    return str(file)


def _names(file: Path) -> tuple[str, ...]:
    try:
        text = read_regular(file, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"--classes {file}: expected text in UTF-8, found bytes that are not") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not names or len(set(names)) < len(names):
        found = "none" if not names else "a name twice"
        raise UserError(f"--classes {file}: expected the name of one class in each line, found {found}")
    return names
