"""``ladle bench``: what it refuses before it measures, and the AP beside its numbers."""

import json
import math
import sys

import pytest
import torch
from PIL import Image

from ladle.cli.main import main
from ladle.data.scenes import CLASSES
from ladle.detectors import load_detector, save_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.recipes import bench, exported_scores, teacher_probe
from ladle.types import Detections

probes = sys.modules["ladle.recipes.teacher"]
benches = sys.modules["ladle.recipes.bench"]  # its name in the package is that of the function


@pytest.fixture
def unmeasured(monkeypatch):
    """Nothing may be loaded or timed."""
    monkeypatch.setattr(benches, "load_detector", None)
    monkeypatch.setattr(benches, "latency_of", None)


@pytest.fixture
def stranger(tmp_path):
    """A detector of classes that the data lack."""
    save_detector(detector_spec("fcos-tiny", ("cat", "dog"), imgsz=64).build(), tmp_path / "stranger.safetensors")
    return str(tmp_path / "stranger.safetensors")


def test_a_place_where_the_numbers_cannot_be_written_is_refused_before_anything_is_measured(
    teacher, tmp_path, unmeasured, monkeypatch
):
    (tmp_path / "chart.png").mkdir()
    (tmp_path / "file").touch()
    for out, found in {
        tmp_path: "expected a .json file, found a folder: name a file in it, such as bench.json",
        ".": "expected a .json file, found a folder",
        tmp_path / "chart.json": f"its chart lies beside it as .png, found the folder {tmp_path / 'chart.png'}",
        tmp_path
        / "file"
        / "bench.json": f"in a folder that can be written to, found {tmp_path / 'file'}: name another",
    }.items():
        with pytest.raises(UserError, match=f"^--out {out}: .*{found}"):
            bench(teacher, out=str(out))
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UserError, match=f"in a folder that can be written to, found {tmp_path}: name another"):
        bench(teacher, out=str(tmp_path / "new" / "bench.json"))


def test_files_and_data_that_cannot_be_measured_are_refused_before_the_first_detector_is(
    data, teacher, stranger, tmp_path, unmeasured, capsys
):
    for words, found in {
        (stranger, "--data", data): f"{stranger} has the classes cat, dog, but {data} has {', '.join(CLASSES)}",
        (str(tmp_path / "none.safetensors"),): f"{tmp_path / 'none.safetensors'}",
        (str(tmp_path / "none.onnx"),): f"{tmp_path / 'none.onnx'}: there is no such file; expected one written by",
        ("--data", str(tmp_path / "none")): f"{tmp_path / 'none'}",
    }.items():
        assert main(["bench", teacher, *words]) == 2
        error = capsys.readouterr().err
        assert found in error
        assert error.count("\n") == 1


@pytest.fixture
def crowded(tmp_path):
    """An image of 150 objects, a detector that keeps as many, and all of them as detections."""
    boxes = [[6 * (number % 15), 6 * (number // 15), 5, 5] for number in range(150)]
    (tmp_path / "data").mkdir()
    Image.new("RGB", (96, 64)).save(tmp_path / "data" / "a.png")
    about = {
        "images": [{"id": 1, "file_name": "a.png", "width": 96, "height": 64}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": 25, "iscrowd": 0}
            for number, box in enumerate(boxes, start=1)
        ],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "data" / "val.json").write_text(json.dumps(about))
    detector = detector_spec("fcos-tiny", ("cell",), imgsz=96).build().keep(150)
    save_detector(detector, tmp_path / "crowded.safetensors")
    corners = torch.tensor(boxes).float()
    corners[:, 2:] += corners[:, :2]
    found = Detections(corners, torch.linspace(0.9, 0.5, 150), torch.zeros(150, dtype=torch.long))
    return str(tmp_path / "data" / "val.json"), str(tmp_path / "crowded.safetensors"), found


def test_bench_counts_as_many_detections_as_the_detector_gives(crowded, monkeypatch, capsys):
    data, model, found = crowded

    def finds_all(about, *_):
        return [benches._Contender(about, None, "oracle", 1, lambda batch: [found] * len(batch.sizes), False)]

    monkeypatch.setattr(benches, "_contenders", finds_all)
    (measured,) = bench(model, data=data, calls=2)
    assert measured.ap == pytest.approx(100)
    assert f"{model}: its AP counts up to 150 detections of an image, not 100 as in COCO" in capsys.readouterr().out
    bench(model, calls=2)
    assert "its AP counts" not in capsys.readouterr().out


def test_a_probe_counts_as_many_detections_as_ladle_s_detector_gives(crowded, tmp_path, monkeypatch, capsys):
    data, model, found = crowded
    monkeypatch.setattr(probes, "detect", lambda detector, batch: ([found] * len(batch.sizes), 0))
    probed = teacher_probe(model, data, out=str(tmp_path / "out"))
    assert probed.evaluation.ap == pytest.approx(1)
    assert "up to 150 detections of an image count, not 100 as in COCO" in capsys.readouterr().out


@pytest.fixture
def odd(tmp_path):
    """Data without a split val, with a class that the detector lacks; another split without objects; and a detector."""
    for split, objects in (("test", 1), ("train", 0)):
        (tmp_path / "odd" / split).mkdir(parents=True)
        Image.new("RGB", (64, 64)).save(tmp_path / "odd" / split / "a.png")
        about = {
            "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 40, 40]}] * objects,
            "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "worm"}],
        }
        (tmp_path / "odd" / "annotations").mkdir(exist_ok=True)
        (tmp_path / "odd" / "annotations" / f"instances_{split}.json").write_text(json.dumps(about))
    for name in ("one", "two"):
        detector = detector_spec("fcos-tiny", ("cell",), imgsz=64).build()
        save_detector(detector, tmp_path / f"{name}.safetensors")
    return tmp_path


def test_bench_prints_the_notes_on_the_data_once(odd, capsys):
    bench([str(odd / "one.safetensors"), str(odd / "two.safetensors")], data=str(odd / "odd"), calls=2, device="cpu")
    printed = capsys.readouterr().out
    assert printed.count("'test' stands in for it") == 1
    for name in ("one", "two"):
        assert printed.count(f"note: {odd / name}.safetensors does not know 'worm', and finds none of it") == 1
    bench(str(odd / "one.safetensors"), data=str(odd / "odd"), split="train", calls=2, device="cpu")
    assert "train: note: no objects to score" in capsys.readouterr().out


def test_export_prints_the_notes_on_the_data_and_no_nan(odd, capsys):
    detector = load_detector(odd / "one.safetensors")
    exported_scores.open_validation(str(odd / "odd"), detector, "one.safetensors", "repair")
    printed = capsys.readouterr().out
    assert "val: note: there is no split 'val'; 'test' stands in for it" in printed
    assert "note: fcos-tiny does not know 'worm', and finds none of it" in printed
    exported_scores.open_calibration(str(odd / "odd"), detector, "one.safetensors", "repair")
    assert "train: note: no objects to score" in capsys.readouterr().out
    nothing = exported_scores.Scores(math.nan, math.nan, 3)
    assert nothing.in_words() == "AP on 3 validation images: no objects to score"
    assert nothing._replace(detector=0.5, file=0.25).in_words().endswith(": 50.00 in PyTorch, 25.00 in the file")
