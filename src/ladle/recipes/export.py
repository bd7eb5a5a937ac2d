"""Write a trained detector as a file that runs without Ladle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Annotated, NamedTuple

from ladle.data import load_image
from ladle.data.loader import collate, padded_side
from ladle.data.samples import Sample, unlabeled
from ladle.data.scenes import Scenes
from ladle.data.sources import evenly
from ladle.data.transforms import Resize
from ladle.detectors import Detector, load_detector
from ladle.errors import UserError
from ladle.exporting import (
    FIRST_LINE,
    SCRIPT,
    TOLERANCE,
    Dynamic,
    Exportable,
    Format,
    Images,
    Parity,
    Plan,
    check_exporter,
    check_parity,
    describe,
    onnx_bytes,
    onnx_runner,
    program_bytes,
    program_runner,
    quantized,
    rounded,
    spelled,
    trace,
)
from ladle.files import path_as_text, write_atomically, write_text
from ladle.limits import Range, verify_arguments
from ladle.recipes.console import say
from ladle.recipes.exported_scores import Scores, calibration_batches, open_calibration, open_validation, score_file
from ladle.recipes.folders import check_path
from ladle.recipes.options import Batch, MaxDet, OnDefect, Side
from ladle.recipes.searching import find_images
from ladle.types import Batch as Batched

__all__ = ["Exported", "export", "scene_samples", "write_file"]

_SCRIPT = "infer.py"
_SCENES, _MOST_CHECKED, _TOGETHER = 4, 16, 4
_LEAST_SCENE = 32
"""The least side of a scene in pixels."""


class Exported(NamedTuple):
    """The file, how far it differs from PyTorch, and the program beside it, which only an ONNX file has.

    With ``data``, also the AP of both; with ``int8``, ``parity`` is that of the file before it was quantized.
    """

    file: Path
    parity: Parity
    script: Path | None
    scores: Scores | None = None


def export(
    model: str | Path,
    format: Format = "onnx",  # noqa: A002 - the flag is called so
    out: str | Path | None = None,
    dynamic: Dynamic = "batch",
    images: Images = "uint8",
    nms: bool = True,
    half: bool = False,
    int8: bool = False,
    data: str | Path | None = None,
    imgsz: Side | None = None,
    batch: Batch = 1,
    max_det: MaxDet | None = None,
    check: str | Path | None = None,
    tolerance: Annotated[float, Range(0, 10)] = TOLERANCE,
    on_defect: OnDefect = "repair",
) -> Exported:
    """Write a trained detector as ONNX or .pt2, and check on images that the file answers as PyTorch does.

    Args:
        model: weights saved by ladle.
        format: ``onnx``, for onnxruntime and others, or ``pt2``, for PyTorch without Ladle.
        out: the file; by default beside the weights, with the suffix of the format.
        dynamic: what may vary from call to call: the number of images (``batch``), also their height and width
            (``sizes``), or nothing (``none``).
        images: what the file takes: RGB of ``uint8``, ``float`` from 0 to 1, or ``normalized`` by mean and standard
            deviation.
        nms: give detections; ``false`` gives boxes and scores of every prior.
        half: store weights in 16 bits; it is computed in 32.
        int8: compute layers in 8 bits; 64 training images of ``data`` show the ranges of their inputs.
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes``: print AP of the detector and of the file on its
            validation images.
        imgsz: long side of the images; by default what the detector was trained at.
        batch: images at once, with ``--dynamic none``.
        max_det: most objects that are found in an image; by default what the detector was trained with.
        check: a folder, an image or a pattern on which the file is compared with PyTorch; by default built-in scenes.
        tolerance: pixels by which a box may differ from PyTorch's; a score may by a tenth of that number.
        on_defect: how to handle defects of the data: ``repair`` them, ``skip`` the image, or ``raise``.
    """
    model, out, data, check = path_as_text(model), path_as_text(out), path_as_text(data), path_as_text(check)
    verify_arguments(
        export,
        format=format,
        dynamic=dynamic,
        images=images,
        imgsz=imgsz,
        batch=batch,
        max_det=max_det,
        tolerance=tolerance,
        on_defect=on_defect,
    )
    _check_flags(format, dynamic, half, batch)
    _check_data(format, half, int8, data)
    detector = _load(model, imgsz, max_det)
    side = padded_side(detector.spec.imgsz)
    plan = Plan(format, images, dynamic, nms, half, side, batch)
    file = _place(out, model, f"{'int8.' if int8 else ''}{format}")
    at_once = batch if dynamic == "none" else _TOGETHER
    validation = open_validation(data, detector, model, on_defect) if data is not None else None
    calibration = open_calibration(data, detector, model, on_defect) if data is not None and int8 else None
    samples = _samples(detector, check)
    written, parity = write_file(detector, plan, _batches(samples, plan), tolerance)
    if calibration is not None:
        written = quantized(written, calibration_batches(calibration, detector, at_once))
    scores = score_file(written, detector, validation, at_once) if validation is not None else None
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, lambda part: part.write_bytes(written))
    script = _write_script(file.parent) if format == "onnx" else None
    done = Exported(file, parity, script, scores)
    for line in _report(done, detector, len(calibration) if calibration is not None else 0):
        say(line)
    return done


def write_file(
    detector: Detector, plan: Plan, batches: Iterable[Batched], tolerance: float = TOLERANCE
) -> tuple[bytes, Parity]:
    """The bytes of a file that answers as the detector does on these images; else raises :class:`UserError`.

    With ``plan.half`` the detector's weights are rounded.
    """
    if plan.half:
        rounded(detector)
    program = trace(Exportable(detector, plan))
    described = spelled(describe(detector.spec, plan, version("ladle")))
    if plan.format == "onnx":
        written = onnx_bytes(program, plan, described)
        return written, check_parity(detector, plan, onnx_runner(written), batches, tolerance)
    written = program_bytes(program, {"ladle": json.dumps({key: json.loads(one) for key, one in described.items()})})
    return written, check_parity(detector, plan, program_runner(written), batches, tolerance)


def _check_flags(format: Format, dynamic: Dynamic, half: bool, batch: int) -> None:  # noqa: A002
    if format == "onnx":
        check_exporter("--format onnx")
    if half and format != "onnx":
        raise UserError("--half: a .pt2 file keeps weights of 32 bits; leave it out, or take --format onnx")
    if batch != 1 and dynamic != "none":
        raise UserError(f"--batch {batch}: with --dynamic {dynamic} a file takes any number of images; leave it out")


def _check_data(format: Format, half: bool, int8: bool, data: str | None) -> None:  # noqa: A002
    if int8 and format != "onnx":
        raise UserError("--int8: a .pt2 file computes in 32 bits; leave it out, or take --format onnx")
    if int8 and half:
        raise UserError("--int8 --half: weights are stored in 8 bits or in 16; leave one of them out")
    if int8 and data is None:
        raise UserError("--int8 needs --data DIR: training images for calibration, and AP before and after")
    if data is not None and format != "onnx":
        raise UserError("--data: AP is measured of ONNX files alone; leave it out, or take --format onnx")


def _load(model: str, imgsz: int | None, max_det: int | None) -> Detector:
    detector = load_detector(model).eval()
    if max_det is not None:
        detector.keep(max_det)
    if imgsz is not None:
        detector.spec = replace(detector.spec, imgsz=imgsz)
    return detector


def _place(out: str | None, model: str, ending: str) -> Path:
    """Where the file goes; raises :class:`UserError` where it cannot, or where another program is called infer.py."""
    file = Path(model).with_suffix(f".{ending}") if out is None else Path(out)
    suffix = f".{ending.rpartition('.')[2]}"
    if out is not None:
        check_path("--out", out, f"detector{suffix}")
        if file.suffix != suffix or file.is_dir():
            raise UserError(f"--out {out}: expected a file called {suffix}, such as detector{suffix}")
    script = file.with_name(_SCRIPT)
    if suffix == ".onnx" and script.exists() and not _is_ours(script):
        raise UserError(f"{script}: expected no file or that of an earlier export, found another program; name --out")
    return file


def _is_ours(script: Path) -> bool:
    return script.is_file() and script.read_text(encoding="utf-8", errors="replace").startswith(FIRST_LINE)


def _write_script(folder: Path) -> Path:
    script = folder / _SCRIPT
    write_text(script, SCRIPT, only_changes=True)
    return script


def _samples(detector: Detector, check: str | None) -> list[Sample]:
    """The images that the file is checked on, as the network sees them."""
    resize = Resize(detector.spec.imgsz)
    if check is None:
        return scene_samples(_SCENES, detector.spec.imgsz)
    files = find_images([check]).files
    if len(files) > _MOST_CHECKED:
        say(f"checked on {_MOST_CHECKED} of the {len(files)} images of {check}, spread over them")
        files = [files[index] for index in evenly(len(files), _MOST_CHECKED)]
    values = detector.spec.value_range
    return [resize(unlabeled(load_image(file, value_range=values), str(file))) for file in files]


def scene_samples(count: int, imgsz: int) -> list[Sample]:
    """Built-in scenes, as a network sees them."""
    scenes = Scenes(count, size=max(_LEAST_SCENE, imgsz))
    return [replace(Resize(imgsz)(one), id=f"scene {number}") for number, one in enumerate(scenes)]


def _batches(samples: Sequence[Sample], plan: Plan) -> Iterator[Batched]:
    """One image alone, then the others together, padded as the file expects it."""
    least = 0 if plan.dynamic == "sizes" else plan.side
    if plan.dynamic == "none":
        for start in range(0, len(samples), plan.batch):
            part = samples[start : start + plan.batch]
            # The last batch is filled up with what it has.
            yield collate([part[index % len(part)] for index in range(plan.batch)], least)
        return
    rest = iter(samples)
    yield collate([next(rest)], least)
    while together := list(islice(rest, _TOGETHER)):
        yield collate(together, least)


def _report(done: Exported, detector: Detector, calibrated: int) -> Iterator[str]:
    file, parity, script, scores = done
    yield f"wrote {file} ({file.stat().st_size / 2**20:.1f} MiB){f' and {script}' if script else ''}"
    yield (
        f"{'before it was quantized, ' if calibrated else ''}beside PyTorch, on {parity.images} images with "
        f"{parity.detections} predictions above {detector.spec.inference.threshold:g}: boxes within "
        f"{parity.boxes:.1g} pixels, scores within {parity.scores:.1g}"
    )
    if not parity.detections:
        yield "note: PyTorch found nothing in these images, which proves little: name others with --check"
    if calibrated:
        yield f"layers compute in 8 bits, in ranges seen in {calibrated} training images"
    if scores is not None:
        yield scores.in_words()
