"""The description of a YOLO data set: a ``data.yaml``, Darknet's ``obj.data``, or only a list of classes.

Each is read into the same record: the folders or lists of every split, and the names of the classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ladle.data.dataset import Defect
from ladle.data.documents import read_text
from ladle.data.folders import is_companion
from ladle.data.naming import check_distinct, clean_name
from ladle.data.values import shown, whole
from ladle.data.yaml_files import YamlValue, read_yaml
from ladle.data.yolo_rows import KeyPoints
from ladle.errors import UserError
from ladle.files import read_regular

__all__ = ["CLASS_LISTS", "DARKNET", "Description", "describe", "find_description"]

CLASS_LISTS = ("classes.txt", "obj.names", "predefined_classes.txt")
"""Files with one class name per line; below ``labels`` they are not label files."""

_SPLITS = ("train", "val", "valid", "validation", "test")
_YAML = (".yaml", ".yml")
DARKNET = ".data"
"""The suffix of Darknet's description of a data set."""
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
_SHOWN = 20
_MOST_GLANCE = 2**26


@dataclass(frozen=True)
class Description:
    """The description of a YOLO data set.

    ``splits`` are the entries of each split as written, relative to ``base`` or to the folder of ``file``.
    """

    file: Path
    base: Path
    splits: Mapping[str, tuple[str, ...]]
    classes: tuple[str, ...]
    points: KeyPoints | None = None
    defects: tuple[Defect, ...] = ()
    notes: tuple[str, ...] = ()


def find_description(data: Path) -> Path | None:
    """The file that describes a YOLO data set; None if there is none. Raises UserError for several."""
    if data.is_file():
        return data
    names = [data / f"data{suffix}" for suffix in _YAML]
    listing = [file for file in sorted(data.glob("*.y*ml")) if file.suffix in _YAML and not is_companion(file.name)]
    found = [file for file in names if file.exists()] or [file for file in listing if "names:" in _glance(file)]
    found = found or [file for file in sorted(data.glob(f"*{DARKNET}")) if "names" in _glance(file)]
    if len(found) > 1:
        listed = ", ".join(file.name for file in found)
        raise UserError(f"{data}: expected one YOLO file, found {listed}: give the right one itself")
    return found[0] if found else _class_list(data)


def _glance(file: Path) -> str:
    return read_regular(file, _MOST_GLANCE).decode("utf-8", errors="replace")


def _class_list(data: Path) -> Path | None:
    """A list of classes with label files next to it, as Label Studio and LabelImg write it."""
    places = [folder / name for folder in (data, data / "labels") for name in CLASS_LISTS]
    found = next((file for file in places if file.exists()), None)
    if found is None:
        return None
    labeled = any((data / "labels").glob("**/*.txt")) or any(
        file.with_suffix(".txt").exists() for file in data.glob("*") if file.suffix.lower() in {".jpg", ".png", ".jpeg"}
    )
    return found if labeled else None


def describe(file: Path) -> Description:
    """Read the file that describes a YOLO data set; raises UserError if it defines no classes."""
    if file.suffix in _YAML:
        return _of_yaml(file)
    return _of_darknet(file) if file.suffix == DARKNET else _of_class_list(file)


def _of_yaml(file: Path) -> Description:
    document = read_yaml(file)
    if not isinstance(document, dict) or "names" not in document:
        raise UserError(f"{file}: expected a YOLO data file with the keys 'names' and 'train', found no 'names'")
    defects: list[Defect] = []
    classes = _classes(document["names"], file, defects)
    if "nc" in document and whole(document["nc"]) != len(classes):
        what = f"nc is {shown(document['nc'])}, but there are {len(classes)} names; the names count"
        defects.append(Defect(file.name, what))
    base, notes = _base(document, file)
    splits = {key: entries for key in _SPLITS if (entries := _entries(document.get(key, ""), key, file))}
    return Description(file, base, splits, classes, _points(document.get("kpt_shape"), file), tuple(defects), notes)


def _classes(names: YamlValue, file: Path, defects: list[Defect]) -> tuple[str, ...]:
    if isinstance(names, dict):
        numbers = [whole(key) for key in names]
        if sorted(number for number in numbers if number is not None) != list(range(len(names))):
            found = shown(list(names)[:_SHOWN])
            raise UserError(f"{file}: expected 'names' to number the classes from 0 without a gap, found {found}")
        names = [value for _, value in sorted(zip(numbers, names.values(), strict=True), key=lambda pair: pair[0] or 0)]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{file}: expected class names under 'names', found {shown(names)}")
    return _named(names, file, defects)


