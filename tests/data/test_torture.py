"""Every defect of the torture set (see torture/README.md) is repaired and reported, or refused as its manifest says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ladle.data import Defect, DetectionDataset, load_image, read
from ladle.errors import UserError

TORTURE = Path(__file__).parent / "torture"
ROWS = json.loads((TORTURE / "manifest.json").read_text(encoding="utf-8"))
COLOURS = np.array([(255, 0, 0), (0, 200, 0), (0, 0, 255)])
TOLERANCE = 25
SUPPORTED = {  # rows that may be repaired or refused, but are simply read: nothing is lost and nothing changes
    "cat_ids_negative",
    "img_ids_strings",
    "json_bom",
    "voc_unknown_class",  # without a classes.txt every name is a class
    "yolo_bom",
}
STRAY = Defect("ok_b.jpg", "width and height are missing in the JSON; read from the image")
"""The generator lost the size of the sound second image in a few rows that are about something else."""
NAMELESS = Defect("cat_names_odd.json: category 3", "class without a name; called 'category 3'")


def rows(verdict, but=()):
    chosen = [row for row in ROWS if row["verdict"] == verdict and row["case"] not in but]
    return pytest.mark.parametrize("row", chosen, ids=[row["case"] for row in chosen])


def stage(row, folder: Path) -> tuple[Path, str]:
    """The data set of one row, and its split: VOC and YOLO rows are about one image, so they are set apart."""
    if row["format"] == "coco":
        return TORTURE / row["annotation"], "train"
    if row["annotation"].startswith("voc/ImageSets"):
        return TORTURE / "voc", Path(row["annotation"]).stem
    return (stage_voc if row["format"] == "voc" else stage_yolo)(row, folder), "train"


def stage_voc(row, folder: Path) -> Path:
    stem = Path(row["annotation"]).stem
    shutil.copytree(TORTURE / "voc" / "JPEGImages", folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for name in {"ok", stem}:
        if (TORTURE / "voc" / "Annotations" / f"{name}.xml").exists():
            shutil.copy(TORTURE / "voc" / "Annotations" / f"{name}.xml", folder / "Annotations")
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "train.txt").write_text(f"{stem}\n")
    return folder


def stage_yolo(row, folder: Path) -> Path:
    annotation = TORTURE / row["annotation"]
    about_yaml = annotation.suffix == ".yaml"
    stem = "ok" if about_yaml else annotation.stem
    for part in (f"images/{stem}.jpg", f"labels/{stem}.txt"):
        (folder / part).parent.mkdir()
        if (TORTURE / "yolo" / part).exists():
            shutil.copy(TORTURE / "yolo" / part, folder / part)
    file = folder / (annotation.name if about_yaml else "data.yaml")
    return Path(shutil.copy(TORTURE / "yolo" / file.name, file))


def load(row, folder: Path, on_defect="repair") -> DetectionDataset:
    """Read the row's data set and decode all its images."""
    data, split = stage(row, folder)
    dataset = read(data, split, on_defect)
    for image in dataset.images:
        assert load_image(image.file, image.upright).shape == (3, image.height, image.width)
    return dataset


def attempt(row, folder: Path, on_defect="repair") -> DetectionDataset | str:
    """The dataset, or why there is none."""
    try:
        return load(row, folder, on_defect)
    except UserError as error:
        return str(error)


def assert_named(row, text: str, folder: Path) -> None:
    """What the manifest asks for is in the text, leaving aside the folder, which pytest names after the case."""
    for words in row["message_must_contain"]:
        assert words in text.replace(str(folder), "")


def assert_as_promised(dataset: DetectionDataset, row) -> None:
    if row["images_if_loaded"]:
        least, most = row["images_if_loaded"]
        assert least <= len(dataset) <= most
    if row["boxes_if_loaded"]:
        least, most = row["boxes_if_loaded"]
        assert least <= sum(len(image.boxes) for image in dataset.images) <= most
    for image in dataset.images:
        assert np.isfinite(image.boxes).all()
        assert (image.boxes[:, 2:] > image.boxes[:, :2]).all()
        assert (image.boxes >= 0).all()
        assert (image.boxes <= [image.width, image.height] * 2).all()
        assert ((image.labels >= 0) & (image.labels < len(dataset.classes))).all()
    if row["boxes_align_with_colours"]:
        assert_aligned(dataset, row)


def assert_aligned(dataset: DetectionDataset, row) -> None:
    document = json.loads((TORTURE / row["annotation"]).read_bytes().decode("utf-8-sig"))
    listed = [int(category["id"]) for category in document["categories"] if category["name"] != "things"]
    for image in dataset.images:
        pixels = load_image(image.file, image.upright).permute(1, 2, 0).numpy()
        for (x1, y1, x2, y2), label in zip(image.boxes.astype(int), image.labels, strict=True):
            color = COLOURS[listed.index(dataset.category_ids[label])]
            assert np.abs(pixels[y1:y2, x1:x2].reshape(-1, 3).mean(0) - color).max() <= TOLERANCE


@rows("LOAD")
def test_valid_data_load_without_a_report(row, tmp_path):
    dataset = load(row, tmp_path)
    assert set(dataset.defects) <= {STRAY, NAMELESS}
    assert_as_promised(dataset, row)


@rows("EITHER")
def test_defects_are_repaired_and_reported_or_refused(row, tmp_path):
    dataset = attempt(row, tmp_path)
    if isinstance(dataset, str):
        assert_named(row, dataset, tmp_path)
        return
    assert_as_promised(dataset, row)
    if row["case"] in SUPPORTED:
        assert set(dataset.defects) <= {STRAY}
        return
    assert dataset.defects
    assert_named(row, f"{dataset.summary()} {dataset.defects}", tmp_path)


@rows("EITHER", but=SUPPORTED)
def test_raise_refuses_every_defect(row, tmp_path):
    with pytest.raises(UserError) as caught:
        load(row, tmp_path, "raise")
    assert_named(row, str(caught.value), tmp_path)


@rows("ERROR")
def test_unusable_data_are_refused_by_name(row, tmp_path):
    with pytest.raises(UserError) as caught:
        load(row, tmp_path)
    assert_named(row, str(caught.value), tmp_path)


@rows("ERROR")
def test_skip_keeps_the_valid_images_or_gives_the_reason(row, tmp_path):
    dataset = attempt(row, tmp_path, "skip")
    if isinstance(dataset, str):
        assert_named(row, dataset, tmp_path)
        return
    assert len(dataset) == 1
    assert any(defect.fatal for defect in dataset.defects)
    assert "left out" in dataset.summary()
