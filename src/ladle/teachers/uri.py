"""Where a teacher comes from, as text: ``onnx:file.onnx?imgsz=416``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

from ladle.errors import UserError
from ladle.teachers.classes import COCO_CLASSES
from ladle.teachers.hub import snapshot_of

__all__ = ["KINDS", "TeacherURI", "members_of", "parse_uri", "with_class_map", "without_class_map"]

KINDS = {
    "ladle": "weights saved by ladle, runs/train/NAME/weights/best.safetensors",
    "onnx": "an ONNX file of any detector, onnx:file.onnx",
    "pt2": "a program of torch.export, pt2:file.pt2?run_code=1",
    "torchscript": "a TorchScript file, torchscript:file.pt?run_code=1",
    "hf": "a detector of transformers, hf:FOLDER or hf:org/name",
    "torchvision": "a detector of torchvision, torchvision:retinanet_resnet50_fpn_v2",
    "timm": "feature maps of a timm model, timm:resnet50",
    "predictions": "COCO results for the images of the data, predictions.json",
    "cache": "predictions recorded by `ladle teacher cache`, cache.jsonl",
    "dense": "dense predictions recorded by `ladle teacher cache --dense`, cache.ladle",
    "ensemble": "several of these, ensemble:first.onnx,second.safetensors",
    "ema": "the running average of the student, ema",
    "auxiliary": "a heavier head on the student's feature maps, auxiliary",
}
"""The kinds of teachers that text can name, with an example of each."""
OF_STUDENT = ("ema", "auxiliary")
"""The kinds of teachers that are made of the student."""
_FILES = ("classes", "class_map", "weights")
"""The options that name files."""
_NAMING = ("class_map", "classes")
"""Those whose files name classes."""
HEADER = "header.json"
"""The file of a recording of dense predictions that says what was recorded."""
_CHECKPOINT = (".json", ".safetensors", ".bin")
"""The suffixes of the files of a folder of transformers."""
_SUFFIXES = {
    ".safetensors": "ladle",
    ".onnx": "onnx",
    ".pt2": "pt2",
    ".json": "predictions",
    ".jsonl": "cache",
    ".ladle": "dense",
}


class TeacherURI(NamedTuple):
    """The kind of a teacher, the path or name after it, and its options."""

    text: str
    kind: str
    path: str
    options: dict[str, str]

    @property
    def is_foreign(self) -> bool:
        """Whether the teacher is not a detector of Ladle's."""
        return self.kind != "ladle"

    @property
    def is_of_student(self) -> bool:
        """Whether the teacher is made of the student, so that there is no file."""
        return self.kind in OF_STUDENT

    @property
    def is_recorded(self) -> bool:
        """Whether it holds predictions, and is no detector that runs."""
        return self.kind in ("predictions", "cache", "dense")

    def located(self) -> str:
        """The text with absolute paths, so that it can be read from another working directory."""
        if self.is_of_student:
            return self.text
        if self.kind == "ladle":
            return _absolute(self.path)
        if self.kind == "ensemble":
            return f"ensemble:{','.join(parse_uri(one).located() for one in members_of(self.path))}"
        files = {name: _absolute(value) if name in _FILES else value for name, value in self.options.items()}
        return f"{self.kind}:{_absolute(self.path)}{_query(files)}"

    def asked(self) -> str:
        """The text without the paths of files: the kind, and the options that say how the teacher is asked."""
        if self.kind == "ensemble":
            return f"ensemble:{','.join(parse_uri(one).asked() for one in members_of(self.path))}"
        options = (f"{name}={value}" for name, value in sorted(self.options.items()) if name not in _FILES)
        return "&".join((f"{self.kind}:", *options)).replace("&", "?", 1)

    def files(self) -> list[Path]:
        """The files that hold the teacher; none if it is made of the student."""
        if self.kind == "hf":
            folder = Path(self.path) if Path(self.path).is_dir() else snapshot_of(self.path)
            return sorted(one for one in folder.iterdir() if one.suffix in _CHECKPOINT) if folder is not None else []
        if self.kind == "dense":
            return [one for one in (Path(self.path) / HEADER,) if one.is_file()]
        named = [self.path, *([self.options["weights"]] if "weights" in self.options else [])]
        return [Path(one) for one in named if Path(one).is_file()]

    def named_files(self) -> dict[str, Path]:
        """The files that name classes, by option; by number and option for the members of an ensemble."""
        if self.kind == "ensemble":
            members = enumerate(map(parse_uri, members_of(self.path)), start=1)
            return {f"{place}/{name}": file for place, one in members for name, file in one.named_files().items()}
        given = {name: self.options[name] for name in _NAMING if self.options.get(name, "coco80") != "coco80"}
        return {name: Path(file) for name, file in given.items()}

    @property
    def is_there(self) -> bool:
        """Whether any of its files exists; true for what has a name or members."""
        return self.kind in ("torchvision", "timm", "ensemble", *OF_STUDENT) or bool(self.files())

    def check(self, known: Collection[str]) -> None:
        """Raise :class:`UserError` for an option that this kind does not have."""
        odd = [name for name in self.options if name not in known]
        if odd:
            takes = f"it takes {', '.join(f'?{name}=' for name in known)}" if known else "it takes none"
            raise UserError(f"--teacher {self.text}: {self.kind} has no option {odd[0]!r}; {takes}")

    def fail(self, message: str) -> UserError:
        """A :class:`UserError` about this teacher."""
        return UserError(f"--teacher {self.text}: {message}")

    def numbers(self, name: str, count: int, usual: tuple[float, ...]) -> tuple[float, ...]:
        """The numbers of an option, one for all or ``count`` with commas."""
        text = self.options.get(name)
        if text is None:
            return usual
        try:
            values = tuple(float(part) for part in text.split(","))
        except ValueError:
            values = ()
        if len(values) not in (1, count) or not all(abs(value) < 1e9 for value in values):
            raise self.fail(f"?{name}={text}: expected a number, or {count} with commas")
        return values * count if len(values) == 1 else values

    def wholes(self, name: str) -> tuple[int, ...] | None:
        """The whole positive numbers of an option; None if it is not given."""
        text = self.options.get(name)
        if text is None:
            return None
        parts = text.split(",")
        if not all(part.isascii() and part.isdecimal() and 0 < int(part[:6]) <= 8192 for part in parts):
            raise self.fail(f"?{name}={text}: expected whole numbers from 1 to 8192, with commas")
        return tuple(map(int, parts))

    def choice(self, name: str, among: Collection[str], usual: str) -> str:
        """One of several words."""
        word = self.options.get(name, usual)
        if word not in among:
            raise self.fail(f"?{name}={word}: expected one of {', '.join(filter(None, among))}")
        return word

    def classes(self) -> tuple[str, ...] | None:
        """The names of ``?classes=``, from a text file or COCO's by ``coco80``; None if it is not given."""
        given = self.options.get("classes")
        if given == "coco80":
            return COCO_CLASSES
        return None if given is None else tuple(self.lines("classes"))

    def lines(self, name: str) -> list[str]:
        """The lines of the text file that an option names, without empty ones."""
        file = Path(self.options[name])
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, ValueError):
            raise self.fail(f"?{name}={file}: expected a text file with one name in each line") from None
        return [line.strip() for line in text.splitlines() if line.strip()]


