"""A report is made again from the files of its run, and says so where they are gone, changed or damaged."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ladle.cli.main import main
from ladle.detectors import load_detector
from ladle.errors import UserError
from ladle.recipes import report
from ladle.recipes.jobs import Job
from ladle.recipes.origins import file_hash
from ladle.recipes.report_images import open_images
from ladle.recipes.report_runs import read_run
from ladle.recipes.report_teacher import teacher_numbers
from ladle.recipes.report_values import read_numbers, write_numbers
from ladle.recipes.scoring import Evaluator
from ladle.recipes.sources import open_source
from tests.recipes.reported import numbers_of, texts
from tests.recipes.tiny import RUN
from tests.visual.test_html import read


def test_a_report_is_made_again_from_its_folder_alike(plain, capsys):
    page, card = plain.folder / "report.html", plain.folder / "card.md"
    before, told = page.read_bytes(), card.read_bytes()
    card.unlink()
    page.unlink()
    assert main(["report", str(plain.folder)]) == 0
    assert (page.read_bytes(), card.read_bytes()) == (before, told)
    assert str(page) in capsys.readouterr().out.replace("\n", "")


def test_a_run_without_an_evaluation_is_evaluated_now(plain, tmp_path):
    copy = shutil.copytree(plain.folder, tmp_path / "plain")
    (copy / "report.json").unlink()
    (copy / "report.html").unlink()
    page = report(str(copy), out=str(tmp_path / "out"))
    assert page == tmp_path / "out" / "report.html"
    assert any(f"paa-tiny reaches {100 * plain.evaluation.ap:.1f} AP" in text for text in texts(page))
    shutil.rmtree(copy / "weights")
    assert any("has no stored evaluation" in text for text in texts(report(str(copy), out=str(tmp_path / "out"))))


def test_numbers_of_other_weights_are_not_shown(plain, teacher, moved, tmp_path, capsys):
    copy = Path(shutil.copytree(plain.folder, tmp_path / "plain"))
    weights = copy / "weights" / "best.safetensors"
    assert numbers_of(plain).sha256 == file_hash(weights)
    job = replace(Job.read(str(copy)), teacher=str(weights), teacher_sha256=file_hash(Path(teacher)))
    shutil.copy(teacher, weights)
    assert read_run(copy).numbers is None
    assert teacher_numbers(job) is None, "the teacher is the one of the run, but its numbers are not its own"
    report(str(copy))
    assert "holds no evaluation of its end" in " ".join(capsys.readouterr().out.split())
    score = Evaluator(open_source(moved, "val", RUN, 64), 64, 4)(load_detector(weights))
    assert any(
        text.startswith(f"paa-tiny reaches {100 * score.evaluation.ap:.1f} AP") for text in texts(copy / "report.html")
    )
    weights.unlink()
    assert read_run(copy).numbers is not None, "without weights there is nothing that contradicts them"


def test_numbers_that_do_not_name_their_weights_are_shown(plain, tmp_path):
    copy = Path(shutil.copytree(plain.folder, tmp_path / "plain"))
    kept = read_numbers(copy)
    write_numbers(copy, replace(kept, students=tuple(replace(one, sha256=None) for one in kept.students)))
    assert read_run(copy).numbers is not None


def test_a_run_whose_data_are_gone_has_a_report_without_images(plain, moved, tmp_path, capsys):
    copy = shutil.copytree(plain.folder, tmp_path / "plain")
    hidden = Path(moved).rename(f"{moved}-hidden")
    try:
        page = report(str(copy))
    finally:
        hidden.rename(moved)
    found = read(page)
    drawn = numbers_of(plain).learning.drawn
    assert [tag for tag, _ in found.tags].count("img") == len(drawn), "those of the run folder alone"
    told = f"The images are not shown, since the data are not at {moved} any more."
    assert told in found.texts
    assert capsys.readouterr().out.splitlines()[0] == told
    assert "Confusion matrix" in found.texts


def test_data_that_cannot_be_opened_are_told(plain, moved, tmp_path):
    (tmp_path / "data").mkdir()
    note = open_images(replace(Job.read(str(plain.folder)), data=str(tmp_path / "data")))[1]
    assert note.startswith(f"The images are not shown, since the data cannot be opened: {tmp_path / 'data'}: expected")


def test_changed_data_are_not_shown(plain, data, tmp_path):
    copy = shutil.copytree(plain.folder, tmp_path / "plain")
    contents = json.loads((copy / "data.json").read_text())
    contents["val"]["objects"] += 1
    (copy / "data.json").write_text(json.dumps(contents))
    assert any("the data are not those of the run any more" in text for text in texts(report(str(copy))))


def test_several_runs_are_compared_with_the_first(plain, taught, tmp_path):
    page = report([str(plain.folder), str(taught.folder)], out=str(tmp_path))
    found = texts(page)
    gain = 100 * (taught.evaluation.ap - plain.evaluation.ap)
    (told,) = [text for text in found if text.startswith("Distillation ")]
    if abs(gain) >= 0.05:
        assert f"{abs(gain):.1f} {'up' if gain > 0 else 'down'} from {100 * plain.evaluation.ap:.1f} of " in told
    assert "Details of <b>taught" in found
    assert "AP - baseline" in found


def test_the_folder_of_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected the folder of a run"):
        report(str(tmp_path))


def test_damaged_numbers_are_one_sentence(plain, tmp_path):
    copy = shutil.copytree(plain.folder, tmp_path / "plain")
    (copy / "report.json").write_text('{"seconds": 1, "students": [{}]}')
    with pytest.raises(UserError, match=r"report\.json.*remove it"):
        report(str(copy))


def changed_place(value, path, new):
    """The value with another at a path of keys and places."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, list):
        return [changed_place(one, rest, new) if n == key else one for n, one in enumerate(value)]
    return value | {key: changed_place(value[key], rest, new)}


@pytest.mark.parametrize(
    ("path", "new", "told"),
    [
        (["worst", 0, "objects", 0, "label"], 99, r"labels below \d+, the number of classes, found 99"),
        (["worst", 0, "objects", 0, "box", 2], 1e300, r"a number from -1000 to 1000 at .*box\[2\], found 1e\+300"),
        (["worst", 0, "index"], 4, "an index below 4, the number of images, found 4"),
        (["confused", 0, 1], 99, r"rows and columns of confused of at most \d+, the number of classes, found 99"),
        (["confused", 0, 0], -1, r"a whole number of at least 0|a whole number from 0 to"),
        (["classes"], [], "labels below 0, the number of classes"),
    ],
)
def test_numbers_that_contradict_each_other_are_one_sentence(plain, tmp_path, capsys, path, new, told):
    copy = shutil.copytree(plain.folder, tmp_path / "plain")
    file = copy / "report.json"
    file.write_text(json.dumps(changed_place(json.loads(file.read_text()), ["students", 0, *path], new)))
    assert main(["report", str(copy)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"report.json: expected ({told}).*; remove it, and `ladle report` evaluates the run again", line)


def test_fewer_images_than_were_evaluated_are_not_shown(plain, moved, tmp_path):
    copy = shutil.copytree(plain.folder, tmp_path / "plain")
    (copy / "data.json").unlink()
    fewer = shutil.copytree(moved, tmp_path / "fewer")
    file = Path(fewer) / "annotations" / "instances_val.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"images": told["images"][:1], "annotations": []}))
    config = copy / "config.yaml"
    config.write_text(config.read_text().replace(moved, str(fewer)))
    found = texts(report(str(copy)))
    assert any("not those of the run any more: there are 1 instead of 4" in text for text in found)
