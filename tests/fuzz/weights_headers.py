"""Weights whose headers and tensors were changed in ways a stranger might: each is read well or refused in a sentence.

``python -m tests.fuzz.weights_headers --count 1500`` tries so many through ``ladle predict`` and counts how they ended;
``--verb val`` and ``--verb distill`` hand the same files to those. Small parts of it are tests.
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ladle.data.scenes import CLASSES, write_coco
from ladle.detectors import save_detector
from ladle.families import detector_spec
from tests.fuzz.forked import SECONDS, judge, run_forked

BASES = (
    "paa-tiny",
    "retinanet-tiny",
    "gfl-tiny",
    "autoassign-tiny",
    "paa+cop-tiny",
    "fasterrcnn-tiny",
    "cascade-tiny",
    "fcos-r18",
    "atss-mobilenetv3_small_100",
)
"""What the changed files were before."""

ODD = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 64, 100_000, 1_000_000, 2**31, 2**63, 10**30, 10**400, -(10**400)),
    *(0.0, -0.5, 0.5, 1.5, 1e-300, 1e300, float("nan"), float("inf"), -float("inf")),
    *("", "zzz", "paa-r18", "tiny", "r18", "resnet18", "vit_base_patch16_224", "resnet18.zzz", "hf-hub:a/b", "\ud800"),
    *("local-dir:.", "../../etc/passwd", "x" * 20_000, "a\nb", "{}", "1", "nan"),
    *([], [[]], [None], [1], [1, 2], ["a"] * 7, [0.5] * 3, list(range(1000)), [[[[[[[[[[1]]]]]]]]]]),
    *({}, {"a": 1}, {"width": 5}, {"keep": [1, 2]}, {"": None}),
)
"""What a value may be replaced by."""


class Changed(NamedTuple):
    """A file that was changed, and how."""

    how: str
    raw: bytes


def parts_of(raw: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file and the bytes behind it."""
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def joined(header: dict[str, Any], body: bytes) -> bytes:
    """A safetensors file of a header and the bytes behind it."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def with_spec(raw: bytes, text: str) -> bytes:
    """The file with another description of its detector."""
    header, body = parts_of(raw)
    return joined(header | {"__metadata__": {"ladle": text}}, body)


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested plain data, at every depth."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def at(values: Any, path: tuple[Any, ...]) -> Any:
    """What stands at a place."""
    for key in path:
        values = values[key]
    return values


def changes(raw: bytes, secret: str, rng: random.Random) -> Iterator[Changed]:
    """Changed files without end: the spec's values, its text, the tensors and the bytes."""
    spec = json.loads(parts_of(raw)[0]["__metadata__"]["ladle"])
    kinds = (_value, _value, _value, _value, _value, _value, _several, _key, _text, _tensor, _tensor, _bytes)
    while True:
        yield rng.choice(kinds)(raw, deepcopy(spec), secret, rng)


def _value(raw: bytes, spec: dict[str, Any], secret: str, rng: random.Random) -> Changed:
    path = rng.choice(list(places(spec)))
    value = rng.choice((*ODD, secret, _near(at(spec, path), rng), _near(at(spec, path), rng)))
    at(spec, path[:-1])[path[-1]] = value
    return Changed(f"{'.'.join(map(str, path))} = {value!r:.60}", with_spec(raw, json.dumps(spec)))


