"""The model card of a run, and what is uploaded with it."""

from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import HTTPError

from ladle.cli.main import main
from ladle.errors import UserError
from ladle.recipes import from_hub, push
from ladle.recipes.card import CARD, card_of, write_card
from ladle.recipes.contents import Contents
from ladle.recipes.jobs import Job
from ladle.recipes.options import Run
from ladle.recipes.report_runs import entries_of, read_run
from ladle.recipes.report_values import ClassNumbers, Numbers, Scored, write_numbers
from ladle.visual.html import figure
from ladle.visual.markdown import block, literal, table

METRICS = {"ap": 0.2512, "ap50": 0.5, "ap75": 0.25, "ap_small": None, "ap_medium": 0.3, "ap_large": 0.4}
SHA = "0123456789abcdef" * 4
CONTENTS = (Contents(8, 20, ("a|b", "<i>c"), SHA), Contents(4, 9, ("a|b", "<i>c"), SHA))


def scored(student="student", ap=0.2512):
    """An evaluation of two classes."""
    classes = (ClassNumbers("a|b", 5, ap, {}), ClassNumbers("<i>c", 4, ap, {}))
    return Scored(
        *(student, "paa-tiny", 64, 3, 4, 100, METRICS | {"ap": ap}, {"small": 2, "medium": 3, "large": 4}, classes),
        *(0.375, 0.8, 0.5, 0.6153, {}, (), (), (), 521_000, 2_000_000_000),
    )


def run_folder(folder, verb, students=("student",), ap=0.2512, **job):
    """The folder of a run that has ended, with weights that are a few bytes."""
    Job(verb, "/somewhere/birds", "paa-tiny", str(folder), Run(epochs=7), contents=CONTENTS, **job).write()
    write_numbers(folder, Numbers(10.0, tuple(scored(name, ap) for name in students)))
    (folder / "weights").mkdir()
    for name in students:
        file = "best.safetensors" if name == "student" else f"{name}-best.safetensors"
        (folder / "weights" / file).write_bytes(name.encode())
    return folder


@pytest.fixture
def plain(tmp_path):
    return run_folder(tmp_path / "plain", "train", ap=0.2)


@pytest.fixture
def taught(tmp_path):
    return run_folder(
        tmp_path / "taught", "distill", method="solad", teacher="/far/big.safetensors", teacher_sha256=SHA
    )


def card(*folders):
    entries = entries_of([read_run(folder) for folder in folders])
    return card_of(entries[-1:], entries[0] if len(folders) > 1 else None)


# ------------------------------------------------------------------------------------------------------------ the card


def test_the_metadata_hold_ap_as_a_fraction_and_what_hubs_look_for(taught):
    _, head, _ = card(taught).split("---\n", 2)
    data = yaml.safe_load(head)
    assert (data["library_name"], data["pipeline_tag"]) == ("ladle", "object-detection")
    assert data["tags"] == ["object-detection", "ladle", "knowledge-distillation"]
    (model,) = data["model-index"]
    (result,) = model["results"]
    assert result["dataset"]["name"] == "birds"
    found = {one["type"]: one["value"] for one in result["metrics"]}
    assert found == {name: value for name, value in METRICS.items() if value is not None}


def test_ap_before_distillation_stands_beside_ap_after_it(plain, taught):
    text = card(plain, taught)
    assert "Distillation helped: 25.1 AP" in text
    assert "| paa\\-tiny, trained | 20.0 | 50.0 | 25.0 | – | 30.0 | 40.0 |" in text
    assert "| paa\\-tiny, distilled with solad | 25.1 | 50.0 | 25.0 | – | 30.0 | 40.0 |" in text


def test_the_card_tells_classes_teacher_size_and_command_and_no_folder_of_the_machine(taught):
    text = card(taught)
    assert "## Classes (2)\n\na\\|b, &lt;i&gt;c" in text
    assert f"| SHA\\-256 of the teacher | {SHA} |" in text
    assert "| teacher | big.safetensors |" in text
    assert "| images | 8 to train on, 4 to validate |" in text
    assert "0.52 million parameters, 2.00 billion operations for an image of 64 pixels." in text
    assert "ladle distill " in text
    assert "--method solad" in text


def test_two_students_have_a_part_each(tmp_path):
    record = read_run(run_folder(tmp_path / "both", "colearn", ("first", "second"), second="paa-tiny"))
    text = write_card(entries_of([record]), None, tmp_path).read_text("utf-8")
    assert (tmp_path / CARD).is_file()
    assert "## both, first" in text
    assert "## both, second" in text
    assert 'predict("IMAGES", "weights/second-best.safetensors")' in text


def test_runs_on_different_images_are_not_compared(plain, taught):
    entries = entries_of([read_run(plain), read_run(taught)])
    other = replace(CONTENTS[1], sha256="f" * 64)
    entries[0] = replace(
        entries[0], run=replace(entries[0].run, job=replace(entries[0].run.job, contents=(CONTENTS[0], other)))
    )
    text = card_of(entries[1:], entries[0])
    assert "were evaluated on different images: their AP cannot be compared" in text
    assert "paa\\-tiny, trained |" not in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", "a\\|b"),
        ("# no *heading*", "\\# no \\*heading\\*"),
        ("<script>", "&lt;script&gt;"),
        ("two\nlines", "two\\\\nlines"),
        ("[link](x)", "\\[link\\]\\(x\\)"),
    ],
)
def test_no_name_is_read_as_markup(text, expected):
    assert literal(text) == expected


