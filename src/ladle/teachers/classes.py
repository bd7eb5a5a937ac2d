"""Matching of a teacher's classes with a student's, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ladle.errors import UserError

__all__ = ["COCO_CLASSES", "MAPPING", "NO_CLASS", "ClassTable", "columns_of", "listed", "match_classes", "same_names"]

# fmt: off
COCO_CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
"""The 80 classes of COCO in the order of its ids."""

_SYNONYMS = (
    ("person", "people", "pedestrian", "human"),
    ("bicycle", "bike", "cycle"),
    ("car", "automobile"),
    ("motorcycle", "motorbike"),
    ("airplane", "aeroplane", "plane"),
    ("couch", "sofa"),
    ("potted plant", "pottedplant", "plant"),
    ("dining table", "diningtable", "table"),
    ("tv", "tvmonitor", "television", "monitor"),
    ("cell phone", "mobile phone", "smartphone"),
    ("donut", "doughnut"),
    ("hair drier", "hair dryer"),
    ("refrigerator", "fridge"),
    ("sports ball", "ball"),
    ("mouse", "computer mouse"),
    ("remote", "remote control"),
    ("traffic light", "trafficlight"),
)
"""Names of the same class in COCO, Pascal VOC and other data sets; the first is COCO's."""


_CERTAIN = ("map", "name", "spelling", "synonym")
"""How classes are found, the most certain first."""
_GUESSED = ("spelling", "synonym")
_AMBIGUOUS = "ambiguous"

MAPPING = "?class_map=names.yaml behind the teacher"
"""What names pairs of classes, for every verb that runs a teacher."""
NO_CLASS = ("__background__", "N/A")
"""Names in the tables of torchvision and transformers that are no class."""