def _named(names: Iterable[YamlValue], file: Path, defects: list[Defect]) -> tuple[str, ...]:
    cleaned = [clean_name(name, f"class {number}") for number, name in enumerate(names)]
    defects += [Defect(f"{file.name}: class {n}", what) for n, (_, what) in enumerate(cleaned) if what]
    check_distinct(dict(enumerate(name for name, _ in cleaned)), file)
    return tuple(name for name, _ in cleaned)


def _entries(value: YamlValue, key: str, file: Path) -> tuple[str, ...]:
    entries = value if isinstance(value, list) else [value]
    if not all(isinstance(entry, str) for entry in entries):
        raise UserError(f"{file}: expected a folder, a list or several of them under {key!r}, found {shown(value)}")
    return tuple(entry for entry in entries if isinstance(entry, str) and entry not in _NOTHING)


def _base(document: dict[str, YamlValue], file: Path) -> tuple[Path, tuple[str, ...]]:
    """The folder that entries are relative to: ``path``, or the folder of the YAML file if it does not exist."""
    path = document.get("path", "")
    if not isinstance(path, str):
        raise UserError(f"{file}: expected a folder under 'path', found {shown(path)}")
    if path in _NOTHING:
        return file.parent, ()
    base = file.parent / os.path.expanduser(path.replace("\\", "/"))  # noqa: PTH111 - Path's raises for no home
    if _is_folder(base):
        return base, ()
    return file.parent, (f"there is no folder {path!r}, the 'path' in {file.name}; its own folder is taken",)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _points(shape: YamlValue | None, file: Path) -> KeyPoints | None:
    if shape is None or (isinstance(shape, str) and shape in _NOTHING):
        return None
    sides = [whole(side) for side in shape] if isinstance(shape, list) else []
    match sides:
        case [int(count), int(numbers)] if count > 0 and numbers in (2, 3):
            return KeyPoints(count, numbers)
    raise UserError(f"{file}: expected a number of key points and 2 or 3 under 'kpt_shape', found {shown(shape)}")


def _of_darknet(file: Path) -> Description:
    keys: dict[str, str] = {}
    for line in read_text(file).splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and not key.startswith("#") and keys.setdefault(key, value) != value:
            raise UserError(f"{file}: expected every key once, found {key!r} as {keys[key]!r} and {value!r}")
    names = _below(file.parent, keys.get("names", ""))
    if names is None:
        raise UserError(f"{file}: expected the key 'names' with a list of classes, found {keys.get('names', 'none')!r}")
    defects: list[Defect] = []
    classes = _named(_lines(names), names, defects)
    if "classes" in keys and whole(keys["classes"]) != len(classes):
        what = f"classes is {keys['classes']!r}, but there are {len(classes)} names; the names count"
        defects.append(Defect(file.name, what))
    splits = {key: (keys[key],) for key in _SPLITS if keys.get(key)}
    return Description(file, file.parent, splits, classes, defects=tuple(defects))


def _below(folder: Path, entry: str) -> Path | None:
    """A file named by Darknet, found by the last parts of its path, which is often relative to a folder above."""
    parts = PurePosixPath(entry.replace("\\", "/")).parts
    options = [folder.joinpath(*parts[start:]) for start in range(len(parts)) if ".." not in parts[start:]]
    return next((option for option in options if option.is_file()), None)


def _lines(file: Path) -> list[YamlValue]:
    """The names in a list of classes, without blank lines at the end."""
    return list(read_text(file).rstrip().splitlines())


def _of_class_list(file: Path) -> Description:
    root = file.parent.parent if file.parent.name == "labels" else file.parent
    defects: list[Defect] = []
    classes = _named(_lines(file), file, defects)
    if not classes:
        raise UserError(f"{file}: expected one class a line, found none")
    inner = root / "images" if (root / "images").is_dir() else root
    options = {name: [root / f"{name}.txt", inner / name, root / name / "images", root / name] for name in _SPLITS}
    places = {name: next((path for path in paths if path.exists()), None) for name, paths in options.items()}
    splits = {name: (path.relative_to(root).as_posix(),) for name, path in places.items() if path is not None}
    whole_set = {"train": (inner.relative_to(root).as_posix(),)}
    note = f"there is no data.yaml; the classes are those of {file.name}"
    notes = (note,) if splits else (f"{note}, and all images are one split",)
    return Description(file, root, splits or whole_set, classes, defects=tuple(defects), notes=notes)
