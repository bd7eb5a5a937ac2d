"""What names a file or a folder may be a path in Python, and a wrong argument is a sentence."""

from pathlib import Path
from typing import get_args

import pytest

from ladle import recipes
from ladle.errors import UserError
from ladle.limits import hints_of
from tests.recipes.tiny import make_teacher

NAMES = {
    "against_model",
    "against_teacher",
    "check",
    "checkpoint",
    "class_map",
    "data",
    "first",
    "first_weights",
    "out",
    "resume",
    "source",
    "student",
    "teacher",
    "unlabelled",
}
"""Arguments that name a file or a folder wherever they occur."""
RECIPES = {name: getattr(recipes, name) for name in recipes.__all__ if name not in ("Run", "from_hub", "push")}
GONE, OUT = Path("gone"), Path("out")


def inside(hint):
    """A type hint and all hints in it."""
    return {hint}.union(*map(inside, get_args(hint)))


@pytest.mark.parametrize("name", RECIPES)
def test_arguments_that_name_files_may_be_paths(name):
    hints = hints_of(RECIPES[name])
    named = NAMES if name == "convert" else NAMES | {"model"}
    text = {key: hint for key, hint in hints.items() if key in named and str in inside(hint)}
    assert [key for key, hint in text.items() if Path not in inside(hint)] == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("assign_diff", {"data": GONE, "model": GONE, "against_teacher": GONE, "out": OUT}),
        ("assign_show", {"data": GONE, "model": GONE, "teacher": GONE, "out": OUT}),
        ("assign_stats", {"data": GONE, "model": GONE, "out": OUT}),
        ("bench", {"model": [GONE], "data": GONE, "out": OUT / "times.json"}),
        ("check", {"data": GONE}),
        ("colearn", {"data": GONE, "first": GONE, "first_weights": GONE}),
        ("convert", {"checkpoint": GONE, "model": "rtmdet-s", "classes": GONE, "out": OUT}),
        ("distill", {"data": GONE, "student": GONE, "teacher": GONE}),
        ("export", {"model": GONE, "out": OUT / "model.onnx", "data": GONE, "check": GONE}),
        ("predict", {"source": [GONE], "model": GONE, "out": OUT}),
        ("report", {"runs": [GONE], "out": OUT}),
        ("teacher_cache", {"teacher": GONE, "data": GONE, "out": OUT / "cache.jsonl"}),
        ("teacher_probe", {"teacher": GONE, "data": GONE, "out": OUT}),
        ("train", {"data": GONE, "model": GONE}),
        ("train", {"resume": GONE}),
        ("val", {"data": GONE, "model": GONE, "out": OUT}),
    ],
)
def test_a_path_of_nothing_is_a_sentence(name, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="gone"):
        RECIPES[name](**arguments)


def test_no_image_and_no_device_are_sentences(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="found an empty list"):
        recipes.predict([], "gone")
    with pytest.raises(UserError, match="--device gpu: expected one of auto, cpu, cuda"):
        recipes.val("scenes:4", make_teacher("scenes:4", tmp_path), device="gpu")
