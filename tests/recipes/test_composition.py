"""Every sum of two methods trains; teachers of other kinds, chains of assistants, and the printed summary."""

import json
from copy import deepcopy
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
import torch

from ladle.data.scenes import CLASSES
from ladle.detectors import load_detector, save_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.methods import WORDS, plan_for
from ladle.objectives import TrainingStep
from ladle.recipes import colearn, distill, train
from ladle.recipes.jobs import Job
from ladle.recipes.parts import parts_of
from ladle.recipes.preflight import MOVED
from ladle.recipes.setup import links_of
from ladle.teachers import FrozenDetector
from tests.recipes.test_conformance import loss_of, scenes
from tests.recipes.test_train import stop_after
from tests.recipes.tiny import RUN, same_weights

STUDENT, TEACHER = (detector_spec(f"paa+dist-{size}", CLASSES) for size in ("tiny", "mini"))
SAME_TERMS = [{"soft", "classes"}, {"soft", "boxes"}, {"soft", "quality"}, {"soft", "kl"}, {"classes", "kl"}]
SAME_TERMS += [{"ld", "ld-main"}, {"ld", "ld-edges"}, {"ld-main", "ld-edges"}]
DISTILLERS = [word for word in WORDS if word not in ("plain", "lad", "lad-rpn", "lad-roi", "solad", "soft-only")]
SUMS = [pair for pair in combinations(["lad", *DISTILLERS], 2) if set(pair) not in SAME_TERMS]


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return STUDENT.build(), FrozenDetector(TEACHER.build(), CLASSES), scenes(2)


@pytest.mark.slow
@pytest.mark.parametrize("pair", SUMS, ids="+".join)
def test_every_sum_of_two_methods_trains_two_steps(networks, pair):
    student, teacher, batch = networks
    student = deepcopy(student)  # each sum starts from the same weights
    plan = plan_for("+".join(pair), STUDENT, TEACHER)
    torch.manual_seed(0)
    objective = TrainingStep(student, plan.lessons, teacher)
    objective.set_time(1, 400)  # after all warm-ups
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-4)
    for _ in range(2):
        terms = objective(batch)
        loss = loss_of(terms)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert loss.isfinite()
        assert objective.distilled == set(plan.teaches), "the plan differs from the distilled terms"
        assert all(float(terms[name].total.detach()) > 0 for name in plan.teaches), "a term is zero"
    assert all(parameter.grad is not None for parameter in objective.parameters())
    assert all(parameter.grad is None for parameter in teacher.detector.parameters())


@pytest.mark.parametrize("pair", [("boxes", "soft"), ("ld", "ld-main")], ids="+".join)
def test_a_sum_with_a_repeated_term_is_refused(pair):
    assert {*pair} in SAME_TERMS
    with pytest.raises(UserError, match="which another part teaches too"):
        plan_for("+".join(pair), STUDENT, TEACHER)


# ------------------------------------------------------------------------------------------------------------ teachers


def saved(spec, file):
    torch.manual_seed(3)
    save_detector(spec.build(), file)
    return str(file)


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory):
    """The student trained without a teacher; no test changes it."""
    return train(data, "paa-tiny", replace(RUN, project=str(tmp_path_factory.mktemp("plain"))))


@pytest.mark.slow
def test_a_teacher_of_features_may_have_other_classes_strides_and_anchors(data, plain, tmp_path, capsys):
    teacher = saved(detector_spec("retinanet-r18", ("cat", "dog"), imgsz=64), tmp_path / "other.safetensors")
    run = replace(RUN, project=str(tmp_path), quiet=False)
    taught = distill(data, "paa-tiny", teacher, "pkd+fitnet", run)
    printed = capsys.readouterr().out
    assert "retinanet-r18, not evaluated: it has other classes, only its features are used" in printed
    assert (
        "pkd: correlation of channels, maps of stride 8, 16, 32, 1 x 1 convolutions from 48 to 256 channels" in printed
    )
    assert not same_weights(taught.weights, plain.weights)
    assert set(load_detector(taught.weights).state_dict()) == set(load_detector(plain.weights).state_dict())


@pytest.mark.slow
def test_a_teacher_whose_predictions_are_used_is_moved_to_the_student_s_priors(data, plain, tmp_path, capsys):
    teacher = saved(detector_spec("retinanet-r18", CLASSES, imgsz=64), tmp_path / "other.safetensors")
    before = Path(teacher).read_bytes()
    run = replace(RUN, project=str(tmp_path), quiet=False)
    taught = distill(data, "paa-tiny", teacher, "gi", run, allow_weak_teacher=True)
    (moved,) = [line for line in capsys.readouterr().out.splitlines() if line.endswith(f": {MOVED}")]
    assert "the teacher predicts at strides (8, 16, 32, 64, 128), the student at (8, 16, 32); " in moved
    assert "the teacher's priors are Anchors(scales=(4.0, 5.03" in moved
    assert ", the student's Anchors(scales=(4.0,), ratios=(1.0,)" in moved
    assert Path(teacher).read_bytes() == before
    assert not same_weights(taught.weights, plain.weights)
    assert set(load_detector(taught.weights).state_dict()) == set(load_detector(plain.weights).state_dict())


@pytest.mark.slow
def test_a_teacher_whose_head_is_entered_must_match_the_student(data, tmp_path):
    teacher = saved(detector_spec("retinanet-r18", CLASSES, imgsz=64), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="^--method cross: .* at the same priors; take lad or soft$"):
        distill(data, "paa-tiny", teacher, "cross", replace(RUN, project=str(tmp_path)), allow_weak_teacher=True)
    assert [file.name for file in tmp_path.iterdir()] == ["other.safetensors"]


