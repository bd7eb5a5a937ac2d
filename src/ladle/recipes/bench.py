"""What detectors cost, side by side."""

from __future__ import annotations

import json
import math
import os
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch

from ladle.data.depth import ValueRange
from ladle.data.loader import collate, padded_side
from ladle.detectors import Detector, load_detector, read_spec
from ladle.errors import UserError
from ladle.exporting import Cost, OnnxDetector, Plan, check_packages, latency_of, network_cost, peak_memory, processor
from ladle.files import path_as_text, write_text
from ladle.limits import Range, verify_arguments
from ladle.recipes.console import say, table
from ladle.recipes.devices import Device, find_device
from ladle.recipes.export import scene_samples, write_file
from ladle.recipes.folders import check_path
from ladle.recipes.options import OnDefect, Side
from ladle.recipes.scoring import USUAL_MOST, Evaluator
from ladle.recipes.sources import known_remarks, open_known
from ladle.types import Batch, Detections
from ladle.visual import Bar, BarPanel, draw_bars

__all__ = ["Measured", "bench"]

_TOGETHER = 16
_ONNX = "onnxruntime, cpu"

Calls = Annotated[int, Range(2, 100_000)]
Threads = Annotated[int, Range(1, 1024)]


@dataclass(frozen=True)
class Measured:
    """What one detector costs in one runtime; nan where something cannot be told.

    Times are milliseconds of a call, from a batch of bytes to detections: the median, and what 90 % of the calls stay
    below (``_p90``), for one image and for 16 at once. ``flops`` are those of one image.
    """

    model: str
    runtime: str
    imgsz: int
    parameters: float
    flops: float
    file_mib: float
    ms: float
    ms_p90: float
    ms_16: float
    ms_16_p90: float
    images_per_second: float
    peak_mib: float
    ap: float


class _About(NamedTuple):
    """What a file says of its detector, without loading weights."""

    file: Path
    model: str
    imgsz: int
    classes: tuple[str, ...]
    value_range: ValueRange
    keep: int


class _Contender(NamedTuple):
    """A detector in one runtime, ready to be measured."""

    about: _About
    cost: Cost | None
    runtime: str
    bytes: int
    detect: Callable[[Batch], list[Detections]]
    cuda: bool


def bench(
    model: str | Path | list[str | Path],
    data: str | Path | None = None,
    split: str = "val",
    onnx: bool = False,
    imgsz: Side | None = None,
    calls: Calls = 30,
    threads: Threads | None = None,
    device: Device = "auto",
    out: str | Path | None = None,
    on_defect: OnDefect = "repair",
) -> list[Measured]:
    """Measure parameters, operations, time and memory of detectors, and their AP where data are given.

    Args:
        model: weights saved by ladle or ONNX files written by ``ladle export``; several are compared.
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes``, on which AP is measured.
        split: which part of the data.
        onnx: also export each detector, to memory, and measure it in onnxruntime.
        imgsz: long side of the images; by default what each detector was trained at.
        calls: timed calls, after three that are not.
        threads: of the processor; by default as many as PyTorch takes.
        device: ``auto``, ``cpu`` or ``cuda``, for PyTorch; onnxruntime takes the processor.
        out: a JSON file of the same numbers, and beside it a chart of them, ``.png``.
        on_defect: how to handle defects of the data: ``repair`` them, ``skip`` the image, or ``raise``.
    """
    data, out = path_as_text(data), path_as_text(out)
    verify_arguments(bench, imgsz=imgsz, calls=calls, threads=threads, on_defect=on_defect)
    files = [Path(one) for one in (model if isinstance(model, list) else [model])]
    if out is not None:
        _check_out(out)
    if onnx or any(file.suffix == ".onnx" for file in files):
        check_packages("--onnx" if onnx else "an .onnx file")
    runs_on = find_device(device)
    # What cannot be measured is refused before anything is.
    abouts = [_about(file, imgsz) for file in files]
    evaluators = [_evaluator(about, data, split, on_defect) for about in abouts]
    for line in _remarks(abouts, evaluators, split):
        say(line)
    with _threads(threads) as used:
        measured = _named(
            (about.file, _measure(one, evaluator, calls))
            for about, evaluator in zip(abouts, evaluators, strict=True)
            for one in _contenders(about, onnx, used, runs_on)
        )
        setting = _setting(used, calls, measured)
    where = f"{setting['processor']}, {used} threads{f', {gpu}' if (gpu := setting.get('gpu')) else ''}"
    say(table(f"{where}: milliseconds, median of {calls} calls", [_times(one) for one in measured]))
    say(table("size and AP", [_sizes(one) for one in measured]))
    for line in _limits(abouts) if data is not None else ():
        say(line)
    if out is not None:
        _write(Path(out), setting, measured)
        say(f"wrote {out} and {_draw(Path(out).with_suffix('.png'), measured)}")
    return measured


