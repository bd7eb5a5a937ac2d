from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ladle.errors import UserError
from ladle.evaluation import (
    Threshold,
    best_threshold,
    class_thresholds,
    confusion,
    errors_by_kind,
    evaluate,
    precision_recall,
)

from .images import CLASSES, detections, image, perfect, random_set


def test_the_area_under_the_curve_is_the_average_precision() -> None:
    truth, found = random_set(0)
    curve, whole = precision_recall(truth, found, CLASSES, iou=0.5), evaluate(truth, found, CLASSES)
    assert np.nanmean(curve.average_precision) == pytest.approx(whole.ap50, abs=1e-12)
    assert curve.precision.shape == curve.scores.shape == (4, 101)
    assert curve.recall[[0, -1]].tolist() == [0.0, 1.0]


def test_a_stricter_iou_never_raises_a_curve() -> None:
    truth, found = random_set(1)
    loose, strict = (precision_recall(truth, found, CLASSES, iou) for iou in (0.3, 0.8))
    assert (loose.average_precision[:3] > strict.average_precision[:3]).all()


def test_precision_never_rises_with_recall_and_absent_classes_are_nan() -> None:
    curve = precision_recall(*random_set(2), CLASSES)
    assert (np.diff(curve.precision[:3], axis=1) <= 0).all()
    assert np.isnan(curve.precision[3]).all()


def test_a_curve_of_no_images_is_nan() -> None:
    assert np.isnan(precision_recall([], {}, CLASSES).average_precision).all()


def test_perfect_detections_lie_on_the_diagonal() -> None:
    truth, _ = random_set(0)
    counts = confusion(truth, perfect(truth), CLASSES, score=0.25).counts
    assert counts.sum() == np.trace(counts) == sum(int((~p.crowd).sum()) for p in truth)


def test_every_object_is_counted_once() -> None:
    truth, found = random_set(1)
    counts = confusion(truth, found, CLASSES, score=0.3).counts
    objects = np.concatenate([p.labels[~p.crowd] for p in truth])
    assert counts[:-1].sum(1).tolist() == [int((objects == label).sum()) for label in range(4)]


def test_matches_misses_and_false_alarms_land_in_their_cells() -> None:
    truth = [image(1, [[0, 0, 50, 50], [100, 0, 150, 50], [200, 0, 250, 50]], [0, 1, 2])]
    found = {1: detections([[0, 0, 50, 50], [100, 0, 150, 50], [300, 300, 350, 350]], [0.9, 0.8, 0.7], [0, 2, 1])}
    counts = confusion(truth, found, CLASSES, score=0.25).counts
    expected = np.zeros((5, 5), dtype=int)
    expected[0, 0] = expected[1, 2] = expected[2, 4] = expected[4, 1] = 1
    assert (counts == expected).all()


def test_the_surest_detection_takes_the_object_even_of_the_wrong_class() -> None:
    truth = [image(1, [[0, 0, 50, 50]], [0])]
    found = {1: detections([[0, 0, 50, 50], [0, 0, 50, 48]], [0.6, 0.9], [0, 1])}
    counts = confusion(truth, found, CLASSES, score=0.25).counts
    assert counts[0, 1] == 1
    assert counts[4, 0] == 1
    assert counts.sum() == 2


def test_low_scores_are_dropped_and_the_threshold_itself_is_kept() -> None:
    truth = [image(1, [[0, 0, 50, 50]], [0])]
    found = {1: detections([[0, 0, 50, 50], [90, 90, 99, 99]], [0.5, 0.4], [0, 0])}
    assert confusion(truth, found, CLASSES, score=0.5).counts.sum() == 1


def test_crowds_excuse_but_are_not_counted() -> None:
    truth = [image(1, [[0, 0, 200, 200]], [0], [True])]
    found = {1: detections([[10, 10, 30, 30], [300, 300, 350, 350]], [0.9, 0.9], [1, 1])}
    counts = confusion(truth, found, CLASSES, score=0.25).counts
    assert counts[4, 1] == counts.sum() == 1


