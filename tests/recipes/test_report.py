"""The report of a run: its numbers are those of the evaluation, it stands alone, and no name becomes markup."""

import csv
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ladle.data.samples import unlabeled
from ladle.data.sources import Subset
from ladle.detectors import load_detector
from ladle.evaluation import best_threshold, confusion, errors_by_kind, evaluate
from ladle.recipes import report
from ladle.recipes.jobs import Job
from ladle.recipes.origins import file_hash
from ladle.recipes.report_images import draw_images
from ladle.recipes.report_page import page_of
from ladle.recipes.report_runs import Entry, command_of, entries_of, read_run
from ladle.recipes.report_teacher import beside_teacher, teacher_numbers
from ladle.recipes.report_values import Numbers, read_numbers, scored, write_numbers
from ladle.recipes.scoring import Evaluator, Score
from ladle.recipes.sources import open_source
from ladle.types import Detections
from ladle.visual.html import write_page
from tests.recipes.reported import numbers_of, texts
from tests.recipes.tiny import RUN
from tests.visual.test_html import read

# ------------------------------------------------------------------------------------------------------- its numbers


@pytest.mark.slow
def test_a_report_holds_the_numbers_of_the_evaluation_and_of_results_csv(plain):
    one = numbers_of(plain)
    assert {name: one.metrics[name] for name in ("ap", "ap50")} == {
        "ap": plain.evaluation.ap,
        "ap50": plain.evaluation.ap50,
    }
    assert {row.name: row.ap for row in one.classes} == {
        name: None if np.isnan(ap) else ap for name, ap in plain.evaluation.per_class.items()
    }
    rows = list(csv.DictReader((plain.folder / "results.csv").read_text().splitlines()))
    entry = entries_of([read_run(plain.folder)])[0]
    assert entry.aps == [(float(row["epoch"]), float(row["ap"])) for row in rows]
    assert entry.run.column("loss") == [(float(row["epoch"]), float(row["loss"])) for row in rows]
    assert str(one.epoch) == max(rows, key=lambda row: float(row["ap"]))["epoch"]


def test_confusion_errors_and_threshold_are_those_of_the_detections(plain, moved):
    source = open_source(moved, "val", RUN, 64)
    evaluator = Evaluator(source, 64, 4)
    score = evaluator(load_detector(plain.weights))
    arguments = evaluator.truth, score.detections, source.classes
    one, best = numbers_of(plain), best_threshold(*arguments)
    assert (one.threshold, one.precision, one.recall, one.f1) == (best.score, best.precision, best.recall, best.f1)
    counts = confusion(*arguments).counts
    assert {(row, column): count for row, column, count in one.confused} == {
        (row, column): counts[row, column] for row, column in map(tuple, np.argwhere(counts))
    }
    errors = errors_by_kind(*arguments)
    for kind, by_class in (errors.detections | errors.objects).items():
        assert [row.kinds[kind] for row in one.classes] == by_class.tolist()
    assert (
        sum(row.objects for row in one.classes)
        == sum(one.by_size.values())
        == sum(len(i.labels) for i in evaluator.truth)
    )


@pytest.mark.slow
def test_objects_without_a_positive_are_counted_with_advice(plain, taught):
    learning = numbers_of(plain).learning
    assert (learning.images, learning.objects) == (8, sum(one.objects for one in learning.by_size))
    assert learning.without == sum(one.without for one in learning.by_class)
    assert learning.about == "PAA"
    assert numbers_of(taught).learning.about == "PAA, judged by the teacher,"
    assert learning.advice[0] in texts(plain.folder / "report.html")


def test_the_images_of_the_objects_with_the_fewest_positives_are_drawn(plain, tmp_path):
    learning = numbers_of(plain).learning
    files = [plain.folder / "plots" / f"assigned-{number}.jpg" for number in range(1, len(learning.drawn) + 1)]
    assert 1 <= len(files) <= 4
    assert all(file.stat().st_size < 100_000 for file in files)
    positives = [[int(row["positives"]) for row in one.objects] for one in learning.drawn]
    assert all(some == sorted(some) and 1 <= len(some) <= 6 for some in positives), "those with the fewest come first"
    assert [some[0] for some in positives] == sorted(some[0] for some in positives), "the worst image is the first"
    for row in learning.drawn[0].objects:
        assert int(row["positives"]) == sum(int(row[name]) for name in row if name.startswith("on stride"))
    found = texts(plain.folder / "report.html")
    assert all(one.caption in found for one in learning.drawn)
    copy = Path(shutil.copytree(plain.folder, tmp_path / "copy"))
    (copy / "plots" / "assigned-1.jpg").unlink()
    again = texts(report(str(copy)))
    assert learning.drawn[0].caption not in again
    assert all(one.caption in again for one in learning.drawn[1:])


