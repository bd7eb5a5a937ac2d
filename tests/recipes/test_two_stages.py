"""Two-stage detectors in every recipe: trained, distilled, stopped, resumed, evaluated."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ladle.data.scenes import CLASSES
from ladle.detectors import load_detector, save_detector
from ladle.families import detector_spec
from ladle.recipes import distill, predict, train, val
from tests.recipes.test_train import stop_after
from tests.recipes.tiny import RUN, make_teacher, same_weights

METHODS = ("lad", "lad-rpn", "lad-roi", "lad+pkd", "soft")


@pytest.fixture(scope="module")
def teacher(data, tmp_path_factory):
    """A Faster R-CNN as teacher; after one epoch it would hardly refine boxes, so its weights are changed."""
    file = Path(make_teacher(data, tmp_path_factory.mktemp("teacher"), "fasterrcnn-mini"))
    detector = load_detector(file)
    with torch.no_grad():
        detector.stages[1].box_deltas.weight.mul_(300)
    save_detector(detector, file)
    return str(file)


@pytest.fixture(scope="module")
def taught(data, teacher, tmp_path_factory):
    """One run of every method, and the plain one, by name."""
    run = replace(RUN, project=str(tmp_path_factory.mktemp("taught")))
    runs = {method: distill(data, "fasterrcnn-tiny", teacher, method, run, True) for method in METHODS}
    return runs | {"plain": train(data, "fasterrcnn-tiny", run)}


@pytest.mark.slow
def test_every_method_gives_different_weights(taught):
    files = [run.weights for run in taught.values()]
    pairs = [(one, other) for at, one in enumerate(files) for other in files[at + 1 :]]
    assert [pair for pair in pairs if same_weights(*pair)] == []


@pytest.mark.slow
def test_what_is_saved_is_a_whole_detector_and_finds_the_same_again(taught, data, tmp_path):
    file = taught["lad"].weights
    assert load_detector(file).spec.name == "fasterrcnn-tiny"
    first, again = (val(data, str(file), device="cpu", out=str(tmp_path / "val")) for _ in range(2))
    assert str(first) == str(again)
    images = next(Path(data).rglob("*.png")).parent
    assert predict(str(images), str(file), out=str(tmp_path / "found"), device="cpu")


@pytest.mark.slow
def test_a_cascade_is_taught_by_a_faster_rcnn(data, teacher, tmp_path, capsys):
    run = replace(RUN, project=str(tmp_path), quiet=False)
    assert distill(data, "cascade-tiny", teacher, "lad+soft", run, True).weights.is_file()
    printed = capsys.readouterr().out
    assert "judged by the teacher" in printed
    assert "roi_3/soft_class" in printed


@pytest.mark.slow
def test_a_detector_in_one_stage_judges_proposals(data, tmp_path, capsys):
    teacher = make_teacher(data, tmp_path / "school", "atss-mini")
    run = replace(RUN, project=str(tmp_path), quiet=False)
    assert distill(data, "fasterrcnn-tiny", teacher, "lad-rpn+pkd", run, True).weights.is_file()
    assert "atss-mini" in capsys.readouterr().out


@pytest.mark.slow
def test_a_teacher_with_other_anchors_judges_what_the_student_proposes(data, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "other.safetensors"
    save_detector(detector_spec("fasterrcnn-r18", CLASSES, imgsz=64).build(), file)
    run = replace(RUN, project=str(tmp_path))
    assert distill(data, "fasterrcnn-tiny", str(file), "lad-roi", run, True).weights.is_file()


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(data, teacher, tmp_path, monkeypatch):
    def start(name):
        run = replace(RUN, epochs=2, name=name, project=str(tmp_path))
        return distill(data, "fasterrcnn-tiny", teacher, "lad", run, True, judge_until=1.0, class_power=0.5)

    whole = start("whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            start("cut")
    cut = distill(resume=str(tmp_path / "distill" / "cut"))
    for name in ("last", "best"):
        file = f"weights/{name}.safetensors"
        assert same_weights(cut.folder / file, whole.folder / file)
