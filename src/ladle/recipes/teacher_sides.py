"""The size of the images that a teacher is given when no student says it."""

from __future__ import annotations

from pathlib import Path

from ladle.detectors import read_spec
from ladle.recipes.console import say
from ladle.recipes.options import Side
from ladle.teachers import TeacherURI, parse_uri
from ladle.teachers.uri import members_of

__all__ = ["teacher_side"]

_USUAL = 640
"""For teachers of another origin, which resize images to their own input."""


def teacher_side(uri: TeacherURI, given: Side | None) -> int:
    """The long side of the images: what is ``given``, else what Ladle's weights were trained at, else 640.

    Of an ensemble it is the largest one of its members of Ladle's. A note is printed for weights that were trained at
    another size.
    """
    trained = _trained(uri)
    side = given if given is not None else max(trained.values(), default=_USUAL)
    for note in _notes(trained, side):
        say(note)
    return side


def _notes(trained: dict[str, int], side: int) -> list[str]:
    """A line for each file of weights that were trained at another size than ``side``."""
    return [
        f"note: {file} was trained at {one} px and is given images of {side} px, where it may find less: --imgsz {one} "
        "is its own size"
        for file, one in trained.items()
        if one != side
    ]


def _trained(uri: TeacherURI) -> dict[str, int]:
    """The size that Ladle's weights were trained at, by file: a teacher's own, or those of the members of an ensemble.

    They see images as they are given; a teacher of another origin resizes them to its own input.
    """
    members = [parse_uri(one) for one in members_of(uri.path)] if uri.kind == "ensemble" else [uri]
    return {one.path: read_spec(Path(one.path)).imgsz for one in members if one.kind == "ladle"}