def test_teacher_and_student_are_set_beside_each_other(taught, teacher):
    theirs = teacher_numbers(Job.read(str(taught.folder)))
    assert (theirs,) == read_numbers(Path(teacher).parents[1]).students
    found = [text.strip() for text in texts(taught.folder / "report.html") if text.strip()]
    found = found[found.index("Teacher and student") :]
    ((epoch, share),) = read_run(taught.folder).column("agreement")
    assert epoch == 1
    told = f"{100 * share:.0f} % of the student's own positives learn the same object if the teacher judges"
    assert found[1] == f"In epoch 1, {told}."
    values = [100 * ap for ap in (theirs.metrics["ap"], taught.evaluation.ap)]
    at = found.index("all")
    assert found[at + 1 : at + 4] == [f"{value:.1f}" for value in (*values, values[1] - values[0])]


def test_agreement_is_told_beside_that_of_the_first_epoch(taught):
    entry = entries_of([read_run(taught.folder)])[0]
    rows = ({"epoch": 1.0, "agreement": 0.5}, {"epoch": 2.0}, {"epoch": 3.0, "agreement": 0.75})
    told = "".join(beside_teacher(replace(entry, run=replace(entry.run, rows=rows))))
    assert "In epoch 3, 75 % of " in told
    assert "if the teacher judges; in epoch 1 it was 50 %.</p>" in told


def test_a_teacher_without_numbers_of_these_images_is_not_compared(taught, plain, tmp_path):
    weights = plain.folder / "weights" / "best.safetensors"
    lone = Path(shutil.copy(weights, tmp_path))
    job = replace(Job.read(str(taught.folder)), teacher=str(weights), teacher_sha256=file_hash(weights))
    assert teacher_numbers(job) == numbers_of(plain)
    assert teacher_numbers(replace(job, teacher=str(lone))) is None, "weights beside no run"
    assert teacher_numbers(replace(job, teacher_sha256=64 * "0")) is None, "other weights lie there now"
    images, _ = job.contents
    assert teacher_numbers(replace(job, contents=(images, images))) is None, "other images"
    entry = entries_of([read_run(taught.folder)])[0]
    alone = replace(entry, run=replace(entry.run, job=replace(job, teacher=str(lone))))
    assert "The folder of the teacher&#x27;s own run" in "".join(beside_teacher(alone))


def test_the_page_of_a_run_has_its_parts_in_order(plain):
    page = plain.folder / "report.html"
    found = texts(page)
    heads = [
        "AP by class and size",
        "What was run",
        "Curves over the epochs",
        "Precision and recall",
        "Confusion matrix",
        "Errors by kind",
        "Images with most errors",
        "Objects without a positive",
        "Size and speed",
        "Next",
    ]
    assert "Teacher and student" not in found, "nothing was distilled"
    assert [text for text in found if text in heads] == heads
    one = numbers_of(plain)
    assert any(
        text.startswith(f"paa-tiny reaches {100 * plain.evaluation.ap:.1f} AP") and f"epoch {one.epoch} of 2" in text
        for text in found
    )
    for chart in ("AP in percent", "Loss", "Shares of the loss in percent", "Learning rate"):
        assert chart in found
    assert "Objects without a positive in percent" in found
    assert "Waiting for data, percent of the time" in found
    assert f"ladle report OTHER_RUN {plain.folder}" in "".join(found)
    assert f"{one.parameters / 1e6:.2f} million parameters" in "".join(found)


def test_the_command_repeats_the_run(plain, moved):
    job = read_run(plain.folder).job
    words = shlex.split(command_of(job))
    assert words[:4] == ["ladle", "train", "--data", moved]
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    assert flags["--epochs"] == "2"
    assert "--name" not in flags
    assert command_of(job) in "".join(texts(plain.folder / "report.html"))
    assert command_of(replace(job, assigner="python:Mine")) is None


# ------------------------------------------------------------------------------------------------------- self-contained


def test_a_report_asks_for_nothing_and_is_small(plain):
    page = plain.folder / "report.html"
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|<script|<link|<iframe|url\(|@import", text)
    sources = {attrs["src"].partition(",")[0] for _, attrs in read(page).tags if "src" in attrs}
    assert sources == {"data:image/jpeg;base64"}
    assert page.stat().st_size < 3_000_000


def test_names_of_classes_files_and_runs_are_shown_as_they_are(taught, plain, tmp_path):
    nasty = '<script>alert("x")</script>\u72ac\u05d0'
    one = numbers_of(taught)
    classes = (replace(one.classes[0], name=nasty), *one.classes[1:])
    seen = tuple(replace(image, name=f"{nasty}.png") for image in one.worst)
    run = read_run(taught.folder)
    entries = [Entry(nasty, run, "student", replace(one, classes=classes, worst=seen))]
    source = open_source(run.job.data, "val", run.job.run, 64)
    drawn = draw_images(entries[0].scored, source, None)
    page = read(write_page(tmp_path / "page.html", nasty, page_of(entries, [(entries[0], drawn)], compared=False)))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.texts.count(nasty) > 3
    assert any(f"{nasty}.png: " in text for text in page.texts)
    assert "b" not in {tag for tag, _ in read(taught.folder / "report.html").tags}


class Noise:
    """Images of noise of a size at which no JPEG is small, with 300 classes."""

    classes = tuple(f"class number {n}" for n in range(300))
    category_ids = tuple(range(300))
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 480, 480), dtype=np.uint8))

    def __len__(self):
        return 14

    def sample(self, index):
        return unlabeled(self.image, str(index))


