"""The categories of a COCO file as classes: ordered by id, with distinct names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ladle.data.dataset import Defect
from ladle.data.naming import check_distinct, clean_name
from ladle.data.values import shown, whole
from ladle.errors import UserError

__all__ = ["read_categories"]


def read_categories(
    entries: Sequence[dict[str, Any]], used: Collection[int | None], file: Path, defects: list[Defect]
) -> dict[int, str]:
    """Class names by category id, in the order of the ids; ``used`` are the category ids of the annotations.

    If several categories have the same name, those without annotations are left out and reported, as long as one
    remains: export tools list a supercategory next to the only class in it.

    Raises:
        UserError: for ids or names that are not distinct.
    """
    if not entries:
        raise UserError(f"{file}: expected at least one entry under 'categories', found none")
    numbers = [_number(entry, file, defects) for entry in entries]
    again = [str(number) for number, times in Counter(numbers).items() if times > 1]
    if again:
        raise UserError(
            f"{file}: expected every category to have its own id, found {', '.join(again)} twice in 'categories'"
        )
    found = dict(sorted(zip(numbers, entries, strict=True), key=lambda pair: pair[0]))
    names = {number: _name(number, entry, file, defects) for number, entry in found.items()}
    for number in _spare(names, found, used):
        what = "category without objects has the name of another one; left out"
        defects.append(Defect(f"{file.name}: category {number} {shown(names.pop(number))}", what))
    check_distinct(names, file)
    return names


def _number(entry: dict[str, Any], file: Path, defects: list[Defect]) -> int:
    number = whole(entry.get("id"))
    if number is None:
        raise UserError(f"{file}: expected whole numbers as ids of categories, found {shown(entry.get('id'))}")
    if type(entry["id"]) is not int:
        defects.append(Defect(f"{file.name}: category {entry['id']!r}", "category id is no whole number; read as one"))
    return number


def _name(number: int, entry: dict[str, Any], file: Path, defects: list[Defect]) -> str:
    name, remark = clean_name(entry.get("name"), f"category {number}")
    if remark:
        defects.append(Defect(f"{file.name}: category {number}", remark))
    return name


def _spare(names: Mapping[int, str], entries: Mapping[int, dict[str, Any]], used: Collection[int | None]) -> list[int]:
    """The categories with the name of another one that can be left out."""
    groups = {entry.get("supercategory") for entry in entries.values() if _is_text(entry.get("supercategory"))}
    spare: list[int] = []
    for name in {name for name, times in Counter(names.values()).items() if times > 1}:
        alike = [number for number, other in names.items() if other == name]
        idle = [number for number in alike if number not in used]
        if len(idle) == len(alike):  # none is used: the supercategory is the one that is not in itself
            idle = [number for number in alike if name in groups and entries[number].get("supercategory") != name]
        spare += idle if len(idle) < len(alike) else []
    return sorted(spare)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