@pytest.mark.slow
def test_a_teacher_of_the_same_architecture_trains_a_student(data, tmp_path):
    """Self-LD: the teacher has the same architecture."""
    first = train(data, "gfl-tiny", replace(RUN, project=str(tmp_path)))
    run = replace(RUN, project=str(tmp_path), seed=1)
    taught = distill(data, "gfl-tiny", str(first.weights), "ld", run, allow_weak_teacher=True)
    assert not same_weights(taught.weights, first.weights)


@pytest.mark.slow
def test_the_summary_lists_the_distilled_tensors_and_their_schedule(data, teacher, tmp_path, capsys):
    run = replace(RUN, project=str(tmp_path), quiet=False)
    distill(data, "paa-tiny", teacher, "lad+pkd+classes", run, True, weight="pkd=0.5", until="classes=1")
    lines = capsys.readouterr().out.splitlines()
    plan = lines[lines.index("method    lad: ground truth, assigned by the teacher") :][:6]
    assert plan == [
        "method    lad: ground truth, assigned by the teacher",
        "          pkd: feature maps up to their scale",
        "          classes: of the soft labels the scores alone",
        "assigner  PAA, judged by the teacher",
        "teaches   pkd: correlation of channels, maps of stride 8, 16, 32 (weight 0.5)",
        "          soft_class: 6 class scores at every prior (until epoch 1)",
    ]


# ---------------------------------------------------------------------------------------------------------- assistants


def chain(data, teacher, project, name="chain"):
    run = replace(RUN, project=str(project), name=name)
    return distill(data, "paa-tiny", teacher, "solad", run, True, assistants="mini, paa-tiny")


@pytest.fixture(scope="module")
def taught(data, teacher, tmp_path_factory):
    """A whole chain; no test changes it."""
    return chain(data, teacher, tmp_path_factory.mktemp("whole"))


@pytest.mark.slow
def test_assistants_are_trained_in_turn_and_then_the_student(taught, data, teacher, tmp_path):
    folder = taught.folder / "assistants"
    assert sorted(path.name for path in folder.iterdir()) == ["1-paa-mini", "2-paa-tiny"]
    whose = [json.loads((folder / name / "teacher.json").read_text())["file"] for name in ("1-paa-mini", "2-paa-tiny")]
    assert whose == [teacher, str(folder / "1-paa-mini" / "weights" / "best.safetensors")]
    last = str(folder / "2-paa-tiny" / "weights" / "best.safetensors")
    run = replace(RUN, project=str(tmp_path))
    assert same_weights(distill(data, "paa-tiny", last, "solad", run, True).weights, taught.weights)
    assert json.loads((taught.folder / "teacher.json").read_text())["file"] == teacher


@pytest.mark.slow
def test_a_stopped_chain_is_resumed(taught, data, teacher, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            chain(data, teacher, tmp_path)
    cut = tmp_path / "distill" / "chain"
    assert [path.name for path in (cut / "assistants").iterdir()] == ["1-paa-mini"]
    assert same_weights(distill(resume=str(cut)).weights, taught.weights)


def test_a_chain_with_a_link_that_cannot_work_is_refused_before_anything_is_written(data, teacher, tmp_path):
    run = replace(RUN, project=str(tmp_path))
    job = Job("distill", data, "paa-tiny", run=run, method="cross", teacher=teacher)
    assert links_of(replace(job, assistants="mini"), parts_of(job)) == ["paa-mini"], "these links have the same priors"
    for assistants in ("r18", "mini,r18"):
        link = f"^--assistants {assistants}: paa-.* cannot teach paa-.*: --method cross: .* at the same priors"
        with pytest.raises(UserError, match=link + "; take lad or soft$"):
            distill(data, "paa-tiny", teacher, "cross", run, True, assistants=assistants)
    with pytest.raises(UserError, match="no backbone is called"):
        distill(data, "paa-tiny", teacher, "lad", run, True, assistants="enormous")
    assert list(Path(tmp_path).iterdir()) == []


def test_an_assistant_may_have_other_priors(data, teacher):
    job = Job("distill", data, "paa-tiny", run=RUN, method="lad", teacher=teacher, assistants="r18, fcos-mini")
    assert links_of(job, parts_of(job)) == ["paa-r18", "fcos-mini"]


@pytest.mark.parametrize("assistants", ["", "r18,", ",", "r18,,r34"])
def test_an_assistant_without_a_name_is_refused(data, teacher, tmp_path, assistants):
    run = replace(RUN, project=str(tmp_path / "runs"))
    with pytest.raises(UserError, match="--assistants .*expected detectors such as r50,r34"):
        distill(data, "paa-tiny", teacher, "lad", run, True, assistants=assistants)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["weight", "warm", "until"])
def test_weights_and_schedules_without_a_distiller_are_refused(data, teacher, tmp_path, flag):
    run = replace(RUN, project=str(tmp_path / "runs"))
    with pytest.raises(UserError, match=f"--{flag} 2: by --method lad nothing is distilled"):
        distill(data, "paa-tiny", teacher, "lad", run, True, **{flag: "2"})
    with pytest.raises(UserError, match=f"--{flag} 2: by --method plain nothing is distilled"):
        colearn(data, "paa-tiny", "paa-tiny", run, **{flag: "2"})
    assert list(tmp_path.iterdir()) == []
