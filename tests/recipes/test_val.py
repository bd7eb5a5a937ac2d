"""A detector is evaluated on every image once; classes are matched by name."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch

from ladle.data import read
from ladle.data.scenes import CLASSES, Scenes, write_coco
from ladle.data.sources import DatasetSource, Subset
from ladle.data.transforms import Resize
from ladle.detectors import save_detector
from ladle.errors import UserError
from ladle.families import detector_spec
from ladle.recipes import val
from ladle.recipes.options import Run
from ladle.recipes.scoring import Evaluator, crowded
from ladle.recipes.sources import open_source
from ladle.recipes.val import name_of
from ladle.types import Detections

SCENES = Scenes(10, size=64)


def truth(scene, classes):
    """The ground truth, in another order of classes."""
    real = ~scene.crowd
    labels = [classes.index(CLASSES[label]) for label in scene.labels[real]]
    return Detections(scene.boxes[real], torch.ones(len(labels)), torch.tensor(labels))


def oracle(classes=CLASSES, find=truth):
    """A detector that returns the detections of ``find``, and records its images in ``asked``."""
    detector = detector_spec("paa-tiny", classes).build()
    detector.asked = []

    def detect(batch, inference):
        assert not detector.training
        detector.asked += batch.ids
        return [find(SCENES.sample(name), classes) for name in batch.ids]

    detector.detect = detect
    return detector


def test_every_image_is_evaluated_once():
    detector = oracle()
    score = Evaluator(SCENES, 64, 4)(detector)
    assert detector.asked == list(range(10))
    assert set(score.detections) == set(range(10))
    assert score.evaluation.ap == pytest.approx(1.0)
    assert detector.training


@pytest.mark.parametrize("classes", [CLASSES[::-1], ("unicorn", *CLASSES, "gnu")], ids=["other order", "more classes"])
def test_classes_are_matched_by_name(classes):
    assert Evaluator(SCENES, 64, 4)(oracle(classes)).evaluation.ap == pytest.approx(1.0)


def unicorns(scene, classes):
    found = truth(scene, classes)
    return Detections(found.boxes, found.scores, torch.full_like(found.labels, classes.index("unicorn")))


def test_detections_of_unknown_classes_do_not_count():
    score = Evaluator(SCENES, 64, 4)(oracle(("unicorn", *CLASSES), unicorns))
    assert all(len(found.boxes) == 0 for found in score.detections.values())
    assert score.evaluation.ap == 0


@pytest.mark.parametrize(("limit", "looks"), [(3, [0, 3, 6]), (9, [*range(9)]), (10, [*range(10)]), (64, [*range(10)])])
def test_a_limit_is_kept_and_spread_over_the_images(limit, looks):
    detector = oracle()
    score = Evaluator(SCENES, 64, 4, limit=limit)(detector)
    assert detector.asked == looks
    assert score.evaluation.ap == pytest.approx(1.0)


def test_val_writes_plots_and_results_and_gives_the_numbers(data, teacher, tmp_path):
    numbers = val(data, teacher, batch=3, out=str(tmp_path / "out"), device="cpu")
    assert 0 <= numbers.ap <= 1
    assert set(numbers.per_class) == set(CLASSES)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "precision_recall.png",
        "confusion.png",
        "results.json",
    }
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert {row["image_id"] for row in results} <= {0, 1, 2, 3}
    assert {row["category_id"] for row in results} <= set(range(1, len(CLASSES) + 1))


@pytest.mark.slow
def test_every_val_has_a_folder_of_its_own(data, teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        val(data, teacher, device="cpu")
    assert sorted(path.name for path in Path("runs/val").iterdir()) == ["paa-tiny", "paa-tiny-2"]
    assert "earlier run" not in capsys.readouterr().out
    val(data, teacher, device="cpu", out="runs/val/paa-tiny")
    assert f"{Path('runs/val/paa-tiny')} holds results of an earlier run: they are replaced" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("runs/train/cats/weights/best.safetensors", "cats"),
        ("runs/train/cats/weights/last.safetensors", "cats-last"),
        ("runs/colearn/pair/weights/second-best.safetensors", "pair-second-best"),
        ("cats.safetensors", "cats"),
    ],
)
def test_results_are_called_by_the_run_and_the_file(model, name):
    assert name_of(Path(model)) == name


def test_val_reports_repairs(data, teacher, tmp_path, capsys):
    shutil.copytree(data, tmp_path / "data")
    (file,) = (tmp_path / "data").rglob("*val*.json")
    document = json.loads(file.read_text())
    document["annotations"][0]["bbox"] = [500.0, 500.0, 20.0, 20.0]
    file.write_text(json.dumps(document))
    val(str(tmp_path / "data"), teacher, out=str(tmp_path / "out"), device="cpu")
    assert "1 × box" in capsys.readouterr().out


@pytest.mark.slow
def test_val_counts_at_most_max_det_detections(data, teacher, tmp_path, capsys):
    one = val(data, teacher, out=str(tmp_path / "one"), device="cpu", max_det=1)
    printed = capsys.readouterr().out
    assert one.most == 1
    assert one.ar100 == one.ar1
    assert "up to 1 detections of an image count, not 100 as in COCO" in printed
    assert " of 4 images hold more than 1 objects (up to " in printed
    assert "4 images gave more than 1 detections: the 1 with the highest scores count" in printed
    found = Counter(row["image_id"] for row in json.loads((tmp_path / "one" / "results.json").read_text()))
    assert set(found.values()) == {1}
    assert val(data, teacher, out=str(tmp_path / "all"), device="cpu").most == 100
    assert "COCO" not in capsys.readouterr().out


@pytest.mark.parametrize("most", [0, -1, 10_001])
def test_a_number_of_detections_that_makes_no_sense_is_refused(data, teacher, most):
    with pytest.raises(UserError, match=f"--max-det {most}: expected a whole number from 1 to 10000"):
        val(data, teacher, max_det=most)
    with pytest.raises(UserError, match=f"--max-det {most}: expected a whole number from 1 to 10000"):
        Run(max_det=most)


class Renamed(Scenes):
    classes = ("dog", "cat", "dog")


def test_two_classes_of_one_name_are_never_mixed_up():
    with pytest.raises(ValueError, match="classes of which two are the same"):
        oracle((*CLASSES, CLASSES[0]))
    with pytest.raises(UserError, match="the data: expected classes with a name each, found 2 called 'dog'"):
        Evaluator(Renamed(2, size=64), 64, 4)


def test_no_more_is_scored_than_the_detector_keeps():
    detector = oracle().keep(2)
    asked = detector.detect

    def detect(batch, inference):
        return [found.map(lambda values: values[: inference.keep]) for found in asked(batch, inference)]

    detector.detect = detect
    score = Evaluator(SCENES, 64, 4)(detector)
    loads = [len(truth(SCENES.sample(n), CLASSES).labels) for n in range(10)]
    assert [len(score.detections[n].labels) for n in range(10)] == [min(load, 2) for load in loads]
    assert score.cut == sum(load > 2 for load in loads) > 0
    assert score.evaluation.most == 2
    assert crowded(Evaluator(SCENES, 64, 4).truth, 2) == (
        f"{score.cut} of 10 images hold more than 2 objects (up to {max(loads)}), but at most 2 are found in each: "
        f"--max-det {max(loads)} finds more"
    )
    assert crowded(Evaluator(SCENES, 64, 4).truth, max(loads)) is None


@pytest.mark.slow
def test_val_does_not_depend_on_the_batch(data, teacher, tmp_path):
    one, four = (val(data, teacher, batch=batch, out=str(tmp_path), device="cpu") for batch in (1, 4))
    assert one.ap == pytest.approx(four.ap, abs=1e-3)


def test_val_refuses_data_without_a_class_of_the_detector(data, tmp_path):
    file = tmp_path / "other.safetensors"
    save_detector(detector_spec("paa-tiny", ("gnu", "unicorn")).build(), file)
    with pytest.raises(UserError, match="gnu, unicorn"):
        val(data, str(file), out=str(tmp_path))


def test_val_leaves_the_weights_alone(data, teacher, tmp_path):
    before = Path(teacher).read_bytes()
    val(data, teacher, out=str(tmp_path), device="cpu")
    assert Path(teacher).read_bytes() == before


@pytest.mark.parametrize("wrong", [{"imgsz": 0}, {"imgsz": -64}, {"batch": 0}, {"workers": -1}, {"split": "test"}])
def test_val_refuses_sizes_that_make_no_sense(data, teacher, tmp_path, wrong):
    with pytest.raises(UserError):
        val(data, teacher, out=str(tmp_path), **wrong)


@pytest.mark.parametrize("data", ["scenes:", "scenes", "scenes:5"])
def test_the_built_in_scenes_need_no_folder(data):
    expected = 5 if data == "scenes:5" else 800
    assert len(open_source(data, "train", Run(), 64)) == expected
    assert len(open_source(data, "val", Run(), 64)) == 300
    first = [open_source(data, split, Run(), 64).sample(0).image for split in ("train", "val")]
    assert not torch.equal(*first)


def test_a_number_of_scenes_must_be_a_number():
    with pytest.raises(UserError, match="scenes:N"):
        open_source("scenes:many", "train", Run(), 64)


class Halved:
    """Images at half their size, whose samples say the size of the files."""

    def __init__(self, source):
        self.source, self.classes, self.category_ids = source, source.classes, source.category_ids

    def __len__(self):
        return len(self.source)

    def sample(self, index):
        return Resize(32)(self.source.sample(index))


@pytest.mark.parametrize(
    "wrapped",
    [lambda source: source, lambda source: Subset(source, range(len(source))), Halved],
    ids=["itself", "subset", "halved"],
)
@pytest.mark.parametrize("cache", [0, 32])
def test_objects_of_any_source_are_scored_in_pixels_of_the_files(tmp_path, wrapped, cache):
    """A source may give images, and boxes in them, that are smaller than the files."""
    write_coco(tmp_path, train=1, val=3, size=64)
    dataset = read(str(tmp_path), "val")
    boxes = {
        image.id: [torch.from_numpy(values[~image.crowd]) for values in (image.boxes, image.labels)]
        for image in dataset.images
    }

    def find(batch):
        found = [(*boxes[name], torch.ones(len(boxes[name][1]))) for name in batch.ids]
        return [Detections(one, scores, labels) for one, labels, scores in found], 0

    evaluation = Evaluator(wrapped(DatasetSource(dataset, cache)), 64, 2).score(find, dataset.classes, 100).evaluation
    assert evaluation.ap == pytest.approx(1, abs=1e-6)
