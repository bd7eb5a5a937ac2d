"""Command lines with odd values of all kinds: each does what it says or is refused in a sentence.

``python -m tests.fuzz.command_lines --count 1000`` tries so many and counts how they ended. Everything happens but the
training itself: a run ends where its first step would be. A small part of it is a test.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import torch

import ladle.engine
from ladle import recipes
from ladle.cli.main import VERBS, _verb
from ladle.data.scenes import CLASSES, write_coco
from ladle.detectors import save_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from tests.fuzz.forked import SECONDS, judge, run_forked

NUMBERS = (
    *("0", "-1", "1", "2", "3", "1.5", "-0.0", "1e3", "1e400", "-1e400", "1e-400", "nan", "-nan", "inf", "-inf", "NaN"),
    *("1000000000000", "9" * 30, "9" * 5000, "0x10", "010", "1_000", "+4", " 4", "4 ", "٤", "1,5", "1/2", "--1", "-"),
)
WORDS = (
    *("", " ", "null", "None", "true", "false", "True", "yes", "x", "a b", "a=b", "=", "==", "-", "-x", "~", "*", "?"),
    *(
        "../..",
        ".",
        "..",
        "data",
        "teacher.safetensors",
        "broken.safetensors",
        "nowhere",
        "data/train",
        "%s",
        "{}",
        "{0}",
    ),
    *(
        "[1, 2]",
        "{a: 1}",
        "[",
        "!!int 3",
        "&a",
        "*a",
        "$HOME",
        "`ls`",
        "a\nb",
        "a\tb",
        "a\x00b",
        "\ud800",
        "\udcff",
        "é",
    ),
    *(
        "目标",
        "x" * 300,
        "x" * 20_000,
        "paa",
        "paa-",
        "-tiny",
        "paa-tiny-tiny",
        "paa+dist+dist-tiny",
        "fcos-resnet18.zzz",
    ),
    *("cascade-tiny", "fasterrcnn-tiny", "retinanet+cop-tiny", "paa-vit_tiny_patch16_224", "paa-nosuch", "hf-hub:a/b"),
    *("lad", "lad+pkd", "+", "lad+", "lad+lad", "pkd=2", "pkd=nan", "pkd=", "=2", "pkd=2,pkd=3", "cross+ld", "solad"),
    *(
        "PAA",
        "paa",
        "ATSS",
        "scenes",
        "scenes:",
        "scenes:0",
        "scenes:-1",
        "scenes:x",
        "scenes:2",
        "r18,r34",
        ",",
        "tiny,",
    ),
)
SMALL: dict[str, tuple[str, ...]] = {
    "epochs": ("1", "2"),
    "batch": ("1", "2"),
    "imgsz": ("32", "64", "65"),
    "devices": ("1",),
    "workers": ("0", "1"),
    "device": ("cpu", "auto"),
    "data": ("data", "data", "nowhere"),
    "model": ("teacher.safetensors", "paa-tiny", "atss-tiny"),
    "student": ("paa-tiny", "gfl-tiny", "fasterrcnn-tiny"),
    "first": ("paa-tiny",),
    "second": ("paa-mini", "paa-tiny"),
    "teacher": ("teacher.safetensors",),
    "method": ("lad", "solad", "lad+pkd", "soft", "lad-rpn"),
    "source": ("data/val", "data/val/000001.png"),
    "against_teacher": ("teacher.safetensors",),
    "against_model": ("teacher.safetensors", "paa-tiny"),
    "against_assigner": ("ATSS", "PAA(topk=3)"),
    "images": ("1", "2"),
    "most": ("1", "2"),
    "out": ("out",),
    "timm": ("resnet1*", "nosuch*"),
    "pretrained": ("false",),
    "resume": ("nowhere", "data", "null"),
}
"""Values that a flag may well have and that cost little."""
GARBAGE = (
    b"",
    b"\xff\xfe\x00",
    b"[" * 3000,
    b"a: &x [1]\nb: *x",
    b"epochs: 1\nepochs: 2",
    b"- 3",
    b"3",
    b"epochs: [1, [2, {a: 3}]]",
    b"epochs: 1.0\nbatch: '4'",
    b"run: {epochs: 3}",
    b"config: other.yaml",
    b"epochs: !!python/object/apply:os.system ['true']",
    b"\x00" * 100,
    b"x" * 40_000,
    b"quiet: yes\nseed: 1e3\nlr: 1e-3",
    b"epochs: 99999999999999999999999999999999",
    b"lr: .nan",
    b"{epochs: 2, batch: {}}",
    b"help: true\nprint_config: true",
    "data: data\nmodel: paa-tiny\nimgsz: 64\nname: ü".encode(),
    b"1: 2\nnull: 3",
    b"? [a]\n: b",
)
"""What a file of flags may hold."""


def lines(rng: random.Random) -> Iterator[list[str]]:
    """Command lines without end."""
    while True:
        name = rng.choice((*VERBS, *VERBS, *VERBS, "trian", "", "--help", "--version", "-x", "\ud800", "a\nb"))
        if name not in VERBS:
            yield [name, *rng.sample(WORDS, rng.randrange(3))]
            continue
        verb = _verb(name, getattr(recipes, name.replace(" ", "_")))
        given = _plausible(name, rng)
        odd = rng.choices(list(verb.arguments), k=rng.choice((0, 0, 1, 1, 1, 2, 3)))
        words = [word for key, value in given.items() if key not in odd for word in (f"--{key}", value)]
        for key in odd:
            words += _spelled(key, _odd(verb.arguments[key].hint, key, rng), rng)
        if rng.random() < 0.2:
            words += rng.choice(
                (["--config", rng.choice(("garbage.yaml", "data", "nowhere.yaml", "fifo"))], ["--config"])
            )
        if rng.random() < 0.15:
            words.insert(
                rng.randrange(len(words) + 1), rng.choice((*WORDS, "--", "--zzz", "--epoch_s=3", "--print_config"))
            )
        yield [*name.split(), *words]


def _plausible(name: str, rng: random.Random) -> dict[str, str]:
    """What makes a verb go a long way."""
    wanted = {
        "demo": ("out",),
        "train": ("data", "imgsz", "batch", "device"),
        "distill": ("data", "student", "teacher", "method", "imgsz", "batch", "device"),
        "colearn": ("data", "first", "second", "imgsz", "batch", "device"),
        "val": ("data", "device", "out"),
        "predict": ("source", "device", "out"),
        "assign show": ("data", "model", "device", "out"),
        "assign stats": ("data", "model", "device", "out"),
        "assign diff": ("data", "model", "against_teacher", "device", "out"),
        "teacher probe": ("data", "device", "out"),
        "teacher cache": ("data", "device", "out"),
        "convert": (),
        "report": (),
        "push": (),
        "export": (),
        "bench": (),
        "check": ("data",),
        "models": ("timm",),
    }[name]
    given = {key: SMALL[key][0] if rng.random() < 0.8 else rng.choice(SMALL[key]) for key in wanted}
    if name in ("val", "predict"):
        given["model"] = "teacher.safetensors"
    if name == "train":
        given["model"] = rng.choice(("paa-tiny", "fasterrcnn-tiny", "fcos-tiny"))
    if name == "distill":
        given["allow-weak-teacher"] = "true"
    return {key: value for key, value in given.items() if rng.random() < 0.98}


def _odd(hint: Any, key: str, rng: random.Random) -> str:
    choices = [str(choice) for choice in get_args(hint)]
    kinds: list[Sequence[str]] = [NUMBERS, WORDS, SMALL.get(key, ("0.5", "1")), choices or WORDS]
    return rng.choice(rng.choice(kinds))


def _spelled(key: str, value: str, rng: random.Random) -> list[str]:
    key = rng.choice((key, key.replace("_", "-")))
    return rng.choice(([f"--{key}", value], [f"--{key}={value}"], [f"{key}={value}"], [f"--{key}"]))


def make_place(folder: Path) -> None:
    """A data set, a teacher, and files in the way, all of which the command lines name."""
    write_coco(folder / "data", train=4, val=2, size=64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_detector(detector_spec("paa-tiny", CLASSES, imgsz=64).build(), folder / "teacher.safetensors")
    (folder / "broken.safetensors").write_bytes(b"\x10" + bytes(30))
    os.mkfifo(folder / "fifo")


def no_training(*given: object) -> None:
    """What stands in the place of ``ladle.engine.launch``."""
    raise UserError("here the training would begin")


def main() -> int:
    """Run a campaign; return 1 if anything ended badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    ladle.engine.one_process = lambda *_: None
    ladle.engine.launch = no_training
    rng, ends = random.Random(given.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        make_place(Path(place))
        os.chdir(place)
        stream = lines(rng)
        for _ in range(given.count):
            line = next(stream)
            Path("garbage.yaml").write_bytes(rng.choice(GARBAGE))
            ended = run_forked(line)
            end = judge(ended)
            ends["would train" if "the training would begin" in ended.said else end] += 1
            if end not in ("accepted", "refused"):
                sys.stdout.write(f"{end} {ended.code}: {[word[:60] for word in line]}: {ended.said.strip()[-400:]!r}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{given.count} lines, {SECONDS} s each at most: {dict(ends)}\n")
    return int(not set(ends) <= {"accepted", "refused", "would train"})


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main())
