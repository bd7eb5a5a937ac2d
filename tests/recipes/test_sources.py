"""Notes about the data before training, and data that cannot be trained on."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from ladle.cli.main import main
from ladle.data import images
from ladle.data.scenes import Scenes
from ladle.detectors import read_spec, save_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.recipes import predict, train, val
from ladle.recipes.options import Run
from ladle.recipes.preflight import reads_otherwise
from ladle.recipes.sources import open_for_teacher, open_known, open_source, remarks, remarks_on_files, supply
from ladle.teachers import parse_uri
from tests.recipes.tiny import RUN


def yolo(folder, train=4, val=2, rows="0 0.5 0.5 0.5 0.5\n", splits=("train", "val")):
    """Gray images of 64 pixels, all different, each with the same rows."""
    for split, count in zip(splits, (train, val), strict=True):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in range(count):
            shade = np.full((64, 64, 3), 10 * number + len(split), np.uint8)
            Image.fromarray(shade).save(folder / "images" / split / f"{number}.png")
            (folder / "labels" / split / f"{number}.txt").write_text(rows)
    listed = "".join(f"{split}: images/{split}\n" for split in splits)
    (folder / "data.yaml").write_text(f"{listed}names: [red]\n")
    return folder


def notes(folder, imgsz=64, **flags):
    return supply(str(folder), replace(RUN, **flags), imgsz).notes


def test_data_without_defects_give_no_notes(tmp_path):
    assert notes(yolo(tmp_path)) == []


def test_images_without_a_label_file_give_a_note(tmp_path):
    yolo(tmp_path)
    (tmp_path / "labels" / "train" / "1.txt").unlink()
    assert notes(tmp_path) == ["train: note: 1 of 4 images have no label file and count as background"]


def test_a_split_used_in_place_of_another_gives_a_note(tmp_path):
    yolo(tmp_path, splits=("train", "test"))
    assert notes(tmp_path) == ["val: note: there is no split 'val'; 'test' stands in for it"]


def test_repairs_are_counted_by_kind(tmp_path):
    yolo(tmp_path)
    for number in (0, 1):
        (tmp_path / "labels" / "val" / f"{number}.txt").write_text("0 0.5 0.5 1.9 1.9\n0 0.5 0.5 0.5 0.5\n")
    (line,) = [line for line in notes(tmp_path) if "cut at the border" in line]
    assert line.startswith("val: 2 × box reached outside the image; cut at the border (labels/val/0.txt: line 1")


def test_images_in_both_splits_give_a_note(tmp_path):
    yolo(tmp_path)
    shutil.copy(tmp_path / "images" / "train" / "2.png", tmp_path / "images" / "val" / "0.png")
    assert notes(tmp_path) == ["note: 1 of the 2 images of val are in train too, so the AP is too high"]


def coco(folder):
    """One JSON file next to three images."""
    images, annotations = [], []
    for number in range(3):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        annotations.append({"id": number, "image_id": number, "category_id": 1, "bbox": [5, 5, 30, 30]})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "red"}]}
    (folder / "default.json").write_text(json.dumps(document))
    return folder / "default.json"


def test_one_file_for_both_splits_gives_a_note(tmp_path):
    lines = notes(coco(tmp_path), batch=2)
    assert lines == [
        "note: 3 of the 3 images of val are in train too, so the AP is too high",
        "train: note: default.json is one split by itself and is read as 'train', as it is for any other split",
        "val: note: default.json is one split by itself and is read as 'val', as it is for any other split",
    ]


def test_classes_without_objects_give_a_note(tmp_path):
    yolo(tmp_path)
    file = tmp_path / "data.yaml"
    file.write_text(file.read_text().replace("[red]", "[red, green, blue]"))
    assert notes(tmp_path) == ["note: train has no object of 'green', 'blue'"]


def test_small_objects_are_counted_at_the_size_of_the_run(tmp_path):
    yolo(tmp_path, rows="0 0.5 0.5 0.1 0.5\n")
    assert notes(tmp_path, 64) == [
        "train: note: 4 of 4 objects have a side under 8 pixels at --imgsz 64",
        "val: note: 2 of 2 objects have a side under 8 pixels at --imgsz 64",
    ]
    assert notes(tmp_path, 160) == []


def test_built_in_scenes_give_no_notes():
    assert supply("scenes:4", RUN, 64).notes == []
    assert remarks(Scenes(2), "train", 64) == []


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        ("labels", "train: no objects to learn"),
        ("validation", "val: no objects to score"),
        ("tiny", "every object has a side under 1 pixel at --imgsz 64.*give --imgsz"),
        ("pictures", "image"),
        ("damaged", "damaged one"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_before_there_is_a_run(tmp_path, broken, named):
    data = yolo(tmp_path / "data", rows="0 0.5 0.5 0.01 0.5\n" if broken == "tiny" else "0 0.5 0.5 0.5 0.5\n")
    for file in (data / "labels" / ("val" if broken == "validation" else "train")).iterdir():
        if broken in ("labels", "validation"):
            file.write_text("")
        elif broken == "pictures":
            (data / "images" / "train" / f"{file.stem}.png").unlink()
        elif broken == "damaged":
            (data / "images" / "train" / f"{file.stem}.png").write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    with pytest.raises(UserError, match=named) as error:
        train(str(data), "paa-tiny", replace(RUN, project=str(tmp_path / "runs")))
    assert str(data) in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_class_in_validation_only_is_refused(tmp_path):
    for split, name in (("train", "red"), ("val", "blue")):
        (tmp_path / split).mkdir()
        document = json.loads(coco(tmp_path / split).read_text())
        document["categories"][0]["name"] = name
        (tmp_path / split / "_annotations.coco.json").write_text(json.dumps(document))
        (tmp_path / split / "default.json").unlink()
    with pytest.raises(UserError, match="expected the same classes, found 'blue' in val alone"):
        supply(str(tmp_path), RUN, 64)


def test_the_error_for_a_damaged_image_names_the_flag_that_skips_it(tmp_path):
    yolo(tmp_path)
    file = tmp_path / "images" / "train" / "2.png"
    file.write_bytes(file.read_bytes()[:-30])
    source = open_source(str(tmp_path), "train", RUN, 64)
    with pytest.raises(UserError, match=r"2\.png: .*damaged.*--on-defect skip"):
        source.sample(2)
    assert len(open_source(str(tmp_path), "train", replace(RUN, on_defect="skip"), 64)) == 3
    (line,) = notes(tmp_path, on_defect="skip", batch=2)
    assert line.startswith("train: left out: 1 × ")


def deepened(data, most):
    """The same images as written by a camera of fewer than 16 bits; the brightest value is ``most``."""
    for file in data.rglob("*.png"):
        with Image.open(file) as image:
            grey = np.asarray(image.convert("L")).astype(np.uint32)
        Image.fromarray((grey * most // 36).astype(np.uint16)).save(file)
    return data


def test_images_of_sixteen_bits_are_read_by_what_both_splits_hold(tmp_path):
    data = deepened(yolo(tmp_path), 4000)
    shades = [4000 * shade // 36 * 255 / 4095 for shade in (5, 15, 25, 35)]
    ready = supply(str(data), RUN, 64)
    assert ready.value_range == (0, 4095)
    assert [int(ready.train.sample(number).image.max()) for number in range(4)] == list(map(round, shades))
    assert "so that they are read with --value-range 0,4095" in ready.notes[0]
    assert "train: note: 4 of 4 images have 16 bits a channel" in ready.notes[1]
    given = supply(str(data), replace(RUN, value_range="0,8000"), 64)
    assert given.value_range == (0, 8000)
    assert int(given.val.sample(0).image.max()) == round(4000 * 3 // 36 * 255 / 8000)


def test_data_for_a_trained_detector_are_read_with_its_values_and_must_share_a_class(tmp_path):
    data = str(deepened(yolo(tmp_path), 4000))
    names = open_source(data, "val", RUN, 64).classes
    source = open_known(data, "val", 64, "best.safetensors", (*names, "another"), (0, 8000))
    assert int(source.sample(0).image.max()) == round(4000 * 3 // 36 * 255 / 8000)
    found = ", ".join(names)
    with pytest.raises(UserError, match=rf"^best\.safetensors has the classes another, but .* has {found}: no class"):
        open_known(data, "val", 64, "best.safetensors", ("another",), "0,8000")


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A run on images of 12 bits, and its data."""
    data = deepened(yolo(tmp_path_factory.mktemp("deep") / "data"), 4000)
    return data, train(str(data), "paa-tiny", replace(RUN, project=str(data.parent / "runs")))


