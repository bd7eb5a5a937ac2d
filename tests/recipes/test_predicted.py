"""No drawing and no result replaces another."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.recipes import predicted
from ladle.recipes.outputs import free_folder, output_folder, write_rows
from ladle.recipes.predicted import Album, drawing_names
from ladle.types import Detections

SPEC = detector_spec("paa-tiny", ("cat", "dog"), (7, 9))


def names(*files, taken=()):
    return drawing_names([Path(file) for file in files], taken)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["a/1.jpg", "b/1.jpg"], ["1", "1-2"]),
        (["x.jpg", "x.png", "x"], ["x", "x-2", "x-3"]),
        (["1.jpg", "1-2.jpg", "b/1.jpg"], ["1", "1-2", "1-3"]),
        (["b/1.jpg", "a/1.jpg", "1-2.jpg"], ["1", "1-3", "1-2"]),
        (["A.jpg", "a.jpg"], ["A", "a-2"]),
        (["e\u0301.jpg", "é.jpg"], ["e\u0301", "é-2"]),
        (["straße.jpg", "STRASSE.jpg"], ["straße", "STRASSE-2"]),
    ],
)
def test_drawings_have_names_of_their_own(files, expected):
    assert names(*files) == expected


def test_names_that_are_taken_are_left_alone():
    assert names("x.jpg", "b/x.jpg", taken=["X", "x-2"]) == ["x-3", "x-4"]


def test_very_long_names_fit_a_file_system_and_stay_apart():
    made = names("é" * 120 + "a.jpg", "é" * 120 + "b.jpg", "z" * 300 + ".jpg")
    assert len(set(made)) == 3
    assert max(len(os.fsencode(name)) for name in made) <= 182


def test_many_images_of_one_name_are_numbered_in_turn():
    assert names(*(f"{n}/frame.jpg" for n in range(1, 2001)))[-1] == "frame-2000"


def found(count=1):
    boxes = torch.tensor([[1.0, 2.0, 11.0, 22.0]]).repeat(count, 1)
    return Detections(boxes, torch.linspace(0.9, 0.5, count), torch.ones(count, dtype=torch.long))


def photo(path, shade=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((64, 640, 3), shade, dtype=np.uint8)).save(path)
    return path


def fill(out, *files):
    with Album(str(out), files, SPEC, 0.3) as album:
        for file in files:
            album.add(file, found())
    return album


def listed(out):
    return {image["drawing"]: image["file_name"] for image in json.loads((out / "images.json").read_text())}


def test_an_earlier_album_is_replaced_with_a_message(tmp_path, capsys):
    first, second, third = (photo(tmp_path / "in" / f"{n}.png") for n in "abc")
    out = tmp_path / "out"
    fill(out, first, second)
    assert capsys.readouterr().out == ""
    fill(out, second, third)
    assert capsys.readouterr().out == f"{out} holds results of an earlier run: they are replaced\n"
    assert listed(out) == {"b.png": str(second), "c.png": str(third)}
    assert {path.name for path in out.iterdir()} == {"b.png", "c.png", "results.json", "images.json"}


def test_files_that_no_album_made_are_never_overwritten(tmp_path):
    photos = [photo(tmp_path / "a.png", shade=7), photo(tmp_path / "b.png", shade=9)]
    before = [file.read_bytes() for file in photos]
    fill(tmp_path, *photos)
    assert [file.read_bytes() for file in photos] == before
    assert listed(tmp_path) == {"a-2.png": str(photos[0]), "b-2.png": str(photos[1])}


def test_drawings_of_an_earlier_album_that_are_inputs_are_kept(tmp_path):
    fill(tmp_path / "out", photo(tmp_path / "a.png"))
    drawing = tmp_path / "out" / "a.png"
    before = drawing.read_bytes()
    fill(tmp_path / "out", drawing)
    assert drawing.read_bytes() == before
    assert listed(tmp_path / "out") == {"a-2.png": str(drawing)}


@pytest.mark.parametrize("text", ["{}", "[1]", "[[", '[{"drawing": "../x.png"}]', '[{"drawing": 3}]', "[" * 100_000])
def test_an_invalid_record_removes_nothing(tmp_path, text):
    out = tmp_path / "out"
    photo(tmp_path / "x.png"), photo(out / "x.png")
    (out / "images.json").write_text(text)
    fill(out, photo(tmp_path / "in" / "y.png"))
    assert (tmp_path / "x.png").exists()
    assert (out / "x.png").exists()


def test_an_album_that_fails_keeps_the_drawings_before(tmp_path, monkeypatch):
    first, second = photo(tmp_path / "a.png"), photo(tmp_path / "b.png")
    fill(tmp_path / "out", first)
    monkeypatch.setattr(predicted, "draw_detections", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        fill(tmp_path / "out", second)
    assert (tmp_path / "out" / "a.png").exists()


def test_results_are_in_the_ids_of_the_data(tmp_path):
    fill(tmp_path / "out", photo(tmp_path / "a.png"))
    (row,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert row == {"image_id": 1, "category_id": 9, "bbox": [1.0, 2.0, 10.0, 20.0], "score": pytest.approx(0.9)}


def test_results_are_written_while_the_work_goes_on(tmp_path, monkeypatch):
    clock = iter(range(0, 10_000, 61))
    monkeypatch.setattr(predicted.time, "monotonic", lambda: next(clock))
    file = photo(tmp_path / "a.png")
    album = Album(str(tmp_path / "out"), [file], SPEC, 0.3)
    album.add(file, found())
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())) == 1


def test_file_names_of_any_encoding_are_recorded(tmp_path):
    file = Path(os.fsdecode(b"caf\xe9 \xe7\x8c\xab.png"))
    write_rows(tmp_path / "images.json", [{"file_name": str(file)}])
    assert json.loads((tmp_path / "images.json").read_text(encoding="utf-8")) == [{"file_name": str(file)}]


@pytest.mark.parametrize("rows", [[], [1], [{"a": "猫"}, {"b": [1.5, None]}]])
def test_rows_are_a_json_list(tmp_path, rows):
    write_rows(tmp_path / "a.json", iter(rows))
    assert json.loads((tmp_path / "a.json").read_text()) == rows


def test_rows_that_fail_leave_the_file_before(tmp_path):
    write_rows(tmp_path / "a.json", [1])
    with pytest.raises(ZeroDivisionError):
        write_rows(tmp_path / "a.json", (1 // (2 - n) for n in range(3)))
    assert json.loads((tmp_path / "a.json").read_text()) == [1]


def test_the_default_folder_is_always_a_new_one(tmp_path):
    usual = tmp_path / "runs" / "predict"
    made = [output_folder(None, usual) for _ in range(3)]
    assert made == [usual, tmp_path / "runs" / "predict-2", tmp_path / "runs" / "predict-3"]
    assert free_folder(usual) == tmp_path / "runs" / "predict-4"


def test_a_folder_that_cannot_be_made_is_named_with_its_flag_and_not_tried_for_ever(tmp_path):
    (tmp_path / "runs").symlink_to("a disk that is not there")
    with pytest.raises(
        UserError, match=r"^--out .*predict: expected a folder that can be made .*, found .*runs: something"
    ):
        output_folder(None, tmp_path / "runs" / "predict")