def _named(measured: Iterable[tuple[Path, Measured]]) -> list[Measured]:
    """The numbers with names that tell detectors apart: that of the file too where one runtime has a name twice."""
    pairs = list(measured)
    for shown in (lambda file: file.name, str):
        count = Counter((one.model, one.runtime) for _, one in pairs)
        named = [
            replace(one, model=f"{one.model} ({shown(file)})") if count[one.model, one.runtime] > 1 else one
            for file, one in pairs
        ]
        if len({(one.model, one.runtime) for one in named}) == len(named):
            return named
    return named


def _check_out(out: str) -> None:
    """Raise :class:`UserError` if the numbers and their chart cannot be written, as far as this shows beforehand."""
    check_path("--out", out, "bench.json")
    file = Path(out)
    if file.suffix == ".png":
        raise UserError(f"--out {out}: expected a .json file; its chart lies beside it as .png")
    if file.is_dir():
        raise UserError(f"--out {out}: expected a .json file, found a folder: name a file in it, such as bench.json")
    if file.with_suffix(".png").is_dir():
        raise UserError(f"--out {out}: its chart lies beside it as .png, found the folder {file.with_suffix('.png')}")
    place = next(path for path in file.parents if path.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise UserError(f"--out {out}: expected a file in a folder that can be written to, found {place}: name another")


def _about(file: Path, imgsz: int | None) -> _About:
    """What is known before a detector is loaded; raises :class:`UserError` for a file that holds none."""
    if file.suffix != ".onnx":
        spec = read_spec(file)
        side = imgsz if imgsz is not None else spec.imgsz
        return _About(file, spec.name, side, spec.classes, spec.value_range, spec.inference.keep)
    if not file.is_file():
        raise UserError(f"{file}: there is no such file; expected one written by `ladle export`")
    about = OnnxDetector(file).about
    if imgsz not in (None, about["imgsz"]):
        raise UserError(f"--imgsz {imgsz}: {file} was exported for images of {about['imgsz']} pixels; leave it out")
    known = (about["model"], about["imgsz"], tuple(about["classes"]), tuple(about["value_range"]), about["keep"])
    return _About(file, *known)


def _evaluator(about: _About, data: str | None, split: str, on_defect: OnDefect) -> Evaluator | None:
    """What measures AP on the data; None without data."""
    if data is None:
        return None
    source = open_known(data, split, about.imgsz, str(about.file), about.classes, about.value_range, on_defect)
    return Evaluator(source, about.imgsz, _TOGETHER)


def _remarks(abouts: Sequence[_About], evaluators: Sequence[Evaluator | None], split: str) -> list[str]:
    """The lines about the data, as ``val`` prints them for each detector; the same line only once."""
    pairs = zip(abouts, evaluators, strict=True)
    known = [(one, evaluator.source) for one, evaluator in pairs if evaluator is not None]
    lines = (known_remarks(source, split, one.imgsz, str(one.file), one.classes) for one, source in known)
    return list(dict.fromkeys(chain.from_iterable(lines)))


def _limits(abouts: Sequence[_About]) -> list[str]:
    """A line for each detector whose AP counts another number of detections than COCO's."""
    return [
        f"{one.file}: its AP counts up to {one.keep} detections of an image, not {USUAL_MOST} as in COCO"
        for one in abouts
        if one.keep != USUAL_MOST
    ]


def _contenders(about: _About, onnx: bool, threads: int, device: str) -> Iterator[_Contender]:
    size = about.file.stat().st_size
    if about.file.suffix == ".onnx":
        yield _Contender(about, None, _ONNX, size, OnnxDetector(about.file, threads).detect, False)
        return
    detector = load_detector(about.file).eval()
    detector.spec = replace(detector.spec, imgsz=about.imgsz)
    cost = network_cost(detector, padded_side(about.imgsz))
    written = _exported(detector) if onnx else None

    def detect(batch: Batch) -> list[Detections]:
        found = detector.detect(batch.to(device))
        if device == "cuda":
            torch.cuda.synchronize()
        return [one.to("cpu") for one in found]

    detector.to(device)
    yield _Contender(about, cost, f"PyTorch, {device}", size, detect, device == "cuda")
    if written is not None:
        yield _Contender(about, cost, _ONNX, len(written), OnnxDetector(written, threads).detect, False)


def _exported(detector: Detector) -> bytes:
    """The detector as ONNX, checked on the images that it is timed on."""
    plan = Plan(side=padded_side(detector.spec.imgsz))
    written, _ = write_file(detector, plan, [collate(scene_samples(1, detector.spec.imgsz))])
    return written


def _measure(one: _Contender, evaluator: Evaluator | None, calls: int) -> Measured:
    alone, together = (collate(scene_samples(count, one.about.imgsz)) for count in (1, _TOGETHER))
    peak = peak_memory(lambda: one.detect(together), one.cuda)
    single = latency_of(lambda: one.detect(alone), calls)
    many = latency_of(lambda: one.detect(together), calls)
    return Measured(
        one.about.model,
        one.runtime,
        one.about.imgsz,
        one.cost.parameters if one.cost else math.nan,
        one.cost.flops if one.cost else math.nan,
        one.bytes / 2**20,
        *single,
        *many,
        1e3 * _TOGETHER / many.median,
        peak,
        math.nan if evaluator is None else _ap(one, evaluator),
    )


def _ap(one: _Contender, evaluator: Evaluator) -> float:
    """AP in percent."""
    about = one.about
    return 100 * evaluator.score(lambda batch: (one.detect(batch), 0), about.classes, about.keep).evaluation.ap


@contextmanager
def _threads(wanted: int | None) -> Iterator[int]:
    """So many threads for PyTorch in this block; how many those are."""
    before = torch.get_num_threads()
    if wanted is not None:
        torch.set_num_threads(wanted)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def _setting(threads: int, calls: int, measured: list[Measured]) -> dict[str, Any]:
    """Where and how it was measured."""
    setting = {
        "processor": processor(),
        "threads": threads,
        "calls": calls,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ladle": version("ladle"),
    }
    if any("onnxruntime" in one.runtime for one in measured):
        setting["onnxruntime"] = version("onnxruntime")
    if any("cuda" in one.runtime for one in measured):
        setting["gpu"] = torch.cuda.get_device_name()
    return setting


def _times(one: Measured) -> dict[str, object]:
    return {
        "detector": _name(one),
        "1 image": one.ms,
        "90 %": one.ms_p90,
        "16": one.ms_16,
        "90 % ": one.ms_16_p90,
        "images/s": one.images_per_second,
        "MiB": one.peak_mib,
    }


def _sizes(one: Measured) -> dict[str, object]:
    return {
        "detector": _name(one),
        "imgsz": one.imgsz,
        "M params": one.parameters / 1e6,
        "GFLOPs": one.flops / 1e9,
        "file MiB": one.file_mib,
        "AP": one.ap,
    }


def _name(one: Measured) -> str:
    return f"{one.model}, {one.runtime}"


def _draw(file: Path, measured: Sequence[Measured]) -> Path:
    """Bars of the time for one image, of the throughput, of the size of the file and, where it was measured, of AP."""
    shown = (
        ("Latency, one image", "ms", "{:.1f}", [one.ms for one in measured]),
        ("Throughput, 16 images", "images/s", "{:.0f}", [one.images_per_second for one in measured]),
        ("Size of the file", "MiB", "{:.1f}", [one.file_mib for one in measured]),
        ("AP", "AP", "{:.1f}", [one.ap for one in measured]),
    )
    panels = []
    for title, unit, written, values in shown:
        numbers = zip(map(_name, measured), values, strict=True)
        bars = [Bar(name, value, written.format(value)) for name, value in numbers if not math.isnan(value)]
        panels.append(BarPanel(title, unit, bars))
    return draw_bars(panels, file)


def _write(file: Path, setting: dict[str, Any], measured: list[Measured]) -> None:
    rows = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(one).items()}
        for one in measured
    ]
    text = json.dumps({**setting, "measured": rows}, indent=1) + "\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, text)