@pytest.mark.slow
def test_a_detector_stores_the_value_range_of_its_images(deep):
    _, run = deep
    assert read_spec(Path(run.weights)).value_range == (0, 4095)
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["value_range"] == "0,4095"


def test_val_and_predict_read_images_as_training_did(deep, tmp_path, monkeypatch, capsys):
    data, run = deep
    seen = []
    decode = images._decoded
    monkeypatch.setattr(images, "_decoded", lambda *of: seen.append(of[-1]) or decode(*of))
    scored = val(str(data), str(run.weights), batch=4, out=str(tmp_path / "val"), device="cpu")
    assert scored.ap == run.evaluation.ap
    predict(str(data / "images" / "val"), str(run.weights), out=str(tmp_path / "found"), device="cpu")
    assert len(seen) == 2 + 2 * 2, "predict also draws them"
    assert set(seen) == {(0, 4095)}
    assert capsys.readouterr().out.count("2 of 2 images have 16 bits a channel: values up to 0 become black") == 2
    predict(str(data / "images" / "val"), str(run.weights), out=str(tmp_path / "found"), value_range="0,9000")
    assert seen[-1] == (0, 9000)


def test_remarks_on_files_list_only_images_of_sixteen_bits(tmp_path):
    files = sorted((yolo(tmp_path) / "images" / "train").iterdir())
    assert remarks_on_files(files, (0, 4095)) == []
    files[0].write_bytes(b"no image")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(files[1])
    (line,) = remarks_on_files(files, (0, 4095))
    assert line.startswith("note: 1 of 4 images have 16 bits a channel")


