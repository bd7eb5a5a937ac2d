"""Images without labels: the teacher's confident boxes are their objects, and everything else stays as it is."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from ladle.cli.main import main
from ladle.data.scenes import CLASSES
from ladle.data.sources import Joined
from ladle.errors import UserError
from ladle.recipes.jobs import Job
from ladle.recipes.least_scores import choose_scores, parse_scores
from ladle.recipes.parts import Parts
from ladle.recipes.sources import open_source
from ladle.recipes.unlabelled import open_unlabelled
from ladle.teachers import ForeignTeacher, TeacherDetections, match_classes
from ladle.types import Detections
from tests.recipes.tiny import RUN

BOX = [8.0, 16.0, 40.0, 48.0]
SCORES = {"a.png": (0.9, 0.3), "b.png": (0.2, 0.1), "deep/c.png": (0.6, 0.5)}
"""The scores that the teacher gives its two boxes of each image, of the classes 0 and 1."""


class Finder:
    """Finds the same two boxes in every image, and knows from its id how sure it is."""

    name, classes, about, bins = "finder", CLASSES, (), 0

    def __init__(self):
        self.calls = 0

    def find(self, batch):
        self.calls += 1
        scale = batch.sizes.flip(1) / batch.originals.flip(1)
        boxes = torch.tensor([BOX, BOX]) * scale.repeat(1, 2)[:, None]
        scores = torch.zeros(len(boxes), 2, len(CLASSES))
        for row, name in enumerate(batch.ids):
            scores[row, 0, 0], scores[row, 1, 1] = SCORES.get(str(name).partition("/")[2], (0.0, 0.0))
        return TeacherDetections.final(boxes, scores)

    def to(self, device):
        return self


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three images without labels, of 64 x 96 pixels."""
    place = tmp_path_factory.mktemp("more")
    (place / "deep").mkdir()
    for number, name in enumerate(SCORES):
        Image.new("RGB", (96, 64), (40 * number, 90, 160)).save(place / name)
    return place


@pytest.fixture(scope="module")
def splits(data):
    return [open_source(data, split, RUN, 64) for split in ("train", "val")]


def opened(splits, folder, run_folder, score="0.4", finder=None, resumed=False):
    finder = Finder() if finder is None else finder
    teacher = ForeignTeacher(finder, match_classes(finder.classes, CLASSES))
    job = Job("distill", "d", "paa-tiny", str(run_folder), RUN, unlabelled=str(folder), unlabelled_score=score)
    return open_unlabelled(job, Parts(teacher=teacher), *splits, 64, resumed)


def test_confident_boxes_become_the_objects_in_pixels_of_the_file(splits, folder, tmp_path):
    found = opened(splits, folder, tmp_path)
    images = {image.id: image for image in found.source.dataset.images}
    assert list(images) == ["unlabelled/a.png", "unlabelled/deep/c.png"], "b has no box of a score of 0.4"
    assert images["unlabelled/a.png"].boxes == pytest.approx(torch.tensor([BOX]).numpy())
    assert images["unlabelled/a.png"].labels.tolist() == [0]
    assert images["unlabelled/deep/c.png"].labels.tolist() == [0, 1]
    assert not any(image.crowd.any() for image in images.values())
    joined = Joined(splits[0], found.source)
    assert (len(joined), joined.sample(0).id, joined.sample(8).id) == (10, splits[0].sample(0).id, "unlabelled/a.png")
    assert found.lines == (
        f"and 2 of the 3 images without labels in {folder}, on average 20 % of a step; in the others the teacher finds "
        "no object: they are left out",
        "their objects are boxes of the teacher: 2 disc, 1 ring" + "".join(f", 0 {name}" for name in CLASSES[2:]),
        "with scores of at least 0.40, given",
    )


def test_scores_by_class_are_given_or_chosen(splits, folder, tmp_path):
    found = opened(splits, folder, tmp_path, f"{CLASSES[0]}=0.7")
    assert [image.labels.tolist() for image in found.source.dataset.images] == [[0], [1]]
    assert "0.70 (disc), 0.50 (ring)" in found.lines[2], "it finds no ring among the labeled ones"
    assert "those with the best F1 on 8 images with labels" in found.lines[2]