def test_a_fence_is_longer_than_the_backticks_inside():
    assert block("a ```` b", "python") == "`````python\na ```` b\n`````"


def test_a_table_has_the_columns_of_its_first_row():
    assert table([{"a": 1.25, "b|c": None}, {"a": "x"}]) == "| a | b\\|c |\n| --- | --- |\n| 1.2 | – |\n| x | – |"


# ------------------------------------------------------------------------------------------------------------- the hub


@pytest.fixture
def uploads(monkeypatch):
    """The calls of a hub that takes everything."""
    calls = []

    class Hub:
        def create_repo(self, repository, private, exist_ok):
            calls.append((repository, private, exist_ok))

        def create_commit(self, repository, added, commit_message):
            calls.append({one.path_in_repo: one.path_or_fileobj for one in added})
            return SimpleNamespace(repo_url=f"hub/{repository}")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    return calls


def test_weights_card_and_report_are_uploaded(plain, taught, uploads, capsys):
    (taught / "report.html").write_text("page")
    assert main(["push", str(taught), "--repository", "me/birds", "--baseline", str(plain), "--private", "true"]) == 0
    repository, files = uploads
    assert repository == ("me/birds", True, True)
    assert str(files["model.safetensors"]) == str(taught / "weights" / "best.safetensors")
    assert str(files["report.html"]) == str(taught / "report.html")
    text = files["README.md"].decode()
    assert "Distillation helped" in text
    assert 'predict("IMAGES", from_hub("me/birds"))' in text
    assert "model.safetensors, README.md, report.html to hub/me/birds" in capsys.readouterr().out


def test_what_becomes_public_is_told_before_it_is_uploaded(taught, uploads, monkeypatch, capsys):
    figures = "".join(figure(b"jpeg", "street.jpg: 1 <img> of 2 objects found") for _ in range(3))
    (taught / "report.html").write_text(figures)
    told = []
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", lambda *_, **__: told.append(capsys.readouterr().out))
    assert main(["push", str(taught), "--repository", "me/birds"]) == 0
    assert main(["push", str(taught), "--repository", "me/birds", "--report", "false"]) == 0
    public = "names of classes and the command of the run with its paths"
    images = "3 images of the data with names of files, which --report false leaves out"
    assert told[0] == f"uploading model.safetensors, README.md, report.html: {public}, and {images}\n"
    assert told[1].endswith(f"uploading model.safetensors, README.md: {public}\n")
    assert ["report.html" in files for files in uploads] == [True, False]


def test_the_card_of_other_weights_than_those_evaluated_states_no_ap(tmp_path, uploads):
    folder = run_folder(tmp_path / "on", "train")
    (weights,) = (folder / "weights").iterdir()
    write_numbers(folder, Numbers(10.0, (replace(scored(), sha256=sha256(weights.read_bytes()).hexdigest()),)))
    (folder / "report.html").write_text("page")
    push(str(folder), "me/birds")
    weights.write_bytes(b"the run went on")
    push(str(folder), "me/birds")
    told, told_then = (uploads[place]["README.md"].decode() for place in (1, 3))
    assert "reaches 25.1 AP" in told
    assert "has no stored evaluation" in told_then
    assert "25.1" not in told_then
    assert ["report.html" in uploads[place] for place in (1, 3)] == [True, False], "nor is an earlier page uploaded"


def test_of_two_students_one_is_asked_for(tmp_path, uploads):
    folder = run_folder(tmp_path / "both", "colearn", ("first", "second"), second="paa-tiny")
    with pytest.raises(UserError, match="expected --student first or second, found none"):
        push(str(folder), "me/birds")
    push(str(folder), "me/birds", student="second")
    assert str(uploads[1]["model.safetensors"]) == str(folder / "weights" / "second-best.safetensors")


@pytest.mark.parametrize("error", [HTTPError("no connection"), OSError("no connection"), ValueError("no connection")])
def test_an_answer_of_the_hub_is_one_sentence(taught, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    for call in (lambda: push(str(taught), "me/birds"), lambda: from_hub("me/birds")):
        with pytest.raises(UserError, match="^me/birds: the Hugging Face Hub could not be used: no connection$"):
            call()


def test_the_weights_of_a_repository_are_a_path(monkeypatch):
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *words, **more: asked.append((words, more)) or "/cache/model"
    )
    assert from_hub("me/birds", "v1") == "/cache/model"
    assert asked == [(("me/birds", "model.safetensors"), {"revision": "v1"})]


@pytest.mark.parametrize("name", ["", "../x/y", "a b", "me/birds/more", "https://hub/me/birds"])
def test_a_name_that_is_no_repository_is_refused(taught, name):
    with pytest.raises(UserError, match="expected the name of a repository"):
        push(str(taught), name)


def test_a_run_without_weights_is_refused(taught, uploads):
    (taught / "weights" / "best.safetensors").unlink()
    with pytest.raises(UserError, match="expected the best weights of the run, found no such file"):
        push(str(taught), "me/birds")
    assert uploads == []
