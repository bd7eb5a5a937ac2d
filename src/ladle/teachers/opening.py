"""Open a teacher by its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ladle.errors import UserError
from ladle.files import read_regular
from ladle.teachers.classes import match_classes
from ladle.teachers.foreign import Foreign, ForeignTeacher
from ladle.teachers.onnx_file import open_onnx
from ladle.teachers.torchvision_file import open_torchvision
from ladle.teachers.uri import TeacherURI, parse_uri
from ladle.untrusted import parse_yaml

__all__ = ["open_foreign", "open_teacher", "taught"]

_OPENERS: Mapping[str, Callable[[TeacherURI], Foreign]] = {"onnx": open_onnx, "torchvision": open_torchvision}
"""The function that opens each kind of foreign teacher."""
_MOST_BYTES = 2**20


def open_teacher(text: str, classes: Sequence[str]) -> ForeignTeacher:
    """The foreign teacher named by ``text``, such as ``onnx:file.onnx``, for a student's classes.

    Raises:
        UserError: for a kind that is not known, a file that is not understood, or classes of which none matches.
    """
    uri = parse_uri(text)
    return taught(open_foreign(uri), uri, classes)


def open_foreign(uri: TeacherURI) -> Foreign:
    """The detector that a text names, before its classes are matched."""
    if uri.kind not in _OPENERS:
        raise uri.fail(f"expected a foreign teacher, of kind {' or '.join(_OPENERS)}, found weights saved by ladle")
    return _OPENERS[uri.kind](uri)


def taught(detector: Foreign, uri: TeacherURI, classes: Sequence[str]) -> ForeignTeacher:
    """The detector as a teacher of ``classes``, matched by name and by the file of ``?class_map=``."""
    file = uri.options.get("class_map")
    try:
        mapping = None if file is None else _mapping(file)
        return ForeignTeacher(detector, match_classes(detector.classes, classes, mapping))
    except UserError as error:
        raise uri.fail(str(error)) from None


def _mapping(file: str) -> dict[str, str]:
    """The pairs of a YAML file, from the student's names to the teacher's."""
    if not Path(file).is_file():
        raise UserError(
            f"?class_map={file}: there is no such file; expected YAML with `student's class: teacher's class`"
        )
    values = parse_yaml(read_regular(Path(file), _MOST_BYTES), file)
    if not isinstance(values, dict) or not values:
        raise UserError(f"?class_map={file}: expected YAML with `student's class: teacher's class` in each line")
    return {str(one): str(other) for one, other in values.items()}