def test_val_reports_repairs_and_classes_the_detector_lacks(data, teacher, tmp_path, capsys):
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    file = copy / "annotations" / "instances_val.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["bbox"][2] = 1000
    document["categories"].append({"id": 99, "name": "gnu"})
    file.write_text(json.dumps(document))
    val(str(copy), teacher, batch=4, out=str(tmp_path / "out"), device="cpu")
    out = capsys.readouterr().out
    assert "val: 1 × box reached outside the image; cut at the border" in out
    assert "note: paa-tiny does not know 'gnu', and finds none of it" in out


def test_a_step_of_more_images_than_there_are_gives_a_note(tmp_path):
    note = "note: a step takes 6 images, more than the 4 of train: some are used several times in it"
    assert notes(yolo(tmp_path), batch=3, devices=2) == [note]
    assert notes(tmp_path, batch=2, devices=2) == []


def test_a_range_without_effect_gives_a_note_and_an_invalid_one_an_error(tmp_path):
    note = "note: --value-range 0,4095 changes nothing: no image has 16 bits a channel"
    assert notes(yolo(tmp_path), value_range="0,4095") == [note]
    assert supply(str(tmp_path), replace(RUN, value_range="0,4095"), 64).value_range is None
    with pytest.raises(UserError, match="--value-range 12"):
        Run(value_range="12")


def test_a_validation_split_without_objects_gives_a_note(tmp_path):
    source = open_source(str(yolo(tmp_path, rows="")), "val", RUN, 64)
    assert remarks(source, "val", 64) == ["val: note: no objects to score"]