def test_a_image_without_detections_misses_everything() -> None:
    counts = confusion([image(1, [[0, 0, 9, 9]], [2])], {}, CLASSES).counts
    assert counts[2, 4] == counts.sum() == 1


def test_confusion_refuses_labels_without_a_name() -> None:
    with pytest.raises(UserError, match="expected 0 to 0"):
        confusion([image(1, [[0, 0, 9, 9]], [1])], {}, ["cat"])


def test_the_best_threshold_is_that_of_a_search() -> None:
    truth, found = random_set(3)
    objects = sum(int((~p.crowd).sum()) for p in truth)
    every = sorted({float(score) for one in found.values() for score in one.scores})
    f1 = {}
    for score in every:
        errors = errors_by_kind(truth, found, CLASSES, score=score)
        detections = sum(int(one.sum()) for one in errors.detections.values())
        f1[score] = 2 * errors.total("correct") / (detections + objects)
    best = best_threshold(truth, found, CLASSES)
    assert best.score == max(every, key=lambda score: (f1[score], score))
    assert best.f1 == f1[best.score] == pytest.approx(2 / (1 / best.precision + 1 / best.recall))


def test_detections_of_one_score_stay_together_and_those_on_crowds_do_not_count() -> None:
    truth = [image(1, [[0, 0, 50, 50], [100, 0, 150, 50], [200, 200, 400, 400]], [0, 0, 1], [False, False, True])]
    boxes = [[0, 0, 50, 50], [300, 0, 350, 50], [100, 0, 150, 50], [210, 210, 250, 250]]
    found = {1: detections(boxes, [0.5, 0.5, 0.25, 0.9], [0, 0, 0, 1])}
    assert best_threshold(truth, found, CLASSES) == Threshold(0.25, 2 / 3, 1.0, 0.8)
    assert best_threshold(truth, {}, CLASSES) == Threshold(1.0, 0.0, 0.0, 0.0)


def test_of_equal_thresholds_the_highest_is_taken() -> None:
    truth = [image(1, [[0, 0, 50, 50]], [0])]
    found = {1: detections([[100, 0, 150, 50], [200, 0, 250, 50]], [0.5, 0.25], [0, 0])}
    assert best_threshold(truth, found, CLASSES) == Threshold(0.5, 0.0, 0.0, 0.0)


def test_thresholds_of_classes_are_those_of_data_with_this_class_alone() -> None:
    truth, found = random_set(4)
    assert any(one.crowd.any() for one in truth)
    expected = []
    for label in range(len(CLASSES)):
        alone = []
        for one in truth:
            kept = one.labels == label
            alone.append(replace(one, boxes=one.boxes[kept], labels=one.labels[kept], crowd=one.crowd[kept]))
        ours = {name: one.map(lambda values, kept=one.labels == label: values[kept]) for name, one in found.items()}
        expected.append(best_threshold(alone, ours, CLASSES))
    assert class_thresholds(truth, found, CLASSES) == expected
    assert len({one.score for one in expected}) > 2
    assert class_thresholds(truth, {}, CLASSES) == [Threshold(1.0, 0.0, 0.0, 0.0)] * len(CLASSES)


def test_confusion_leaves_out_what_lies_below_the_best_threshold() -> None:
    truth = [image(1, [[0, 0, 50, 50], [100, 0, 150, 50]], [0, 1])]
    boxes = [[0, 0, 50, 50], [100, 0, 150, 50], [300, 300, 350, 350]]
    result = confusion(truth, {1: detections(boxes, [0.75, 0.5, 0.25], [0, 1, 2])}, CLASSES)
    assert result.score == 0.5
    assert np.argwhere(result.counts).tolist() == [[0, 0], [1, 1]]


def test_shares_are_those_of_a_row() -> None:
    truth = [image(1, [[0, 0, 50, 50], [100, 0, 150, 50]], [0, 0])]
    result = confusion(truth, {1: detections([[0, 0, 50, 50]], [0.5], [1])}, CLASSES)
    assert result.shares[0].tolist() == [0.0, 0.5, 0.0, 0.0, 0.5]
    assert (result.shares[1:] == 0).all()
