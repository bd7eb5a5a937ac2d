"""Open a teacher by its text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ladle.errors import UserError
from ladle.files import read_regular
from ladle.teachers.classes import ClassTable, match_classes
from ladle.teachers.dense_recorded import DenseTeacher, open_dense
from ladle.teachers.ensemble import ensemble_of
from ladle.teachers.foreign import Foreign, ForeignTeacher
from ladle.teachers.ladle_file import open_ladle
from ladle.teachers.onnx_file import open_onnx
from ladle.teachers.recorded import open_cache, open_predictions
from ladle.teachers.timm_file import TimmTeacher, open_timm
from ladle.teachers.torch_file import open_pt2, open_torchscript
from ladle.teachers.torchvision_file import open_torchvision
from ladle.teachers.transformers_file import open_transformers
from ladle.teachers.uri import TeacherURI, members_of, parse_uri
from ladle.untrusted import parse_yaml

__all__ = ["open_any", "open_foreign", "open_teacher", "taught"]

_OPENERS: Mapping[str, Callable[[TeacherURI], Foreign]] = {
    "cache": open_cache,
    "hf": open_transformers,
    "ladle": open_ladle,
    "onnx": open_onnx,
    "pt2": open_pt2,
    "torchscript": open_torchscript,
    "torchvision": open_torchvision,
}
"""The function that opens each kind of teacher whose text says all."""
_MOST_BYTES = 2**20


def open_teacher(text: str, classes: Sequence[str], category_ids: Sequence[int] | None = None) -> ForeignTeacher:
    """The foreign teacher named by ``text``, such as ``onnx:file.onnx``, for a student's classes.

    ``category_ids`` are the data set's own ids of the classes, for COCO results; 1, 2 and so on by default.

    Raises:
        UserError: for a kind that is not known, a file that is not understood, or classes of which none matches.
    """
    uri = parse_uri(text)
    return taught(open_foreign(uri, classes, category_ids), uri, classes)


def open_any(
    text: str, classes: Sequence[str], category_ids: Sequence[int] | None = None
) -> ForeignTeacher | TimmTeacher | DenseTeacher:
    """The same, also for feature maps alone, ``timm:resnet50``, and for recorded dense predictions, ``cache.ladle``."""
    uri = parse_uri(text)
    if uri.kind == "dense":
        file = uri.options.get("class_map")
        try:
            return open_dense(uri, classes, None if file is None else _mapping(file))
        except UserError as error:
            raise error if str(error).startswith("--teacher") else uri.fail(str(error)) from None
    return open_timm(uri) if uri.kind == "timm" else open_teacher(text, classes, category_ids)


def open_foreign(uri: TeacherURI, classes: Sequence[str], category_ids: Sequence[int] | None = None) -> Foreign:
    """The detector that a text names, before its classes are matched."""
    if uri.is_of_student:
        raise uri.fail("it is made of a student in training and finds nothing by itself; expected a trained detector")
    if uri.kind == "predictions":
        ids = category_ids if category_ids is not None else range(1, len(classes) + 1)
        return open_predictions(uri, classes, ids)
    if uri.kind == "ensemble":
        return _together(uri, classes)
    if uri.kind == "dense":
        raise uri.fail("its dense predictions are recorded, for training alone; expected a detector that runs")
    if uri.kind == "timm":
        raise uri.fail("it gives feature maps only; expected a detector")
    return _OPENERS[uri.kind](uri)


def _together(uri: TeacherURI, classes: Sequence[str]) -> Foreign:
    members = [parse_uri(text) for text in members_of(uri.path)]
    recorded = [one.text for one in members if one.is_recorded or one.is_of_student or one.kind == "ensemble"]
    if len(members) < 2 or recorded:
        found = recorded[0] if recorded else "one"
        raise uri.fail(f"expected two or more detectors that run, joined by commas, found {found}")
    detectors = [open_foreign(one, classes) for one in members]
    tables = [_matched(detector, one, classes) for detector, one in zip(detectors, members, strict=True)]
    return ensemble_of(list(zip(detectors, tables, strict=True)))


def taught(detector: Foreign, uri: TeacherURI, classes: Sequence[str]) -> ForeignTeacher:
    """The detector as a teacher of ``classes``, matched by name and by the file of ``?class_map=``."""
    return ForeignTeacher(detector, _matched(detector, uri, classes))


def _matched(detector: Foreign, uri: TeacherURI, classes: Sequence[str]) -> ClassTable:
    """Its class for each of ``classes``; raises :class:`UserError` if none matches."""
    file = uri.options.get("class_map")
    try:
        return match_classes(detector.classes, classes, None if file is None else _mapping(file))
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