@pytest.mark.slow
def test_many_classes_and_noisy_images_stay_under_three_megabytes(plain, tmp_path):
    rng, source = np.random.default_rng(0), Noise()
    truth, found = [], {}
    for name in range(len(source)):
        low = rng.uniform(0, 400, (40, 2))
        boxes = np.concatenate([low, low + 60], 1).astype(np.float32)
        labels, right = rng.integers(0, 299, 40), rng.random(40) < (0.9 if name < 5 else 0.2)
        truth.append(SimpleNamespace(id=name, height=480, width=480, boxes=boxes, labels=labels, crowd=np.zeros(40)))
        detected = torch.from_numpy(np.where(right, labels, labels + 1))
        found[name] = Detections(torch.from_numpy(boxes), torch.ones(40), detected)
    score = Score(evaluate(truth, found, source.classes), found, 0)
    about = {"student": "student", "model": "m", "imgsz": 480, "epoch": 1, "parameters": 1, "flops": 1}
    one = scored(score, truth, source, about)
    drawn = draw_images(one, source, None)
    assert (len(drawn.worst), len(drawn.best)) == (8, 4)
    entry = Entry("noise", read_run(plain.folder), "student", one)
    page = write_page(tmp_path / "page.html", "noise", page_of([entry], [(entry, drawn)], compared=False))
    assert 500_000 < page.stat().st_size < 3_000_000
    write_numbers(tmp_path, Numbers(1.0, (one,)))
    assert read_numbers(tmp_path).students == (one,)


@pytest.mark.parametrize(
    ("count", "drawn", "told"),
    [
        (100, 60, "10 of 10 objects found, 90 background; of 100 detections the 60 of highest score are drawn"),
        (20, 20, "10 of 10 objects found, 10 background"),
    ],
)
def test_a_caption_counts_the_detections_that_are_not_drawn(count, drawn, told):
    corners = np.stack(np.meshgrid(np.arange(10), np.arange(10)), -1).reshape(-1, 2)[:count] * 40.0
    boxes, labels = np.concatenate([corners, corners + 30], 1).astype(np.float32), torch.zeros(count, dtype=torch.int64)
    # The objects are found by the detections of lowest score, so that the threshold is below all of them.
    truth = SimpleNamespace(id=0, height=480, width=480, boxes=boxes[-10:], labels=labels[-10:], crowd=np.zeros(10))
    found = {0: Detections(torch.from_numpy(boxes), torch.linspace(0.9, 0.5, count), labels)}
    score = Score(evaluate([truth], found, Noise.classes), found, 0)
    about = {"student": "student", "model": "m", "imgsz": 480, "epoch": 1, "parameters": 1, "flops": 1}
    source = Subset(Noise(), (0,))
    one = scored(score, [truth], source, about)
    assert [len(image.detections) for image in one.worst] == [drawn]
    (figure,) = draw_images(one, source, None).worst
    assert f"<figcaption>image 0: {told}</figcaption>" in figure


# -------------------------------------------------------------------------------------------------------------- browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<!DOCTYPE html><title>probe</title><p id="found"></p>
<iframe id="narrow" src="report.html" width="400" height="800"></iframe>
<iframe id="wide" src="report.html" width="1280" height="800"></iframe>
<script>window.onload = () => {
  const of = (id) => { const inside = document.getElementById(id).contentWindow; return {
    width: inside.document.documentElement.scrollWidth, room: inside.document.documentElement.clientWidth,
    letters: Math.min(...[...inside.document.querySelectorAll("svg text")].map(
      (text) => 12 * text.getScreenCTM().a)),
    asked: inside.performance.getEntriesByType("resource").map((one) => one.name.slice(0, 5)) } };
  document.getElementById("found").textContent = JSON.stringify([of("narrow"), of("wide")]);
};</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium, such as `apt-get install chromium`")
@pytest.mark.slow
def test_a_browser_shows_a_report_without_an_error_or_a_request(plain, tmp_path):
    shutil.copy(plain.folder / "report.html", tmp_path)
    (tmp_path / "probe.html").write_text(PROBE, encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--no-first-run"]
    flags += ["--enable-logging=stderr", "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"]
    command = [CHROMIUM, *flags, "--dump-dom", "--virtual-time-budget=5000", (tmp_path / "probe.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in done.stderr
    found = json.loads(re.search(r'<p id="found">(.*?)</p>', done.stdout).group(1).replace("&amp;", "&"))
    for one in found:
        assert set(one["asked"]) <= {"data:"}
        assert one["width"] <= one["room"], "the page is wider than its window"
        assert one["letters"] >= 10, "letters of charts are too small"
