"""How good a detector is on a data set."""

from __future__ import annotations

import json
from pathlib import Path

from ladle.data.depth import spelled
from ladle.data.sources import Source
from ladle.detectors import DetectorSpec, load_detector
from ladle.errors import UserError
from ladle.evaluation import Evaluation, coco_results
from ladle.recipes.console import say, table
from ladle.recipes.devices import Device, find_device
from ladle.recipes.options import Batch, Run, Side, Workers
from ladle.recipes.scoring import Examiner
from ladle.recipes.sources import open_source, remarks

__all__ = ["val"]


def val(
    data: str,
    model: str,
    split: str = "val",
    imgsz: Side | None = None,
    batch: Batch = 16,
    workers: Workers = 0,
    device: Device = "auto",
    out: str | None = None,
    value_range: str | None = None,
) -> Evaluation:
    """Score a trained detector: COCO's twelve numbers, the AP of every class, and plots.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes``.
        model: weights saved by ladle.
        split: which part of the data.
        imgsz: long side of the pictures; by default what the detector was trained at.
        batch: pictures at once.
        workers: processes that load pictures.
        device: ``auto``, ``cpu`` or ``cuda``.
        out: folder for the plots and ``results.json`` (COCO results); by default ``runs/val/MODEL``.
        value_range: values of 16-bit pictures that become black and white; by default what the detector was trained
            with.
    """
    detector = load_detector(model)
    spec = detector.spec
    side = spec.imgsz if imgsz is None else imgsz
    source = open_source(data, split, Run(value_range=value_range or spelled(spec.value_range)), side)
    if not set(source.classes) & set(spec.classes):
        raise UserError(
            f"{model} knows {', '.join(spec.classes)}, but {data} is labelled {', '.join(source.classes)}: "
            "no class has the same name"
        )
    for line in (*remarks(source, split, side), *_unknown(source, spec)):
        say(line)
    examiner = Examiner(source, side, batch, workers)
    score = examiner(detector.to(find_device(device)))

    folder = Path(out) if out is not None else Path("runs") / "val" / Path(model).resolve().parent.parent.name
    examiner.draw(score, folder)
    results = coco_results(score.detections, source.category_ids)
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")

    numbers = score.evaluation
    recall = {"AR1": numbers.ar1, "AR10": numbers.ar10, "AR100": numbers.ar100}
    recall |= {"ARS": numbers.ar_small, "ARM": numbers.ar_medium, "ARL": numbers.ar_large}
    say(table(f"{spec.name} on {data}, {split} ({len(source)} pictures)", [numbers.row()]))
    say(table("", [{name: 100 * value for name, value in recall.items()}]))
    say(table("", [{"class": name, "AP": 100 * ap} for name, ap in numbers.per_class.items()]))
    say(f"plots and results.json are in {folder}")
    return numbers


def _unknown(source: Source, spec: DetectorSpec) -> list[str]:
    names = [name for name in source.classes if name not in spec.classes]
    return [f"note: {spec.name} does not know {', '.join(map(repr, names))}, and finds none of it"] if names else []
