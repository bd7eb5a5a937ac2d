"""Evaluate a detector on a data set."""

from __future__ import annotations

from pathlib import Path

from ladle.detectors import load_detector
from ladle.evaluation import Evaluation
from ladle.files import path_as_text
from ladle.limits import verify_arguments
from ladle.names import readable
from ladle.recipes.console import say, table
from ladle.recipes.devices import Device, find_device
from ladle.recipes.options import Batch, MaxDet, OnDefect, Side, Workers
from ladle.recipes.outputs import RESULTS, about_labels, check_out, coco_rows, output_folder, title_of, write_rows
from ladle.recipes.scoring import Evaluator, Score, crowded
from ladle.recipes.sources import known_remarks, open_known

__all__ = ["name_of", "val"]


def val(
    data: str | Path,
    model: str | Path,
    split: str = "val",
    imgsz: Side | None = None,
    batch: Batch = 16,
    workers: Workers = 0,
    device: Device = "auto",
    out: str | Path | None = None,
    max_det: MaxDet | None = None,
    value_range: str | None = None,
    on_defect: OnDefect = "repair",
) -> Evaluation:
    """Evaluate a trained detector: COCO's twelve numbers, the AP of every class, and plots.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC format, or ``scenes``.
        model: weights saved by ladle.
        split: the split of the data.
        imgsz: long side of the images; by default that of training.
        batch: images per batch.
        workers: processes that load images.
        device: ``auto``, ``cpu`` or ``cuda``.
        out: folder for the plots and ``results.json`` (COCO results); by default ``runs/val/MODEL``, with a number if
            it exists.
        max_det: largest number of detections in an image; by default that of training, usually the 100 of COCO.
        value_range: values of 16-bit images that become black and white; by default those of training.
        on_defect: how to handle defects of the data: ``repair`` them, ``skip`` the image, or ``raise``.
    """
    verify_arguments(val, imgsz=imgsz, batch=batch, workers=workers, max_det=max_det, on_defect=on_defect)
    data, model, out = path_as_text(data), path_as_text(model), path_as_text(out)
    check_out(out)
    detector = load_detector(model)
    if max_det is not None:
        detector.keep(max_det)
    spec = detector.spec
    side = spec.imgsz if imgsz is None else imgsz
    values = spec.value_range if value_range is None else value_range
    source = open_known(data, split, side, model, spec.classes, values, on_defect)
    for line in known_remarks(source, split, side, spec.name, spec.classes):
        say(line)
    evaluator = Evaluator(source, side, batch, workers)
    score = evaluator(detector.to(find_device(device)))

    folder = output_folder(out, Path("runs") / "val" / name_of(Path(model).resolve()))
    write_rows(folder / RESULTS, coco_rows(score.detections, source.category_ids))
    _report(score, evaluator, f"{spec.name} on {data}, {split} ({len(source)} images)")
    evaluator.draw(score, folder)
    say(f"plots and {RESULTS} are in {folder}")
    return score.evaluation


def name_of(model: Path) -> str:
    """The name of a detector: that of its run, with that of its file unless it is ``best``."""
    if model.parent.name != "weights":
        return model.stem
    return model.parent.parent.name + ("" if model.stem == "best" else f"-{model.stem}")


def _report(score: Score, evaluator: Evaluator, title: str) -> None:
    numbers = score.evaluation
    say(table(title_of(title, numbers), [numbers.row()]))
    say(table("", [numbers.recalls()]))
    aps = zip(readable(list(numbers.per_class)), numbers.per_class.values(), strict=True)
    say(table("", [{"class": name, "AP": 100 * ap} for name, ap in aps]))
    for line in (crowded(evaluator.truth, numbers.most), *about_labels(evaluator.source.classes)):
        if line is not None:
            say(line)
    if score.cut:
        most = numbers.most
        say(f"{score.cut} images gave more than {most} detections: the {most} with the highest scores count")
