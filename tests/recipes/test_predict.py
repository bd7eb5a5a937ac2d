"""From images to drawings and COCO results."""

import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ladle.data import image_size
from ladle.errors import UserError
from ladle.exporting import planned_cost
from ladle.families import detector_spec
from ladle.recipes import models, predict, predicted, val
from ladle.recipes.parts import ASSIGNERS

HOW = {"batch": 3, "device": "cpu"}


def image(path, height=48, width=96, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def album(tmp_path):
    """Images of several sizes and kinds, two of one name, and a file that is none."""
    folder = tmp_path / "album"
    image(folder / "a.png", 40, 120)
    image(folder / "b.jpg", 120, 40, seed=1)
    image(folder / "deep" / "a.png", 64, 64, seed=2)
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.mark.slow
def test_a_folder_is_searched_recursively_and_every_image_is_drawn_once(album, teacher, tmp_path):
    out = tmp_path / "out"
    found = predict(str(album), teacher, out=str(out), **HOW)
    assert list(found) == [album / "a.png", album / "b.jpg", album / "deep" / "a.png"]
    assert {path.name for path in out.glob("*.png")} == {"a.png", "b.png", "a-2.png"}
    images = json.loads((out / "images.json").read_text())
    assert [(image["id"], image["drawing"]) for image in images] == [(1, "a.png"), (2, "b.png"), (3, "a-2.png")]
    with Image.open(out / "a-2.png") as drawing:
        assert drawing.size == (640, 640), "the drawing is that of its own image"


def test_results_are_those_found_in_the_pixels_of_the_files(album, teacher, tmp_path):
    found = predict(str(album), teacher, score=0.0, out=str(tmp_path / "out"), **HOW)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert [Path(image["file_name"]) for image in images] == list(found)
    assert sum(len(one.boxes) for one in found.values()) == len(results) > 0
    sides = {image["id"]: image_size(Path(image["file_name"])) for image in images}
    for row in results:
        x, y, width, height = row["bbox"]
        assert x >= 0
        assert y >= 0
        assert x + width <= sides[row["image_id"]][1] + 1e-3
        assert y + height <= sides[row["image_id"]][0] + 1e-3


def test_detections_of_an_image_do_not_depend_on_the_batch(album, teacher, tmp_path):
    together = predict(str(album), teacher, out=str(tmp_path), batch=1, device="cpu")
    alone = predict(str(album / "b.jpg"), teacher, out=str(tmp_path), batch=1, device="cpu")
    assert torch.equal(together[album / "b.jpg"].boxes, alone[album / "b.jpg"].boxes)


def test_a_pattern_chooses(album, teacher, tmp_path):
    assert list(predict(f"{album}/*.png", teacher, out=str(tmp_path / "out"), **HOW)) == [album / "a.png"]
    assert len(predict(f"{album}/**/*.png", teacher, out=str(tmp_path / "out"), **HOW)) == 2


@pytest.mark.parametrize("source", ["nowhere", "*.png", ""])
def test_a_source_without_an_image_is_refused_by_name(source, teacher, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="found no image") as caught:
        predict(source, teacher, out=str(tmp_path / "out"), **HOW)
    assert source in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_image_is_refused_by_name(album, teacher, tmp_path):
    with pytest.raises(UserError, match=r"notes\.txt"):
        predict(str(album / "notes.txt"), teacher, out=str(tmp_path / "out"), **HOW)


@pytest.mark.parametrize("wrong", [{"imgsz": 0}, {"imgsz": -3}, {"batch": 0}])
def test_sizes_that_make_no_sense_are_refused_before_anything_is_written(album, teacher, tmp_path, wrong):
    with pytest.raises(UserError, match="--(imgsz|batch) .*: expected a whole number from"):
        predict(str(album), teacher, out=str(tmp_path / "out"), **wrong)
    assert not (tmp_path / "out").exists()


def test_several_sources_are_one_album(album, teacher, tmp_path):
    found = predict(
        [str(album / "deep"), f"{album}/*.jpg", str(album / "b.jpg")], teacher, out=str(tmp_path / "out"), **HOW
    )
    assert list(found) == [album / "deep" / "a.png", album / "b.jpg"]


def test_a_damaged_image_is_named_and_the_others_are_done(album, teacher, tmp_path, capsys):
    whole = (album / "b.jpg").read_bytes()
    (album / "b.jpg").write_bytes(whole[: len(whole) // 2])
    (album / "c.png").write_bytes(b"")
    found = predict(str(album), teacher, out=str(tmp_path / "out"), **HOW)
    assert list(found) == [album / "a.png", album / "deep" / "a.png"]
    assert list(found.damaged) == [album / "b.jpg", album / "c.png"]
    printed = capsys.readouterr()
    assert [line.split(": ")[0] for line in printed.err.splitlines()] == [
        str(album / "b.jpg"),
        str(album / "c.png"),
        "2 of 4 files could not be read; the others are done",
    ]
    assert "in 2 pictures" in printed.out
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert [(image["id"], Path(image["file_name"])) for image in images] == [
        (1, album / "a.png"),
        (4, album / "deep" / "a.png"),
    ]
    assert {row["image_id"] for row in json.loads((tmp_path / "out" / "results.json").read_text())} <= {1, 4}


def test_where_no_image_is_whole_nothing_is_written(album, teacher, tmp_path, capsys):
    for file in album.rglob("*.*"):
        file.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"^none of the 3 files can be read$"):
        predict(str(album), teacher, out=str(tmp_path / "out"), **HOW)
    assert len(capsys.readouterr().err.splitlines()) == 3
    with pytest.raises(UserError, match=r"a\.png: expected a whole image"):
        predict(str(album / "a.png"), teacher, out=str(tmp_path / "out"), **HOW)
    assert capsys.readouterr().err == ""  # the command prints it once
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("out", "message"), [("", "is empty"), ("~/x", "only a shell"), ("a.png/x", "the file a.png")])
def test_an_invalid_output_folder_is_refused_before_images_are_read(album, monkeypatch, out, message):
    monkeypatch.chdir(album)
    for verb in (partial(predict, "a.png"), partial(val, "nowhere")):
        with pytest.raises(UserError, match=f"^--out .*{message}"):
            verb("no weights", out=out)


def test_images_of_unsupported_formats_are_reported(album, teacher, tmp_path, capsys):
    (album / "c.heic").write_bytes(b"x")
    predict(str(album), teacher, out=str(tmp_path / "out"), **HOW)
    assert f"1 files skipped, such as {album / 'c.heic'}: the format is not supported" in capsys.readouterr().out


@pytest.mark.parametrize("score", [-0.1, 1.5, 30, float("nan")])
def test_a_score_outside_of_0_to_1_is_refused(album, teacher, tmp_path, score):
    with pytest.raises(UserError, match="--score .*from 0 to 1"):
        predict(str(album), teacher, score=score, out=str(tmp_path / "out"))


def test_what_was_found_is_kept_when_the_work_is_interrupted(album, teacher, tmp_path, monkeypatch):
    draw = predicted.draw_detections

    def interrupted(image, found, classes, path):
        if path.name == "b.png":
            raise KeyboardInterrupt
        return draw(image, found, classes, path)

    monkeypatch.setattr(predicted, "draw_detections", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(str(album), teacher, score=0.0, out=str(tmp_path / "out"), **HOW)
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert [Path(image["file_name"]) for image in images] == [album / "a.png"]
    assert {row["image_id"] for row in json.loads((tmp_path / "out" / "results.json").read_text())} == {1}


def test_max_det_limits_the_detections(album, teacher, tmp_path, capsys):
    every = predict(str(album), teacher, out=str(tmp_path / "all"), **HOW)
    assert max(len(one.scores) for one in every.values()) > 3
    capsys.readouterr()
    few = predict(str(album), teacher, out=str(tmp_path / "few"), max_det=3, **HOW)
    for file, one in few.items():
        assert torch.equal(one.scores, every[file].scores[:3])
    cut = sum(len(one.scores) > 3 for one in every.values())
    assert (
        f"{cut} images gave more than 3 detections: the 3 with the highest scores are kept" in capsys.readouterr().out
    )


def test_skipped_files_are_reported(album, teacher, tmp_path, capsys):
    image(album / "._a.png")
    assert len(predict(str(album), teacher, out=str(tmp_path / "out"), **HOW)) == 3
    assert f"1 files skipped, such as {album / '._a.png'}" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_refused(album, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cpu"):
        predict(str(album), teacher, device="cuda", out=str(tmp_path / "out"))


@pytest.mark.slow
def test_every_detector_and_assigner_is_listed(capsys):
    names = models()
    words = capsys.readouterr().out.replace(",", " ").replace(";", " ").split()
    assert all(set(name.split("-")) <= set(words) for name in names)
    assert set(ASSIGNERS) <= set(words)
    assert {"paa-tiny", "paa-r18", "retinanet-r50"} <= set(names)


@pytest.mark.slow
def test_the_lists_fit_a_terminal_of_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    models()
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.slow
def test_every_assigner_is_listed_with_one_sentence(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    models()
    _, _, listed = capsys.readouterr().out.partition("Assigners")
    lines = [" ".join(line.split()) for line in listed.splitlines()[4:] if line.strip()]
    assert [line.split()[0] for line in lines] == list(ASSIGNERS)
    assert all(re.fullmatch(r"\w+ [A-Z][^.]+\.", line) for line in lines)


def test_a_network_is_timed_before_it_is_trained(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert models(measure="tood+o2o-tiny") == ["tood+o2o-tiny"]
    row = next(
        line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("tood+o2o-tiny")
    ).split()
    cost = planned_cost(detector_spec("tood-tiny", [str(number) for number in range(80)]))
    assert row[1:4] == ["160", f"{cost.parameters / 1e6:.1f}", "million"]
    assert row[4:6] == [f"{cost.flops / 1e9:.1f}", "billion"]
    assert 0 < float(row[6]) <= float(row[7])
    with pytest.raises(UserError, match="expected one of them"):
        models("r*", measure="paa-tiny")
    with pytest.raises(UserError, match="no detector is called 'nosuch'"):
        models(measure="nosuch")


def test_timm_backbones_are_found_by_pattern(capsys):
    assert "mobilenetv3_small_100" in models("mobilenetv3_small*")
    assert models("no_such_net*") == []
    assert "no timm model" in capsys.readouterr().out
