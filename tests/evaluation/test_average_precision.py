from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Hashable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from ladle.errors import UserError
from ladle.evaluation import Evaluation, coco_results, evaluate
from ladle.types import Detections

from .images import CLASSES, ImageInfo, detections, image, perfect, random_set

NUMBERS = [field.name for field in fields(Evaluation) if field.name not in ("per_class", "most")]


def by_pycocotools(
    truth: list[ImageInfo], found: dict[Hashable, Detections], most: tuple[int, ...] = (1, 10, 100)
) -> list[float]:
    """The numbers of COCO, or the recalls at ``most`` detections of an image and the AP at the last of them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    ids = {p.id: n for n, p in enumerate(truth, start=1)}
    annotations: list[dict[str, Any]] = []
    for p in truth:
        for box, label, crowd in zip(p.boxes.astype(float), p.labels, p.crowd, strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": ids[p.id],
                    "category_id": int(label) + 1,
                    "bbox": [box[0], box[1], width, height],
                    "area": width * height,
                    "iscrowd": int(crowd),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": ids[p.id], "height": p.height, "width": p.width} for p in truth],
            "categories": [{"id": n, "name": name} for n, name in enumerate(CLASSES, start=1)],
            "annotations": annotations,
        }
        coco.createIndex()
        rows = coco_results({ids[name]: d for name, d in found.items()}, range(1, len(CLASSES) + 1))
        judge = COCOeval(coco, coco.loadRes(rows), "bbox")
        judge.params.maxDets = list(most)
        judge.evaluate()
        judge.accumulate()
        if most != (1, 10, 100):
            precision, recall = judge.eval["precision"][:, :, :, 0, -1], judge.eval["recall"][:, :, 0]
            return [precision[precision > -1].mean(), *(recall[recall[..., -1] > -1].mean(axis=0))]
        judge.summarize()
    return [float("nan") if value == -1 else float(value) for value in judge.stats]


@pytest.mark.parametrize("seed", range(4))
def test_the_twelve_numbers_are_those_of_pycocotools(seed: int) -> None:
    truth, found = random_set(seed)
    ours = evaluate(truth, found, CLASSES)
    np.testing.assert_allclose([getattr(ours, name) for name in NUMBERS], by_pycocotools(truth, found), atol=1e-12)
    assert 0.05 < ours.ap < 0.95, "the data must be neither trivial nor hopeless to prove anything"


def crowded_set(seed: int) -> tuple[list[ImageInfo], dict[Hashable, Detections]]:
    """Images of 250 objects each, of which some are found, with as many false alarms."""
    rng = np.random.default_rng(seed)
    truth, found = [], {}
    for name in range(3):
        corners = rng.uniform(0, 380, (250, 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 20, (250, 2))], axis=1)
        truth.append(image(name, boxes.tolist(), rng.integers(0, 2, 250).tolist()))
        shown = np.concatenate([boxes + rng.normal(0, 0.7, boxes.shape), rng.permutation(boxes.ravel()).reshape(-1, 4)])
        labels = [*truth[-1].labels.tolist(), *rng.integers(0, 2, 250).tolist()]
        found[name] = detections(shown.tolist(), rng.uniform(0, 1, 500).tolist(), labels)
    return truth, found


@pytest.mark.parametrize("most", [1, 5, 10, 30, 100, *(pytest.param(n, marks=pytest.mark.slow) for n in (200, 400))])
def test_any_number_of_detections_may_count(most: int) -> None:
    truth, found = crowded_set(0)
    ours = evaluate(truth, found, CLASSES, most)
    limits = tuple(sorted({1, min(10, most), most}))
    if most == 100:
        expected = by_pycocotools(truth, found)
        assert [ours.ap, ours.ar1, ours.ar10, ours.ar100] == pytest.approx([expected[n] for n in (0, 6, 7, 8)])
    else:
        ap, *recalls = by_pycocotools(truth, found, limits)
        assert [ours.ap, ours.ar1, ours.ar100] == pytest.approx([ap, recalls[0], recalls[-1]])
        assert ours.ar10 == pytest.approx(recalls[limits.index(min(10, most))])
    assert ours.most == most
    assert list(ours.recalls()) == [*(f"AR{limit}" for limit in limits), "ARS", "ARM", "ARL"]


def test_more_detections_find_more_of_a_crowded_image() -> None:
    truth, found = crowded_set(1)
    few, many = (evaluate(truth, found, CLASSES, most) for most in (20, 400))
    assert many.ar100 > 1.5 * few.ar100
    assert many.ar10 == few.ar10


def test_no_detection_at_all_cannot_be_scored() -> None:
    with pytest.raises(UserError, match="at least one detection"):
        evaluate([image(1, [], [])], {}, ["cat"], most=0)


def test_ground_truth_fed_back_scores_one() -> None:
    truth, _ = random_set(0)
    result = evaluate(truth, perfect(truth), CLASSES)
    assert result.ap == result.ap50 == result.ap75 == result.ar100 == 1.0
    assert [result.per_class[name] for name in CLASSES[:3]] == [1.0, 1.0, 1.0]


def test_the_first_object_of_all_is_found_like_any_other() -> None:
    truth = [image("only", [[10, 10, 60, 60]], [0])]
    assert evaluate(truth, perfect(truth), ["cat"]).ap == 1.0


def test_a_class_without_objects_is_nan_and_leaves_the_mean_alone() -> None:
    truth, found = random_set(1)
    result = evaluate(truth, found, CLASSES)
    assert math.isnan(result.per_class["fish"])
    assert result.ap == pytest.approx(np.mean([result.per_class[name] for name in CLASSES[:3]]), abs=1e-12)


def test_nothing_found_scores_zero() -> None:
    truth, _ = random_set(2)
    for found in ({}, {p.id: detections([], [], []) for p in truth}):
        result = evaluate(truth, found, CLASSES)
        assert result.ap == result.ap50 == result.ar100 == 0.0


@pytest.mark.parametrize("truth", [[], [image("empty", [], [])]], ids=["no images", "no objects"])
def test_nothing_to_find_is_nan_everywhere(truth: list[ImageInfo]) -> None:
    found = {p.id: detections([[0, 0, 9, 9]], [0.5], [1]) for p in truth}
    result = evaluate(truth, found, CLASSES)
    assert all(math.isnan(getattr(result, name)) for name in NUMBERS)
    assert all(math.isnan(value) for value in result.per_class.values())


def test_a_detection_on_a_crowd_is_not_held_against_anyone() -> None:
    truth = [image(1, [[0, 0, 40, 40], [100, 100, 300, 300]], [0, 0], [False, True])]
    found = {1: detections([[120, 120, 160, 160], [0, 0, 40, 40]], [0.9, 0.8], [0, 0])}
    assert evaluate(truth, found, CLASSES).ap == 1.0
    assert evaluate([replace(truth[0], crowd=np.array([False, False]))], found, CLASSES).ap < 0.5


def test_any_hashable_id_survives() -> None:
    names = [2**53, 2**53 + 1, "a/b.jpg", ("tuple", 3), 0]
    boxes = [[10.0 * n, 0.0, 10.0 * n + 40, 40.0] for n in range(len(names))]
    truth = [image(name, [box], [0]) for name, box in zip(names, boxes, strict=True)]
    assert evaluate(truth, perfect(truth), ["cat"]).ap == 1.0


def test_order_of_images_does_not_matter() -> None:
    truth, found = random_set(3)
    noise = torch.Generator().manual_seed(0)  # ties between images go by their order: break them
    found = {
        name: replace(d, scores=d.scores + torch.rand(len(d.scores), generator=noise) * 0.01)
        for name, d in found.items()
    }
    there, back = evaluate(truth, found, CLASSES), evaluate(truth[::-1], found, CLASSES)
    assert [getattr(there, name) for name in NUMBERS] == [getattr(back, name) for name in NUMBERS]


def test_tensors_and_arrays_give_the_same_numbers() -> None:
    truth, found = random_set(2)
    tensors = [
        replace(p, boxes=torch.tensor(p.boxes), labels=torch.tensor(p.labels), crowd=torch.tensor(p.crowd))
        for p in truth
    ]
    a, b = evaluate(truth, found, CLASSES), evaluate(tensors, found, CLASSES)
    assert [getattr(a, n) for n in NUMBERS] == [getattr(b, n) for n in NUMBERS]


def test_read_only_arrays_are_welcome() -> None:
    item = image(1, [[0, 0, 40, 40]], [0])
    for array in (item.boxes, item.labels, item.crowd):
        array.flags.writeable = False
    assert evaluate([item], perfect([item]), ["cat"]).ap == 1.0


def test_evaluating_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    evaluate(*random_set(0, count=8), CLASSES)
    assert capfd.readouterr() == ("", "")


def test_the_row_is_in_percent() -> None:
    truth, found = random_set(0)
    result = evaluate(truth, found, CLASSES)
    assert list(result.row()) == ["AP", "AP50", "AP75", "APS", "APM", "APL"]
    assert result.row()["AP50"] == round(100 * result.ap50, 1)
    assert result.row(digits=3)["AP"] == round(100 * result.ap, 3)


def test_coco_results_have_the_category_ids_of_the_data_set() -> None:
    found = {2**53 + 1: detections([[1, 2, 11, 22]], [0.5], [1]), "empty": detections([], [], [])}
    rows = coco_results(found, [17, 90])
    assert rows == [{"image_id": 2**53 + 1, "category_id": 90, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.5}]
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.parametrize(
    ("truth", "found", "classes", "hint"),
    [
        ([image(1, [], []), image(1, [], [])], {}, ["cat"], "an id of its own"),
        ([image(1, [], [])], {}, ["cat", "cat"], "found 2 called 'cat': rename"),
        ([image(1, [], [])], {}, ["a", "b", "a", "b", "a"], "found 3 called 'a' and 1 more such names"),
        ([image(1, [], [])], {2: detections([], [], [])}, ["cat"], "image 2"),
        ([image(1, [[0, 0, 9, 9]], [1])], {}, ["cat"], "expected 0 to 0"),
        ([image(1, [], [])], {1: detections([[0, 0, 9, 9]], [0.5], [3])}, ["cat"], "expected 0 to 0"),
        ([image(1, [], [])], {1: detections([[0, 0, 9, 9]], [math.nan], [0])}, ["cat"], "nan"),
    ],
)
def test_input_that_cannot_belong_together_is_refused(
    truth: list[ImageInfo], found: dict[Hashable, Detections], classes: list[str], hint: str
) -> None:
    with pytest.raises(UserError, match=hint):
        evaluate(truth, found, classes)
