"""Who learns what and who learns nothing: assignments shown, counted and compared, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ladle.assigners import Assigner
from ladle.files import path_as_text
from ladle.limits import Range, verify_arguments
from ladle.recipes.assign_reports import Shown, diff, show, stats
from ladle.recipes.assigning import Images, Options, Wanted
from ladle.recipes.devices import Device
from ladle.recipes.options import Batch, OnDefect, Seed, Side, Workers
from ladle.statistics import Difference, Statistics

__all__ = ["Shown", "assign_diff", "assign_show", "assign_stats"]

Most = Annotated[int, Range(1, 10_000)]


def assign_show(
    data: str | Path,
    model: str | Path,
    assigner: str | Assigner | None = None,
    teacher: str | Path | None = None,
    split: str = "train",
    most: Most = 60,
    images: Images | None = None,
    imgsz: Side | None = None,
    batch: Batch = 8,
    workers: Workers = 0,
    device: Device = "auto",
    seed: Seed = 0,
    out: str | Path | None = None,
    on_defect: OnDefect = "repair",
) -> Shown:
    """Draw which prior learns which object as pages of HTML, the images of the worst objects first.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes`` for the built-in ones.
        model: weights saved by ladle, or the name of a detector: then its predictions are untrained.
        assigner: which prior learns which object: an assigner, or text such as ``PAA(topk=13)``; by default the
            detector's own.
        teacher: weights of a trained detector, or ``onnx:file.onnx`` and so on: the assigner is given its predictions.
        split: which part of the data.
        most: images that are drawn.
        images: look at so many images only, drawn at random.
        imgsz: long side of the images; by default what the detector is trained at.
        batch: images at once.
        workers: processes that load images.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of the images that are drawn, and of the weights of an untrained detector.
        out: folder for the pages; by default ``runs/assign/show``, numbered where it is there already.
        on_defect: how to handle defects of the data: ``repair`` them, ``skip`` the image, or ``raise``.
    """
    verify_arguments(assign_show, most=most)
    options = Options(
        path_as_text(data), path_as_text(model), split, images, imgsz, batch, workers, device, seed, on_defect
    )
    return show(options, Wanted(assigner, path_as_text(teacher)), most, path_as_text(out))


def assign_stats(
    data: str | Path,
    model: str | Path,
    assigner: str | Assigner | None = None,
    teacher: str | Path | None = None,
    split: str = "train",
    images: Images | None = None,
    imgsz: Side | None = None,
    batch: Batch = 8,
    workers: Workers = 0,
    device: Device = "auto",
    seed: Seed = 0,
    out: str | Path | None = None,
    on_defect: OnDefect = "repair",
) -> Statistics:
    """Count who learns what and who learns nothing, print it with advice, and write it as JSON, charts and HTML.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes`` for the built-in ones.
        model: weights saved by ladle, or the name of a detector: then its predictions are untrained.
        assigner: which prior learns which object: an assigner, or text such as ``PAA(topk=13)``; by default the
            detector's own.
        teacher: weights of a trained detector, or ``onnx:file.onnx`` and so on: the assigner is given its predictions.
        split: which part of the data.
        images: look at so many images only, drawn at random.
        imgsz: long side of the images; by default what the detector is trained at.
        batch: images at once.
        workers: processes that load images.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of the images that are drawn, and of the weights of an untrained detector.
        out: folder for the files; by default ``runs/assign/stats``, numbered where it is there already.
        on_defect: how to handle defects of the data: ``repair`` them, ``skip`` the image, or ``raise``.
    """
    options = Options(
        path_as_text(data), path_as_text(model), split, images, imgsz, batch, workers, device, seed, on_defect
    )
    return stats(options, Wanted(assigner, path_as_text(teacher)), path_as_text(out))


def assign_diff(
    data: str | Path,
    model: str | Path,
    assigner: str | Assigner | None = None,
    teacher: str | Path | None = None,
    against_model: str | Path | None = None,
    against_assigner: str | Assigner | None = None,
    against_teacher: str | Path | None = None,
    split: str = "train",
    most: Most = 20,
    images: Images | None = None,
    imgsz: Side | None = None,
    batch: Batch = 8,
    workers: Workers = 0,
    device: Device = "auto",
    seed: Seed = 0,
    out: str | Path | None = None,
    on_defect: OnDefect = "repair",
) -> Difference:
    """Compare two assignments of the same objects to the same priors: the second differs in what ``against`` names.

    Args:
        data: a folder in COCO, YOLO or Pascal VOC form, or ``scenes`` for the built-in ones.
        model: weights saved by ladle, or the name of a detector: then its predictions are untrained.
        assigner: which prior learns which object: an assigner, or text such as ``PAA(topk=13)``; by default the
            detector's own.
        teacher: weights of a trained detector, or ``onnx:file.onnx`` and so on: the assigner is given its predictions.
        against_model: another detector with the same priors, such as another epoch, for the second assignment.
        against_assigner: another assigner for the second assignment.
        against_teacher: another teacher for the second assignment, or one where the first has none.
        split: which part of the data.
        most: images that are drawn, those that differ most.
        images: look at so many images only, drawn at random.
        imgsz: long side of the images; by default what the detector is trained at.
        batch: images at once.
        workers: processes that load images.
        device: ``auto``, ``cpu`` or ``cuda``.
        seed: of the images that are drawn, and of the weights of an untrained detector.
        out: folder for the files; by default ``runs/assign/diff``, numbered where it is there already.
        on_defect: how to handle defects of the data: ``repair`` them, ``skip`` the image, or ``raise``.
    """
    verify_arguments(assign_diff, most=most)
    options = Options(
        path_as_text(data), path_as_text(model), split, images, imgsz, batch, workers, device, seed, on_defect
    )
    against = Wanted(against_assigner, path_as_text(against_teacher), path_as_text(against_model))
    return diff(options, Wanted(assigner, path_as_text(teacher)), against, most, path_as_text(out))