class Crowd(Finder):
    """Finds 150 boxes beside each other in every image, all with the same low score."""

    def find(self, batch):
        places = torch.arange(150)
        corners = torch.stack([places % 25 * 3.5, places // 25 * 8.0], dim=1)
        boxes = torch.cat([corners, corners + 3], dim=1)
        scale = batch.sizes.flip(1) / batch.originals.flip(1)
        scores = torch.zeros(len(scale), len(boxes), len(CLASSES))
        scores[..., 0] = 0.03
        return TeacherDetections.final(boxes * scale.repeat(1, 2)[:, None], scores)


def test_all_boxes_above_the_given_score_are_objects(splits, folder, tmp_path):
    """However low the score is, and however many there are."""
    given = opened(splits, folder, tmp_path, "0.02", finder=Crowd())
    assert [len(image.labels) for image in given.source.dataset.images] == [150, 150, 150]
    assert given.lines[1].startswith("their objects are boxes of the teacher: 450 disc")


def test_the_chosen_score_is_that_of_the_best_f1_of_each_class():
    boxes = torch.tensor([[0.0, 0.0, 20.0, 20.0], [30.0, 30.0, 60.0, 60.0]])
    image = SimpleNamespace(id=1, height=64, width=64, boxes=boxes, labels=[0, 0], crowd=[False, False])
    seen = torch.cat([boxes, boxes + 40, boxes[:1]])
    found = Detections(seen, torch.tensor([0.9, 0.6, 0.3, 0.2, 0.8]), torch.tensor([0, 0, 0, 0, 1]))
    # Of class 0: 0.9 and 0.6 are right, so F1 is 2/3 at 0.9, 1 at 0.6 and less below; of class 1 nothing is right.
    assert choose_scores([image], {1: found}, ["cat", "dog"]) == {"cat": pytest.approx(0.6), "dog": 0.5}


def test_a_run_that_is_resumed_reads_its_boxes_and_does_not_run_the_teacher(splits, folder, tmp_path):
    first, finder = opened(splits, folder, tmp_path), Finder()
    again = opened(splits, folder, tmp_path, finder=finder, resumed=True)
    assert finder.calls == 0
    for one, other in zip(first.source.dataset.images, again.source.dataset.images, strict=True):
        assert (one.id, one.boxes.tolist(), one.labels.tolist()) == (
            other.id,
            other.boxes.tolist(),
            other.labels.tolist(),
        )
    header = json.loads((tmp_path / "unlabelled.jsonl").read_text().splitlines()[0])
    assert header["classes"] == list(CLASSES)
    (tmp_path / "unlabelled.jsonl").unlink()
    with pytest.raises(UserError, match=r"unlabelled\.jsonl is missing; put it back from a copy"):
        opened(splits, folder, tmp_path, resumed=True)


def test_other_images_are_refused_on_resume(splits, folder, tmp_path):
    opened(splits, folder, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (64, 64)).save(other / "a.png")
    with pytest.raises(UserError, match="are not those the run began with; give their path with --unlabelled"):
        opened(splits, other, tmp_path, resumed=True)


def test_images_that_cannot_serve_are_refused(splits, folder, data, tmp_path):
    with pytest.raises(UserError, match="finds no object in these 3 images with a score of 0.95: give a lower"):
        opened(splits, folder, tmp_path, "0.95")
    with pytest.raises(UserError, match="expected a folder of images, found nothing there"):
        opened(splits, tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="expected a folder of images, found none in it"):
        opened(splits, tmp_path / "empty", tmp_path)
    for split, words in (("train", "8 of the training images"), ("val", "4 of the validation images")):
        with pytest.raises(UserError, match=f"expected other images than those with labels, found {words} among them"):
            opened(splits, Path(data) / split, tmp_path)


class Blind(Finder):
    classes = CLASSES[1:]


class Silent:
    """A teacher that has nothing to find objects with."""

    info, pyramid, head = None, None, None


def test_teachers_that_cannot_serve_are_refused(splits, folder, tmp_path):
    with pytest.raises(UserError, match="does not know 'disc', so in these images such objects would be learned as"):
        opened(splits, folder, tmp_path, finder=Blind())
    job = Job("distill", "d", "paa-tiny", str(tmp_path), RUN, unlabelled=str(folder))
    with pytest.raises(UserError, match="expected a teacher that detects objects, found Silent"):
        open_unlabelled(job, Parts(teacher=Silent()), *splits, 64, False)
    recorded = tmp_path / "predictions.json"
    recorded.write_text(json.dumps([{"image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}]))
    with pytest.raises(UserError, match="expected a teacher that runs, found recorded predictions"):
        open_unlabelled(replace(job, teacher=str(recorded)), Parts(), *splits, 64, False)
    with pytest.raises(UserError, match="it has no effect without --unlabelled FOLDER"):
        open_unlabelled(replace(job, unlabelled=None, unlabelled_score="0.5"), Parts(), *splits, 64, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blue=0.5", "'blue' is no class of the data"),
        ("1.5", "expected numbers from 0.01 to 1, found '1.5'"),
        ("0.009", "expected numbers from 0.01 to 1, found '0.009'"),
        ("cat=high", "found 'high'"),
        ("cat=0.5,0.6", "'' is no class"),
    ],
)
def test_scores_that_cannot_be_read_are_refused(text, words):
    with pytest.raises(UserError, match=words):
        parse_scores(text, ["cat", "dog"])


def test_names_of_classes_may_hold_an_equals_sign():
    assert parse_scores("a=b=0.5", ["a=b"]) == {"a=b": 0.5}


def test_the_command_line_takes_both_spellings(data, teacher, tmp_path, capsys):
    for flag in ("--unlabelled", "--unlabeled"):
        words = f"--data {data} --student paa-tiny --teacher {teacher} --imgsz 64 --project {tmp_path} {flag} nowhere"
        assert main(["distill", *words.split()]) == 2
        assert "--unlabelled nowhere: expected a folder of images" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [], "a run that cannot begin leaves no folder"