class ClassTable(NamedTuple):
    """For each class of the student the teacher's class of the same meaning, and how it was found.

    Attributes:
        classes: the student's classes, in label order.
        columns: the number of the teacher's class for each; -1 where it knows none.
        matched: the teacher's name of it; None where it knows none.
        by: how it was found: ``name``, ``spelling``, ``synonym`` or ``map``; ``ambiguous`` where it might be a class
            that also fits another of the student's.
    """

    classes: tuple[str, ...]
    columns: tuple[int, ...]
    matched: tuple[str | None, ...]
    by: tuple[str, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """The student's classes that the teacher does not know."""
        return tuple(name for name, column in zip(self.classes, self.columns, strict=True) if column < 0)

    def columns_of(self, values: Float[Tensor, "*b C"], background: float) -> Tensor:
        """The values of the student's classes; ``background`` where the teacher knows none."""
        return columns_of(values, self.columns, background)

    def rows(self) -> list[dict[str, object]]:
        """A row for each class of the student, as a table prints it."""
        each = zip(self.classes, self.matched, self.by, strict=True)
        return [{"student's class": one, "teacher's class": other or "–", "by": by} for one, other, by in each]

    def summary(self, named_by: str = MAPPING) -> str:
        """One line: how many classes were matched, and those that were not matched by name.

        ``named_by`` says what names other pairs.
        """
        each = list(zip(self.classes, self.matched, self.by, strict=True))
        odd = [f"{one} = {other} ({by})" for one, other, by in each if other is not None and by != "name"]
        known = len(each) - len(self.missing)
        line = f"{known} of the student's {len(each)} classes are known to the teacher"
        line += f": {', '.join(odd)}" if odd else " by name" if known else ""
        line += f"; not {', '.join(map(repr, self.missing))}" if self.missing else ""
        unclear = [one for one, by in zip(self.classes, self.by, strict=True) if by == _AMBIGUOUS]
        hint = f"could be a class that another one is too: name the right one by {named_by}"
        return line + (f"; {', '.join(map(repr, unclear))} {hint}" if unclear else "")


def columns_of(values: Float[Tensor, "*b C"], columns: Sequence[int], background: float) -> Tensor:
    """The columns of ``values`` with these numbers; ``background`` for a number of -1."""
    index = torch.tensor(columns, device=values.device)
    return values.index_select(-1, index.clamp(min=0)).masked_fill(index < 0, background)


def match_classes(
    theirs: Sequence[str],
    ours: Sequence[str],
    mapping: Mapping[str, str] | None = None,
    teacher: str = "the teacher",
    named_by: str = MAPPING,
) -> ClassTable:
    """Match the student's classes ``ours`` with the teacher's.

    First by ``mapping``, from the student's names to the teacher's, then by the same name, by names that differ in
    case, spaces, hyphens and underscores only, and by synonyms of COCO's classes. A class of the teacher that fits
    several of the student's is that of the one that it fits best; if there is no such one, it is none's. ``named_by``
    tells in errors what names other pairs.

    Raises:
        UserError: if nothing matches, or if ``mapping`` names a class that one of the two lacks.

    Examples:
        >>> from ladle.teachers import match_classes
        >>> match_classes(["airplane", "dog"], ["Dog", "aeroplane"]).by
        ('spelling', 'synonym')
    """
    given = mapping or {}
    unknown = [f"the student's {one!r}" for one in given if one not in ours]
    unknown += [f"{teacher}'s {one!r}" for one in given.values() if one not in theirs]
    if unknown:
        raise UserError(
            f"class_map names {unknown[0]}, which does not exist: write `student's class: teacher's class` with "
            f"the student's {listed(ours)} and the teacher's {listed(theirs)}"
        )
    return _table(
        theirs,
        ours,
        _unambiguous([_find(name, theirs, given) for name in ours]),
        teacher,
        f"name the pairs in a file by {named_by}, or the teacher's own classes by ?classes=names.txt",
    )


def same_names(theirs: Sequence[str], ours: Sequence[str], teacher: str) -> ClassTable:
    """Match classes as a detector of Ladle's teaches them: by equal names alone.

    Raises:
        UserError: if nothing matches.
    """
    return _table(
        theirs,
        ours,
        [(list(theirs).index(name), "name") if name in theirs else (-1, "–") for name in ours],
        teacher,
        "a detector of ladle teaches classes of the same name, so train one on the student's classes",
    )


def _table(
    theirs: Sequence[str], ours: Sequence[str], found: Sequence[tuple[int, str]], teacher: str, advice: str
) -> ClassTable:
    """The table of the classes that were found; raises :class:`UserError` with ``advice`` if there is none."""
    if all(column < 0 for column, _ in found):
        raise UserError(
            f"{teacher} knows none of the student's classes {listed(ours)}: it knows {listed(theirs)}; {advice}"
        )
    columns = tuple(column for column, _ in found)
    names = tuple(theirs[column] if column >= 0 else None for column in columns)
    return ClassTable(tuple(ours), columns, names, tuple(by for _, by in found))


def _find(name: str, theirs: Sequence[str], mapping: Mapping[str, str]) -> tuple[int, str]:
    """The number of the teacher's class for one of the student's, and how it was found."""
    if name in mapping:
        return list(theirs).index(mapping[name]), "map"
    if name in theirs:
        return list(theirs).index(name), "name"
    plain = [_plain(one) for one in theirs]
    if _plain(name) in plain:
        return plain.index(_plain(name)), "spelling"
    for group in _SYNONYMS:
        known = [plain.index(_plain(one)) for one in group if _plain(one) in plain]
        if known and _plain(name) in map(_plain, group):
            return known[0], "synonym"
    return -1, "–"


def _unambiguous(found: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """The classes that were found, without those of which another one is more certain or as certain; a map is asked."""
    kept = []
    for place, (column, by) in enumerate(found):
        doubted = by in _GUESSED and any(
            one == column and number != place and _CERTAIN.index(how) <= _CERTAIN.index(by)
            for number, (one, how) in enumerate(found)
        )
        kept.append((-1, _AMBIGUOUS) if doubted else (column, by))
    return kept


def _plain(name: str) -> str:
    return name.casefold().translate(str.maketrans("", "", " _-"))


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