def test_a_teacher_with_another_value_range_gives_a_note(tmp_path):
    teacher = detector_spec("paa-tiny", ("red",))
    data = yolo(tmp_path)
    assert reads_otherwise(supply(str(data), RUN, 64).train, teacher) == [], "8 bits are read in one way"
    source = supply(str(deepened(data, 4000)), RUN, 64).train
    (line,) = reads_otherwise(source, teacher)
    assert "it was trained with --value-range 0,65535, here images are read with 0,4095" in line
    assert reads_otherwise(source, replace(teacher, value_range=(0, 4095))) == []
    assert reads_otherwise(Scenes(2), teacher) == []


def test_a_run_needs_no_range_where_all_images_have_eight_bits():
    assert Run().value_range is None
    assert supply("scenes:4", RUN, 64).value_range is None


def two_depths(folder):
    """Images of 16 bits: those for training use 12 of them, those for validation 10."""
    yolo(folder)
    for split, most in (("train", 4095), ("val", 1023)):
        for file in (folder / "images" / split).iterdir():
            Image.fromarray(np.linspace(0, most, 64 * 64, dtype=np.uint16).reshape(64, 64)).save(file)
    return str(folder)


def test_a_teacher_gets_values_of_16_bits_as_in_training(tmp_path):
    """One of Ladle's as it was trained itself, any other one as its students get them, by both splits."""
    data = two_depths(tmp_path / "data")
    assert supply(data, RUN, 64).value_range == (0, 4095)
    for splits in (["train"], ["val"], ["train", "val"]):
        sources = open_for_teacher(data, splits, 64, parse_uri("onnx:a.onnx"))
        assert {split: one.value_range for split, one in sources.items()} == dict.fromkeys(splits, (0, 4095))
    spec = replace(detector_spec("paa-tiny", ["red"], imgsz=64), value_range=(0, 2047))
    save_detector(spec.build(), tmp_path / "a.safetensors")
    assert open_for_teacher(data, ["val"], 64, parse_uri(str(tmp_path / "a.safetensors")))["val"].value_range == (
        0,
        2047,
    )
    shutil.rmtree(tmp_path / "data" / "images" / "train")
    (tmp_path / "data" / "data.yaml").write_text("val: images/val\nnames: [red]\n")
    assert open_for_teacher(data, ["val"], 64, parse_uri("onnx:a.onnx"))["val"].value_range == (0, 1023)


def test_every_verb_that_reads_data_can_leave_out_images_that_cannot_be_used(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yolo(tmp_path / "data", train=4, val=3)
    for file in ("train/1.png", "val/2.png"):
        image = tmp_path / "data" / "images" / file
        image.write_bytes(image.read_bytes()[:60])
    save_detector(detector_spec("paa-tiny", ["red"], imgsz=64).build(), tmp_path / "a.safetensors")
    of_each = {
        "val": "--data data --model a.safetensors",
        "assign stats": "--data data --model a.safetensors",
        "teacher cache": "a.safetensors --data data --imgsz 64 --out a.jsonl",
        "bench": "a.safetensors --data data --calls 2",
    }
    for verb, flags in of_each.items():
        words = [*verb.split(), *flags.split(), "--device", "cpu"]
        assert main(words) == 2, verb
        assert "images out with --on-defect skip" in capsys.readouterr().err
        Path("a.jsonl").unlink(missing_ok=True)  # a recording of all images is not continued with fewer
        assert main([*words, "--on-defect", "skip"]) == 0, verb
    assert json.loads(Path("runs/assign/stats/stats.json").read_text())["images"] == 3


def test_an_advised_command_can_be_pasted(tmp_path):
    folder = tmp_path / "my data"
    folder.mkdir()
    yolo(folder, rows="")
    with pytest.raises(UserError, match=f"`ladle check '{folder}'` shows more"):
        supply(str(folder), RUN, 64)
