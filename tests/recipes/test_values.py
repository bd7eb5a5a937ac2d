"""Custom values in the public functions: they train, are recorded, resume, distill and are evaluated."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

import ladle
from ladle import FrozenDetector, distill, load_detector, train, val
from ladle.assigners import PAA
from ladle.cli.main import main
from ladle.data import Splits
from ladle.data.scenes import split_scenes
from ladle.distillers import PKD
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.methods import LAD
from ladle.recipes.parts import given_parts
from tests.recipes.tiny import RUN

PACKAGE = str(Path(ladle.__file__).parent)
FRAMES: list[list[str]] = []

MODULE = """
from dataclasses import dataclass, replace

from ladle.assigners import PAA
from ladle.criteria import DenseCriterion
from ladle.distillers import Joinable, Summary
from ladle.types import Term


@dataclass(frozen=True)
class Mine:
    topk: int = 9

    def __call__(self, predictions, priors, truth):
        return PAA(topk=self.topk)(predictions, priors, truth)


def losses(output, truth, assignment):
    terms = DenseCriterion()(output, truth, assignment)
    return {"box": terms["box"], "class": terms["class"]}


@dataclass(frozen=True)
class Scores(Joinable):
    weight: float = 1.0
    features_only = False
    every_stage = True

    def summarize(self, student, teacher, stage):
        return Summary({"scores": f"{student.stage(stage).classes} class scores"})

    def build(self, student, teacher):
        return self

    def __call__(self, student, teacher, truth, assignment):
        valid = student.priors.valid.unsqueeze(-1)
        apart = (student.predictions.scores - teacher.predictions.scores.detach()).square() * valid
        return {"scores": Term(self.weight * apart.sum(), valid.sum().float(), apart.new_ones(()))}
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A custom module that can be imported."""
    (tmp_path / "ownparts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "ownparts", raising=False)
    import ownparts

    return ownparts


def run(folder, **changes):
    return replace(RUN, project=str(folder), **changes)


def config(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


@dataclass(frozen=True)
class Tracing:
    """PAA, which records the functions through which it is called."""

    def __call__(self, predictions, priors, truth):
        frame, names = sys._getframe(1), []
        while frame is not None:
            if frame.f_code.co_filename.startswith(PACKAGE):
                names.append(frame.f_code.co_name)
            frame = frame.f_back
        FRAMES.append(names)
        return PAA()(predictions, priors, truth)


def test_from_train_to_the_assigner_are_at_most_eight_frames(data, tmp_path):
    FRAMES.clear()
    train(data, "paa-tiny", run(tmp_path), assigner=Tracing())
    inner = [name for name in FRAMES[0] if name not in ("wrapped_fn_impl", "wrapped_fn")]
    assert "train" in inner
    assert inner.index("train") + 2 <= 8, inner


@pytest.mark.slow
def test_parts_of_ones_own_train_resume_distill_and_are_evaluated(data, teacher, mine, tmp_path):
    parts = {"assigner": mine.Mine(topk=5), "criterion": mine.losses}
    alone = train(data, "paa-tiny", run(tmp_path), **parts)
    assert config(alone.folder)["assigner"] == "ownparts:Mine(topk=5)"
    assert config(alone.folder)["criterion"] == "ownparts:losses"
    header = (alone.folder / "results.csv").read_text().partition("\n")[0].split(",")
    assert {"loss/box", "loss/class"} == {name for name in header if name.startswith("loss/")}
    method = LAD() + mine.Scores(weight=0.5) + PKD()
    taught = distill(data, "paa-tiny", teacher, method, run(tmp_path), True, **parts)
    assert config(taught.folder)["method"] == "LAD+ownparts:Scores(weight=0.5)+PKD"
    assert "loss/scores" in (taught.folder / "results.csv").read_text()
    longer = distill(resume=str(taught.folder), run=replace(RUN, epochs=RUN.epochs + 1), method=method, **parts)
    assert len((longer.folder / "results.csv").read_text().splitlines()) == RUN.epochs + 2
    assert val(data, str(longer.weights), device="cpu").ap >= 0


@pytest.mark.slow
def test_a_run_folder_imports_nothing(data, mine, tmp_path):
    folder = train(data, "paa-tiny", run(tmp_path), assigner=mine.Mine()).folder
    with pytest.raises(
        UserError, match="code of your own; resuming imports nothing, so give --assigner 'ownparts:Mine'"
    ):
        train(resume=str(folder), run=replace(RUN, epochs=RUN.epochs + 1))
    with pytest.raises(UserError, match="cannot change --assigner"):
        train(resume=str(folder), assigner=mine.Mine(topk=3))


@pytest.mark.slow
def test_the_command_line_imports_a_module_and_sets_fields(data, mine, tmp_path, capsys):
    flags = ["--data", data, "--model", "paa-tiny", "--epochs", "1", "--imgsz", "64", "--batch", "2", "--device", "cpu"]
    flags += ["--workers", "0", "--project", str(tmp_path)]
    assert main(["train", *flags, "--assigner", "ownparts:Mine", "--assigner.topk", "4", "--name", "own"]) == 0
    assert "assigner  ownparts:Mine(topk=4)" in capsys.readouterr().out
    assert config(tmp_path / "train" / "own")["assigner"] == "ownparts:Mine(topk=4)"
    assert main(["train", "--resume", str(tmp_path / "train" / "own"), "--epochs", "2"]) == 2
    again = ["--assigner", "ownparts:Mine(topk=4)"]
    assert main(["train", "--resume", str(tmp_path / "train" / "own"), "--epochs", "2", *again]) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--assigner.topk", "13"], "(topk=13)"),
        (["--assigner", "PAA", "--assigner.topk", "13"], "PAA(topk=13)"),
        (["--assigner", "PAA(topk=13)"], "PAA(topk=13)"),
        (["--criterion.box_weight", "3.0"], None),
    ],
)
def test_fields_are_printed_with_the_configuration(words, expected, capsys):
    assert main(["train", "--data", "scenes", *words, "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["assigner"] == expected
    assert printed["criterion"] == (None if expected else "(box_weight=3.0)")


def test_yaml_sets_fields(tmp_path, capsys):
    file = tmp_path / "flags.yaml"
    file.write_text(
        "assigner: {class: PAA, topk: 13}\ncriterion: {class: DenseCriterion, box_weight: 3.0}\n"
        "method: [lad, {class: pkd, weight: 2.0}]\n"
    )
    assert main(["distill", "--config", str(file), "--print-config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["assigner"] == "PAA(topk=13)"
    assert printed["criterion"] == "DenseCriterion(box_weight=3.0)"
    assert printed["method"] == "lad+pkd(weight=2.0)"


@pytest.mark.slow
def test_fields_alone_are_those_of_the_familys_own_assigner(data, tmp_path, capsys):
    folder = train(data, "paa-tiny", run(tmp_path, quiet=False), assigner="(topk=7)").folder
    assert "assigner  PAA(topk=7)" in capsys.readouterr().out
    assert config(folder)["assigner"] == "(topk=7)"


@pytest.mark.slow
def test_data_and_a_teacher_of_ones_own_are_given_as_objects(teacher, tmp_path, capsys):
    data = Splits(*split_scenes(train=4, val=2, size=64))
    detector = load_detector(teacher)
    frozen = FrozenDetector(detector, data.train.classes)
    taught = distill(data, "paa-tiny", frozen, "lad+soft", run(tmp_path, quiet=False), True)
    assert "teacher   paa-tiny, given in Python and not evaluated" in capsys.readouterr().out
    assert config(taught.folder)["data"] == "python:Splits"
    assert config(taught.folder)["teacher"] == "python:FrozenDetector"
    with pytest.raises(UserError, match="begun in Python with an object"):
        distill(resume=str(taught.folder), run=replace(RUN, epochs=RUN.epochs + 1))
    again = distill(data, resume=str(taught.folder), teacher=frozen, run=replace(RUN, epochs=RUN.epochs + 1))
    assert len((again.folder / "results.csv").read_text().splitlines()) == RUN.epochs + 2


@pytest.mark.slow
def test_a_student_is_given_as_a_spec(data, tmp_path):
    spec = detector_spec("fcos-tiny", ("a",), imgsz=64)
    wide = replace(spec, head=replace(spec.head, depth=2))
    trained = train(data, wide, run(tmp_path, imgsz=None))
    assert load_detector(trained.weights).spec.head.depth == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"assigner": PAA}, "assigner takes text or a Assigner"),
        ({"data": Splits((), ())}, r"data.train: expected classes, category_ids, __len__ and sample"),
    ],
)
def test_what_is_no_value_is_refused_before_a_folder_is_made(arguments, message, tmp_path):
    with pytest.raises(UserError, match=message):
        train(**{"data": "scenes", "model": "paa-tiny", "run": run(tmp_path)} | arguments)
    assert list(tmp_path.iterdir()) == []


def test_what_a_caller_without_type_checks_gives_is_refused_too():
    with pytest.raises(UserError, match="criterion takes text or a Criterion, found 3"):
        given_parts(criterion=3)
    with pytest.raises(UserError, match=r"method takes text, or a sum such as LAD\(\) \+ PKD\(\), found 3"):
        given_parts(method=3)


@pytest.mark.slow
def test_a_run_folder_without_the_newer_flags_goes_on(data, tmp_path):
    folder = train(data, "paa-tiny", run(tmp_path)).folder
    flags = config(folder)
    assert flags.pop("criterion", "missing") is None
    (folder / "config.yaml").write_text(yaml.safe_dump(flags, sort_keys=False))
    train(resume=str(folder), run=replace(RUN, epochs=RUN.epochs + 1))
    assert len((folder / "results.csv").read_text().splitlines()) == RUN.epochs + 2
