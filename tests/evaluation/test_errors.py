from __future__ import annotations

import numpy as np
import pytest

from ladle.errors import UserError
from ladle.evaluation import DETECTION_KINDS, OBJECT_KINDS, best_threshold, errors_by_kind, image_errors

from .images import CLASSES, detections, image, perfect, random_set

CAT, DOG, BIRD = 0, 1, 2


def kinds_of(truth, found, score=0.0):
    """The kinds of the detections, from the highest score on, and of the objects of one image, by name."""
    one = image_errors(truth, found, score)
    named = [DETECTION_KINDS[kind] if kind >= 0 else "ignored" for kind in one.kinds]
    return named, [OBJECT_KINDS[state] for state in one.states]


# A cat of 100 x 100 pixels; the comments are the IoUs with it.
SAME = [0, 0, 100, 100]  # 1
RIGHT = [0, 0, 100, 60]  # 0.6
SHIFTED = [0, 0, 100, 30]  # 0.3
EDGE = [0, 0, 100, 10]  # 0.1
OUTSIDE = [0, 0, 100, 9]  # 0.09


@pytest.mark.parametrize(
    ("box", "label", "kind", "state"),
    [
        (SAME, CAT, "correct", "found"),
        (RIGHT, CAT, "correct", "found"),
        ([0, 0, 100, 50], CAT, "correct", "found"),
        (RIGHT, DOG, "classification", "attempted"),
        ([0, 0, 100, 50], DOG, "classification", "attempted"),
        (SHIFTED, CAT, "localization", "attempted"),
        (EDGE, CAT, "localization", "attempted"),
        (SHIFTED, DOG, "both", "missed"),
        (EDGE, DOG, "both", "missed"),
        (OUTSIDE, CAT, "background", "missed"),
        (OUTSIDE, DOG, "background", "missed"),
    ],
)
def test_one_detection_of_one_object(box, label, kind, state) -> None:
    truth = image(1, [SAME], [CAT])
    assert kinds_of(truth, detections([box], [0.9], [label])) == ([kind], [state])


def test_the_second_detection_of_an_object_is_a_duplicate() -> None:
    found = detections([RIGHT, SAME], [0.8, 0.9], [CAT, CAT])
    assert kinds_of(image(1, [SAME], [CAT]), found) == (["correct", "duplicate"], ["found"])


def test_a_misplaced_detection_of_an_object_that_is_found_is_an_error_and_the_object_stays_found() -> None:
    found = detections([SAME, SHIFTED, RIGHT], [0.9, 0.8, 0.7], [CAT, CAT, DOG])
    assert kinds_of(image(1, [SAME], [CAT]), found) == (["correct", "localization", "classification"], ["found"])


def test_the_nearest_object_of_the_own_class_decides_before_that_of_another() -> None:
    truth = image(1, [SAME, [0, 0, 100, 30]], [CAT, DOG])
    assert kinds_of(truth, detections([[0, 0, 100, 30]], [0.9], [CAT])) == (["localization"], ["attempted", "missed"])


def test_a_duplicate_at_the_place_of_another_class_is_misclassified() -> None:
    truth = image(1, [SAME, [0, 0, 100, 90]], [CAT, DOG])
    found = detections([SAME, [0, 0, 100, 95]], [0.9, 0.8], [CAT, CAT])
    assert kinds_of(truth, found) == (["correct", "classification"], ["found", "attempted"])


def test_what_lies_on_a_crowd_is_no_error_and_a_crowd_is_no_object() -> None:
    truth = image(1, [SAME, [200, 200, 400, 400]], [CAT, DOG], [False, True])
    found = detections([[210, 210, 250, 250], [300, 0, 350, 50]], [0.9, 0.8], [BIRD, BIRD])
    assert kinds_of(truth, found) == (["ignored", "background"], ["missed"])
    counts = errors_by_kind([truth], {1: found}, CLASSES, score=0.5)
    assert sum(counts.total(kind) for kind in DETECTION_KINDS) == 1
    assert sum(counts.total(kind) for kind in OBJECT_KINDS) == 1


def test_detections_below_the_threshold_are_left_out_and_those_at_it_are_kept() -> None:
    found = detections([SAME, OUTSIDE], [0.5, 0.25], [CAT, CAT])
    assert kinds_of(image(1, [SAME], [CAT]), found, score=0.5) == (["correct"], ["found"])


def test_an_image_without_detections_or_without_objects() -> None:
    assert kinds_of(image(1, [SAME], [CAT]), None) == ([], ["missed"])
    assert kinds_of(image(1, [], []), detections([SAME], [0.9], [CAT])) == (["background"], [])


def test_counts_are_by_the_detected_class_and_by_that_of_the_object() -> None:
    truth = [image(1, [SAME, [200, 200, 300, 300]], [CAT, BIRD])]
    errors = errors_by_kind(truth, {1: detections([SAME], [0.9], [DOG])}, CLASSES, score=0.5)
    assert errors.detections["classification"].tolist() == [0, 1, 0, 0]
    assert errors.objects["attempted"].tolist() == [1, 0, 0, 0]
    assert errors.objects["missed"].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("score", [None, 0.0, 0.5])
def test_kinds_sum_to_all_detections_and_to_all_objects(score) -> None:
    truth, found = random_set(4)
    errors = errors_by_kind(truth, found, CLASSES, score)
    if score is None:
        assert errors.score == best_threshold(truth, found, CLASSES).score
    ignored = sum(int((image_errors(p, found.get(p.id), errors.score).kinds < 0).sum()) for p in truth)
    above = [one.labels[one.scores >= errors.score] for one in found.values()]
    assert sum(errors.total(kind) for kind in DETECTION_KINDS) == sum(map(len, above)) - ignored
    objects = np.concatenate([p.labels[~p.crowd] for p in truth])
    assert sum(errors.objects.values()).tolist() == [int((objects == label).sum()) for label in range(4)]
    assert errors.detections["correct"].tolist() == errors.objects["found"].tolist()


def test_perfect_detections_have_no_errors() -> None:
    truth, _ = random_set(0)
    errors = errors_by_kind(truth, perfect(truth), CLASSES)
    assert errors.total("correct") == errors.total("found") == sum(int((~p.crowd).sum()) for p in truth)
    assert sum(errors.total(kind) for kind in (*DETECTION_KINDS, *OBJECT_KINDS)) == 2 * errors.total("correct")


@pytest.mark.parametrize(("foreground", "background"), [(0.1, 0.5), (0.5, 0.0), (1.1, 0.1)])
def test_overlaps_out_of_order_are_refused(foreground, background) -> None:
    with pytest.raises(UserError, match="0 < background < foreground <= 1"):
        errors_by_kind([], {}, CLASSES, foreground=foreground, background=background)
