"""Read damaged annotations by the thousand: never a traceback, a hang, a box out of place or memory without bound.

    python tests/fuzz/annotations.py --format voc --count 100000 --seed 1

writes data sets with ``count`` annotations in all, many of their values odd, and as many mutants of small files as
``--mutants`` says, reads each, and keeps the input of every finding in ``--keep``. Ends with 1 where there is one.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from ladle.data import read
from ladle.errors import UserError

FORMATS = ("coco", "yolo", "voc")
PICTURES, A_SET = 40, 2000
"""Images and annotations of a data set in which many values are odd."""
FEW_PICTURES, FEW = 5, 12
"""Those of one whose files are damaged."""
PATIENCE = 30.0
"""Seconds that one reading may take."""
SIDES = [(1, 1), (64, 48), (48, 64), (96, 64), (33, 7), (128, 128)]
NAMES = ["cat", "dog", "night heron", "Über", "犬", "no"]
NUMBERS = [
    *("0", "-0", "1", "-1", "0.5", "2", "64", "1e3", "1e308", "-1e308", "1e400", "nan", "NaN", "inf", "-Infinity"),
    *(
        "007",
        "1_0",
        "0x10",
        "1,5",
        "١٢",
        "½",
        "",
        " ",
        "x",
        "null",
        "true",
        "yes",
        "off",
        "12:30",
        "1e-400",
        "\u2212" + "3",
    ),
    *(
        "9" * 30,
        "9" * 400,
        "1" * 5000,
        "[1,2]",
        "[1, 2, 3, 4]",
        "{}",
        "\ufeff7",
        "7\u00a0",
        "$x",
        "a\tb",
        "%s%n",
        "../x",
    ),
]
VALUES: list[object] = [
    *(None, True, False, 0, -1, 1, 2.5, 7.0, 1e308, -1e308, math.nan, math.inf, -math.inf, 2**53 + 1, 2**63, 10**400),
    *([], {}, [[]], [1], [1, 2, 3, 4], [[1, 2, 3, 4, 5, 6]], {"size": [3, 3], "counts": [9]}, {"counts": "04"}, [None]),
    *("\x00", "\x1b[31m", "\ud800", "a" * 3000, "\u202e", "/etc/passwd", "..", "C:\\x.png", "p0.png", "P0.PNG"),
    *NUMBERS,
]
TOKENS = {
    ".json": [
        '"',
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "NaN",
        "1e999",
        "\\ud800",
        '"id":1,',
        "[" * 50,
        '"bbox":[1,2,3],',
    ],
    ".yaml": [
        "\n",
        " ",
        "\t",
        ":",
        "- ",
        "names:",
        "&a ",
        "*a",
        "!!python/x ",
        "<<: ",
        "{",
        "[",
        "'",
        "# ",
        "kpt_shape: [2, 2]\n",
    ],
    ".xml": [
        "<",
        ">",
        "</object>",
        "<object>",
        "&x;",
        "<!DOCTYPE a [<!ENTITY x 'y'>]>",
        "<a>" * 40,
        "]]>",
        "<![CDATA[",
    ],
    ".txt": [
        "\n",
        " ",
        "\t",
        "0 ",
        "1 0.5 0.5 0.2 0.2\n",
        "0 0.1 0.1 0.9 0.1 0.9 0.9\n",
        "-",
        "e",
        ".",
        "\u2028",
        "nan ",
    ],
}
RAW = [b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xa0", b"\xed\xa0\x80", b"\r", b"\x1a"]


@dataclass
class Outcome:
    """What a run saw: readings, how many were refused, what went wrong, the longest reading in seconds."""

    readings: int = 0
    refused: int = 0
    findings: list[str] = field(default_factory=list)
    longest: float = 0.0


class TooSlowError(Exception):
    """A reading took longer than PATIENCE."""


def make_images(folder: Path) -> None:
    """PICTURES small files ``p0.png`` ..., of many sizes."""
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        Image.new("RGB", SIDES[number % len(SIDES)], (9 * number % 256, 90, 90)).save(folder / f"p{number}.png")


def box(rng: random.Random, number: int) -> list[float]:
    """Corners that mostly lie inside image ``number``."""
    width, height = SIDES[number % len(SIDES)]
    x, y = rng.uniform(-2, width), rng.uniform(-2, height)
    return [x, y, x + rng.uniform(0, width / 2), y + rng.uniform(0, height / 2)]


def write_coco(rng: random.Random, folder: Path, total: int, count: int, odd: float) -> list[Path]:
    """A COCO folder; returns the files that may be mutated."""

    def strange(value: object, factor: float = 1.0) -> object:
        return rng.choice(VALUES) if rng.random() < odd * factor else value

    images = [
        {"id": strange(n, 0.02), "file_name": strange(f"p{n}.png", 0.2), "width": strange(w), "height": strange(h)}
        for n in range(total)
        for w, h in [SIDES[n % len(SIDES)]]
    ]
    annotations = []
    for _ in range(count):
        image = rng.randrange(total)
        x1, y1, x2, y2 = box(rng, image)
        entry: dict[str, object] = {
            "id": strange(total),
            "image_id": strange(image),
            "category_id": strange(1 + rng.randrange(len(NAMES)), 0.3),
            "bbox": strange([strange(value) for value in (x1, y1, x2 - x1, y2 - y1)]),
            "iscrowd": strange(0, 0.3),
        }
        if rng.random() < 0.2:
            entry["segmentation"] = strange([[strange(value) for value in (x1, y1, x2, y1, x2, y2)]])
        if rng.random() < 0.1 or rng.random() < odd:
            entry.pop(rng.choice(list(entry)))
        annotations.append(entry)
    categories = [{"id": strange(n + 1, 0.02), "name": strange(name, 0.1)} for n, name in enumerate(NAMES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir()
    file = folder / "annotations" / "instances_train.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    return [file]


def write_yolo(rng: random.Random, folder: Path, total: int, count: int, odd: float) -> list[Path]:
    """A YOLO folder; returns the files that may be mutated."""
    rows: dict[int, list[str]] = {number: [] for number in range(total)}
    for _ in range(count):
        image = rng.randrange(total)
        width, height = SIDES[image % len(SIDES)]
        x1, y1, x2, y2 = (v / s for v, s in zip(box(rng, image), (width, height) * 2, strict=True))
        words = [
            str(rng.randrange(len(NAMES))),
            *(f"{v:.5f}" for v in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)),
        ]
        if rng.random() < odd:
            words[rng.randrange(len(words))] = rng.choice(NUMBERS)
        if rng.random() < odd:
            words += [rng.choice(NUMBERS) for _ in range(rng.randrange(1, 9))]
        rows[image].append(rng.choice([" ", "\t", "  "]).join(words))
    (folder / "labels").mkdir()
    files = [folder / "labels" / f"p{number}.txt" for number in rows]
    for file, lines in zip(files, rows.values(), strict=True):
        file.write_text("\n".join(lines), encoding="utf-8")
    shape = f"kpt_shape: {rng.choice(NUMBERS)}\n" if rng.random() < odd else ""
    names = "".join(
        f"  {n}: {rng.choice(NUMBERS) if rng.random() < odd / 5 else name}\n" for n, name in enumerate(NAMES)
    )
    description = folder / "data.yaml"
    description.write_text(f"path: .\ntrain: images\nnc: 6\n{shape}names:\n{names}", encoding="utf-8")
    return [description, *files]


def write_voc(rng: random.Random, folder: Path, total: int, count: int, odd: float) -> list[Path]:
    """A VOC folder; returns the files that may be mutated."""

    def tag(name: str, text: object) -> str:
        if rng.random() < odd:
            text = rng.choice([value for value in NUMBERS if "\x00" not in value])
        shown = f"<{name}>{escape(str(text))}</{name}>"
        return "" if rng.random() < odd / 3 else 2 * shown if rng.random() < odd / 9 else shown

    things: dict[int, list[str]] = {number: [] for number in range(total)}
    for _ in range(count):
        image = rng.randrange(total)
        sides = "".join(
            tag(n, f"{v:.2f}") for n, v in zip(("xmin", "ymin", "xmax", "ymax"), box(rng, image), strict=True)
        )
        inner = tag("name", rng.choice(NAMES)) + (tag("difficult", 0) if rng.random() < 0.1 else "")
        turn = f"<attributes><attribute><name>rotation</name>{tag('value', 30)}</attribute></attributes>"
        inner += (
            f"<bndbox>{sides}</bndbox>"
            if rng.random() > odd
            else rng.choice(["", turn, "<part/>", "<polygon><x1>1</x1></polygon>"])
        )
        things[image].append(f"<object>{inner}</object>")
    (folder / "Annotations").mkdir()
    files = [folder / "Annotations" / f"p{number}.xml" for number in things]
    for number, (file, parts) in enumerate(zip(files, things.values(), strict=True)):
        width, height = SIDES[number % len(SIDES)]
        size = f"<size>{tag('width', width)}{tag('height', height)}</size>"
        file.write_text(
            f"<annotation>{tag('filename', file.stem)}{size}{''.join(parts)}</annotation>", encoding="utf-8"
        )
    return files


WRITERS: dict[str, Callable[[random.Random, Path, int, int, float], list[Path]]] = {
    "coco": write_coco,
    "yolo": write_yolo,
    "voc": write_voc,
}
FOLDERS = {"coco": "train", "yolo": "images", "voc": "JPEGImages"}


def mutate(rng: random.Random, file: Path) -> None:
    """Damage a file in one to three places."""
    content = file.read_bytes()
    tokens = TOKENS[file.suffix]
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + int(rng.expovariate(0.05)))
        other = rng.randrange(len(content) + 1)
        piece = content[start:end]
        content = rng.choice(
            [
                content[:start] + content[end:],
                content[:end] + piece * rng.choice([1, 2, 50]) + content[end:],
                content[:other] + piece + content[other:],
                content[:start] + rng.choice(tokens).encode() * rng.choice([1, 1, 1, 300]) + content[start:],
                content[:start] + rng.choice(RAW) + content[start:],
                content[:start] + rng.choice(NUMBERS).encode() + content[end:],
                content[:start],
            ]
        )
    file.write_bytes(content)


def restructure(rng: random.Random, file: Path) -> None:
    """Damage the structure of a JSON file that stays JSON: values replaced, moved, dropped and doubled."""
    document = json.loads(file.read_text(encoding="utf-8"))
    for _ in range(rng.randint(1, 4)):
        nodes = list(_containers(document))
        node, other = rng.choice(nodes), rng.choice(nodes)
        place = rng.choice(list(node) if isinstance(node, dict) else range(len(node))) if node else None
        if place is None:
            continue
        move = rng.randrange(4)
        if move == 0:
            node[place] = rng.choice([*VALUES, json.loads(json.dumps(other))])
        elif move == 1:
            node.pop(place)
        elif isinstance(node, dict):
            node[rng.choice(["id", "bbox", "image_id", "segmentation", "iscrowd", "size", "x"])] = node[place]
        else:
            node.append(json.loads(json.dumps(node[place])))
    file.write_text(json.dumps(document), encoding="utf-8")


def _containers(node: object) -> Iterator[dict | list]:
    if isinstance(node, dict | list):
        yield node
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _containers(inner)


def complaint(folder: Path, on_defect: str, outcome: Outcome) -> str | None:
    """Read the train split, and say what is wrong with how that went."""
    started = time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        dataset = read(folder, "train", on_defect, decode=False)
    except UserError as error:
        outcome.refused += 1
        return None if "\n" not in str(error) and "\x1b" not in str(error) else f"a message of several lines: {error!r}"
    except TooSlowError:
        return f"still reading after {PATIENCE} s"
    except Exception:  # any other is what is looked for
        return traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        outcome.readings += 1
        outcome.longest = max(outcome.longest, time.perf_counter() - started)
    return next(_broken_promises(dataset), None)


def _broken_promises(dataset) -> Iterator[str]:
    if len({image.id for image in dataset.images}) < len(dataset):
        yield "images share an id"
    if len(set(dataset.classes)) < len(dataset.classes) or not all(dataset.classes):
        yield f"classes cannot be told apart: {dataset.classes!r}"
    if not all(name.encode("utf-8") and "\n" not in name for name in dataset.classes):
        yield f"classes cannot be printed: {dataset.classes!r}"
    for image in dataset.images:
        boxes = image.boxes
        limit = np.array([image.width, image.height] * 2)
        if not (np.isfinite(boxes).all() and (boxes >= 0).all() and (boxes <= limit).all()):
            yield f"boxes outside {image.file.name}: {boxes.tolist()}"
        if not (boxes[:, 2:] - boxes[:, :2] >= 0.499).all():
            yield f"boxes without a side in {image.file.name}: {boxes.tolist()}"
        if not ((image.labels >= 0) & (image.labels < len(dataset.classes))).all():
            yield f"labels beyond the classes in {image.file.name}"
    _ = dataset.summary().encode("utf-8", "strict"), *(str(defect) for defect in dataset.defects)


def attack(kind: str, count: int, mutants: int, seed: int, keep: Path | None = None) -> Outcome:
    """Read ``count`` annotations in odd data sets, then mutants of a small one; keep the input of every finding."""
    outcome = Outcome()
    signal.signal(signal.SIGALRM, _ring)
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        make_images(images)
        sets = [(min(A_SET, count - done), False) for done in range(0, count, A_SET)]
        for number, (size, mutant) in enumerate([*sets, *[(FEW, True)] * mutants]):
            rng = random.Random(f"{seed} {kind} {number}")
            folder = Path(scratch) / "set"
            folder.mkdir()
            (folder / FOLDERS[kind]).symlink_to(images, target_is_directory=True)
            imaged = FEW_PICTURES if mutant else PICTURES
            files = WRITERS[kind](rng, folder, imaged, size, 0.0 if mutant else rng.choice([0.002, 0.02, 0.2]))
            if mutant:
                damage = restructure if kind == "coco" and rng.random() < 0.6 else mutate
                damage(rng, rng.choice(files[:3]))
            wrong = complaint(folder, rng.choice(["repair", "skip", "skip"]), outcome)
            if wrong is not None:
                outcome.findings.append(f"{kind} {'mutant' if mutant else 'set'} {number} of seed {seed}: {wrong}")
                if keep is not None:
                    shutil.copytree(folder, keep / f"{kind}-{seed}-{number}", dirs_exist_ok=True)
            shutil.rmtree(folder)
    return outcome


def _ring(signum: int, frame: object) -> None:
    raise TooSlowError


def main() -> int:
    """Attack the readers that the command line names and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--format", choices=[*FORMATS, "all"], default="all")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--mutants", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    given = parser.parse_args()
    found = 0
    for kind in FORMATS if given.format == "all" else [given.format]:
        outcome = attack(kind, given.count, given.mutants, given.seed, given.keep)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(*outcome.findings, sep="\n")
        print(
            f"{kind}: {given.count} annotations and {given.mutants} mutants in {outcome.readings} readings, "
            f"{outcome.refused} refused in a sentence, {len(outcome.findings)} findings, "
            f"longest {outcome.longest:.2f} s, peak memory {peak:.0f} MB"
        )
        found += len(outcome.findings)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