def _near(value: Any, rng: random.Random) -> Any:
    """A value of the same kind, which may well pass."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice((value + 1, value - 1, value * 2, -value, value / 3, float(value), str(value), value * 1000))
    if isinstance(value, list):
        return rng.choice((value[:-1], [*value, *value[:1]], value * 2, value[::-1], dict(enumerate(value))))
    if isinstance(value, str):
        return rng.choice((value.upper(), value[:-1], value * 2, [value]))
    return [value]


def _several(raw: bytes, spec: dict[str, Any], secret: str, rng: random.Random) -> Changed:
    how = []
    for _ in range(rng.randint(2, 5)):
        one = _value(raw, spec, secret, rng)
        how.append(one.how)
        spec = json.loads(parts_of(one.raw)[0]["__metadata__"]["ladle"])
    return Changed("; ".join(how), with_spec(raw, json.dumps(spec)))


def _key(raw: bytes, spec: dict[str, Any], secret: str, rng: random.Random) -> Changed:
    path = rng.choice([path for path in places(spec) if isinstance(at(spec, path[:-1]), dict)])
    inside, name = at(spec, path[:-1]), path[-1]
    value = inside.pop(name)
    if rng.random() < 0.5:
        inside[rng.choice(("", "x", name.upper(), f"{name}s", "__class__", "self", "weights"))] = value
    return Changed(
        f"key {'.'.join(map(str, path))} is gone, {list(inside)[-1:]} last", with_spec(raw, json.dumps(spec))
    )


def _text(raw: bytes, spec: dict[str, Any], secret: str, rng: random.Random) -> Changed:
    text = json.dumps(spec)
    place = rng.randrange(len(text))
    many = rng.choice((10, 1000, 100_000))
    changed = rng.choice(
        (
            text[:place],
            text[:place] + rng.choice('{}[]",:0e-\\n') + text[place + 1 :],
            text[:place] + text[rng.randrange(len(text)) :],
            "[" * many,
            '{"a":' * many,
            "9" * many,
            f'{{"head": {text}, {text[1:]}',
            text.replace('{"', '{"name": "twice", "', 1),
            json.dumps([spec]),
            json.dumps(text),
            "",
            "null",
            " " * many + text,
            text + "x",
            text.replace("0", "00", 1),
            text.replace("[", "[" * many, 1),
        )
    )
    return Changed(f"text {changed:.40} of {len(changed)}", with_spec(raw, changed))


def _tensor(raw: bytes, spec: dict[str, Any], secret: str, rng: random.Random) -> Changed:
    header, body = parts_of(raw)
    name = rng.choice([key for key in header if key != "__metadata__"])
    one = header[name]
    start, end = one["data_offsets"]
    what = rng.choice(("nan", "inf", "huge", "gone", "renamed", "dtype", "shape", "more", "zero"))
    if what in ("nan", "inf", "huge"):
        value = struct.pack("<f", {"nan": float("nan"), "inf": float("inf"), "huge": 3e38}[what])
        size = end - start if what == "huge" else 4
        body = body[:start] + (value * size)[:size] + body[start + size :]
    elif what == "zero":
        body = bytes(len(body))
    elif what == "gone":
        header.pop(name)
    elif what == "renamed":
        header[f"{name}x"] = header.pop(name)
    elif what == "dtype":
        one["dtype"] = rng.choice(("F16", "BF16", "F64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "I64", "ZZ"))
    elif what == "shape":
        one["shape"] = rng.choice(([], one["shape"][::-1], [*one["shape"], 1], [-1], [10**12], [0], "x", [2**64]))
    else:
        header["extra"] = {"dtype": "F32", "shape": [2], "data_offsets": [len(body), len(body) + 8]}
        body += bytes(8)
    return Changed(f"tensor {name}: {what}", joined(header, body))


def _bytes(raw: bytes, spec: dict[str, Any], secret: str, rng: random.Random) -> Changed:
    place = rng.choice((rng.randrange(len(raw)), rng.randrange(8), rng.randrange(2000)))
    what = rng.choice(("cut", "flip", "length", "longer", "noise"))
    if what == "cut":
        return Changed(f"cut after {place} bytes", raw[:place])
    if what == "length":
        return Changed("another length of the header", struct.pack("<Q", rng.choice((0, 1, 10**9, 2**63))) + raw[8:])
    if what == "longer":
        return Changed("more bytes behind", raw + b"x" * 100)
    if what == "noise":
        return Changed("noise", rng.randbytes(place + 1))
    return Changed(f"byte {place} flipped", raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :])


def make_base(name: str, file: Path) -> bytes:
    """An untrained detector in a file."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        detector = detector_spec(name, CLASSES, imgsz=64).build()
    save_detector(detector, file, half=False)
    return file.read_bytes()


def words_of(verb: str, folder: Path, file: Path) -> list[str]:
    """The command line that hands a file to a verb."""
    data, out = str(folder / "data"), str(folder / "out")
    if verb == "predict":
        return ["predict", str(folder / "data" / "val"), "--model", str(file), "--out", out, "--device", "cpu"]
    if verb == "val":
        return ["val", "--data", data, "--model", str(file), "--out", out, "--device", "cpu"]
    run = ["--imgsz", "64", "--batch", "2", "--epochs", "1", "--device", "cpu", "--quiet", "--project", out]
    return ["distill", "--data", data, "--student", "paa-tiny", "--teacher", str(file), "--allow-weak-teacher", *run]


def main() -> int:
    """Run a campaign; return 1 if anything ended badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb", choices=("predict", "val", "distill"), default="predict")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rng, ends = random.Random(given.seed), Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_coco(folder / "data", train=4, val=2, size=64)
        (folder / "secret.pth").write_text("secret")
        secret = str(folder / "secret.pth")
        bases = BASES if given.verb != "distill" else BASES[:1]
        streams = [changes(make_base(name, folder / "base.safetensors"), secret, rng) for name in bases]
        for number in range(given.count):
            changed, file = next(streams[number % len(streams)]), folder / "w.safetensors"
            file.write_bytes(changed.raw)
            ended = run_forked(words_of(given.verb, folder, file), frozenset({secret}))
            end = judge(ended)
            ends[end] += 1
            if end not in ("accepted", "refused"):
                sys.stdout.write(f"{end} {ended.code}: {changed.how[:200]}: {ended.said.strip()[-300:]}\n")
    sys.stdout.write(f"{given.verb}, {given.count} files, {SECONDS} s each at most: {dict(ends)}\n")
    return int(set(ends) > {"accepted", "refused"})


if __name__ == "__main__":
    sys.exit(main())