def _absolute(path: str) -> str:
    """The absolute path of a file that exists; any other text as it is."""
    try:
        return str(Path(path).absolute()) if Path(path).exists() else path
    except OSError:  # too long to be a path
        return path


def parse_uri(text: str) -> TeacherURI:
    """Parse the text of a teacher; without a kind, the suffix of the file tells it.

    Raises:
        UserError: for an unknown kind.

    Examples:
        >>> from ladle.teachers.uri import parse_uri
        >>> uri = parse_uri("onnx:yolo.onnx?imgsz=416&resize=letterbox")
        >>> uri.kind, uri.path, uri.options["imgsz"]
        ('onnx', 'yolo.onnx', '416')
    """
    if text.startswith("ensemble:"):
        return TeacherURI(text, "ensemble", text.partition(":")[2], {})
    place, _, query = (text, "", "") if Path(text).exists() else text.partition("?")
    kind, colon, path = place.partition(":")
    if place in OF_STUDENT and not Path(place).exists():
        kind, colon, path = place, ":", ""
    if not colon or (kind not in KINDS and Path(place).exists()):
        kind, path = _SUFFIXES.get(Path(place).suffix.lower(), "ladle"), place
    if kind not in KINDS:
        raise UserError(f"--teacher {text}: expected {', '.join(KINDS.values())}; {kind!r} is no kind of teacher")
    pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)  # a + stays what it is
    if len(dict(pairs)) < len(pairs) or (query and not pairs):
        raise UserError(f"--teacher {text}: expected options such as ?imgsz=416&bgr=1, each once")
    uri = TeacherURI(text, kind, path, dict(pairs))
    if not uri.is_foreign:
        uri.check(())
    return uri


def with_class_map(text: str, file: str) -> str:
    """The text of a teacher with the option ``class_map``.

    Raises:
        UserError: if the teacher has this option already or cannot have it.

    Examples:
        >>> from ladle.teachers.uri import with_class_map
        >>> with_class_map("onnx:yolo.onnx?imgsz=416", "names.yaml")
        'onnx:yolo.onnx?imgsz=416&class_map=names.yaml'
    """
    uri = parse_uri(text)
    if uri.kind in ("ladle", "ensemble"):
        raise UserError(
            f"--class-map {file}: the classes of {text} are matched by name; expected a single teacher of another "
            "origin, such as onnx:file.onnx"
        )
    if "class_map" in uri.options:
        raise UserError(f"--class-map {file}: --teacher {text} names a map already; leave one of them out")
    return f"{text}{'&' if uri.options else '?'}class_map={quote(file, safe='/,:')}"


def without_class_map(text: str) -> str:
    """The text of a teacher without the option ``class_map``; one that has no such option stays as it is."""
    uri = parse_uri(text)
    if "class_map" not in uri.options:
        return text
    options = {name: value for name, value in uri.options.items() if name != "class_map"}
    return f"{uri.kind}:{uri.path}{_query(options)}"


def _query(options: Mapping[str, str]) -> str:
    """Options as the end of a text, as :func:`parse_uri` reads them; nothing for none."""
    return "?" * bool(options) + "&".join(f"{name}={quote(value, safe='/,:')}" for name, value in options.items())


def members_of(text: str) -> list[str]:
    """The texts of the members, which are separated by commas; a comma inside options separates nothing.

    Examples:
        >>> from ladle.teachers.uri import members_of
        >>> members_of("onnx:a.onnx?mean=1,2,3,b.safetensors")
        ['onnx:a.onnx?mean=1,2,3', 'b.safetensors']
    """
    return re.split(r",(?=[a-z0-9]+:|[^,?&=]*\.(?:safetensors|onnx|pt2|jsonl?|ladle)(?:[?,]|$))", text)
