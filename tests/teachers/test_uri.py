"""The text of a teacher is parsed by kind, path and options."""

import pytest

from ladle.errors import UserError
from ladle.teachers import parse_uri
from ladle.teachers.uri import with_class_map


@pytest.mark.parametrize(
    ("text", "kind", "path"),
    [
        ("runs/best.safetensors", "ladle", "runs/best.safetensors"),
        ("detector.ONNX?bgr=1", "onnx", "detector.ONNX"),
        ("predictions.json", "predictions", "predictions.json"),
        ("cache.jsonl", "cache", "cache.jsonl"),
        ("torchvision:fcos_resnet50_fpn", "torchvision", "fcos_resnet50_fpn"),
        ("ensemble:a.onnx?bgr=1,b.onnx", "ensemble", "a.onnx?bgr=1,b.onnx"),
        ("ladle:anything", "ladle", "anything"),
    ],
)
def test_the_kind_is_named_or_told_by_the_suffix(text, kind, path):
    assert parse_uri(text)[1:3] == (kind, path)


def test_an_existing_file_is_itself_whatever_its_name(tmp_path):
    file = tmp_path / "odd?name=x:1.onnx"
    file.touch()
    assert parse_uri(str(file))[1:] == ("onnx", str(file), {})


def test_paths_become_absolute_and_options_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.onnx", "names.txt", "b.safetensors"):
        (tmp_path / name).touch()
    assert parse_uri("b.safetensors").located() == str(tmp_path / "b.safetensors")
    located = parse_uri("a.onnx?mean=1,2,3&classes=names.txt&resize=corner").located()
    assert located == f"onnx:{tmp_path}/a.onnx?mean=1,2,3&classes={tmp_path}/names.txt&resize=corner"
    assert parse_uri(located).located() == located
    both = f"ensemble:onnx:{tmp_path}/a.onnx,{tmp_path}/b.safetensors"
    assert parse_uri("ensemble:a.onnx,b.safetensors").located() == both


def test_a_map_of_classes_becomes_an_option():
    assert with_class_map("a.onnx", "my names.yaml") == "a.onnx?class_map=my%20names.yaml"
    both = with_class_map("hf:folder?score=0.1", "names.yaml")
    assert parse_uri(both).options == {"score": "0.1", "class_map": "names.yaml"}
    for text, named in (
        (both, "names a map already"),
        ("best.safetensors", "are matched by name"),
        ("ensemble:a.onnx,b.onnx", "are matched by name"),
    ):
        with pytest.raises(UserError, match=f"--class-map names.yaml: .*{named}"):
            with_class_map(text, "names.yaml")


def test_an_option_that_is_given_twice_is_refused():
    with pytest.raises(UserError, match="each once"):
        parse_uri("onnx:a.onnx?bgr=1&bgr=1")


def test_a_choice_names_its_words_and_no_empty_one():
    with pytest.raises(UserError, match=r"\?layout=foo: expected one of boxes, yolo$"):
        parse_uri("a.onnx?layout=foo").choice("layout", ("", "boxes", "yolo"), "")


def test_a_plus_in_the_name_of_a_file_stays_a_plus():
    options = parse_uri("onnx:a.onnx?classes=a+b%2Bc.txt&imgsz=64").options
    assert options == {"classes": "a+b+c.txt", "imgsz": "64"}
