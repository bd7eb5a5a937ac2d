"""What runs on a GPU gives the plans of the CPU, in few operations and in bounded memory."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from ladle.assigners import (
    ATSS,
    FCOS,
    OTA,
    PAA,
    AutoAssign,
    DynamicSoftLabel,
    MaxIoU,
    PseudoIoU,
    SimD,
    SimOTA,
    TaskAligned,
)
from ladle.device import as_on_a_gpu
from ladle.testing import (
    an_image_without_objects_is_all_background,
    bad_predictions_do_not_spread,
    example_scene,
    padding_changes_nothing,
)
from ladle.testing.operations import operations_on_a_gpu
from tests.golden.scenes import Scene

YOLO = {"inside": "before", "overlap": "ciou", "margin": 1e-9, "eps": 1e-9, "conflict": "all", "least_side": 16}
RULES = {
    "max-iou": MaxIoU(),
    "max-iou-torchvision": MaxIoU(rescued="prior"),
    "max-iou-strict": MaxIoU(rescue=None),
    "max-iou-judged": MaxIoU().judged_by_teacher(True, 0.5, True),
    "fcos": FCOS(),
    "fcos-open": FCOS(closed=False),
    "fcos-whole": FCOS(radius=None),
    "fcos-judged": FCOS().judged_by_teacher(True, 0.5, False),
    "pseudo-iou": PseudoIoU(),
    "atss": ATSS(),
    "atss-judged": ATSS().judged_by_teacher(False, 0.0, False),
    "paa": PAA(),
    "paa-prefix": PAA(cut="prefix", pool=ATSS()),
    "ota": OTA(),
    "sim-ota": SimOTA(),
    "sim-ota-mmdet": SimOTA(radius=2.5, candidates="center or box", penalty=1e5, floor=1e-7),
    "task-aligned": TaskAligned(),
    "task-aligned-yolo": TaskAligned(**YOLO),
    "dynamic-soft-label": DynamicSoftLabel(),
    "auto-assign": AutoAssign(),
    "fcos-small": FCOS(min_side=2.0, rescue=True),
    "atss-small": ATSS(rescue=True),
    "ota-small": OTA(min_side=2.0, rescue=True),
    "task-aligned-small": TaskAligned(min_side=2.0, rescue=True),
    "max-iou-simd": MaxIoU(overlap=SimD(2.0, 1.5)),
    "max-iou-simd-judged": MaxIoU(overlap=SimD(2.0, 1.5)).judged_by_teacher(True, 0.5, True),
    "atss-simd": ATSS(overlap=SimD(2.0, 1.5)),
    "atss-simd-judged": ATSS(overlap=SimD(2.0, 1.5)).judged_by_teacher(False, 0.5, False),
    "sim-ota-small": SimOTA(radius=2.5, candidates="center or box", min_side=2.0, rescue=True),
}
LABELLED = ("max-iou-judged", "max-iou-simd-judged")
"""Those whose plain functions look up the class of padding, too."""


def example(objects):
    return example_scene(batch=1, objects=objects, size=(160, 160), classes=20)


@cache
def scene_of(case, seed):
    return Scene(case, seed)


def inputs(name, scene):
    if name.split("-")[0] in ("fcos", "pseudo", "sim", "dynamic", "auto"):
        return scene.raw_predictions(), scene.point_priors(), scene.truth()
    return scene.predictions(), scene.priors(), scene.truth()


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_plans_are_those_of_the_cpu(name):
    for case, seed in [("tiny", 0), *(("edge", seed) for seed in range(10))]:
        predictions, priors, truth = inputs(name, scene_of(case, seed))
        objects = truth.labels.shape[1]
        plain = RULES[name](predictions, priors, truth)
        # Labels in padding are arbitrary, and must not be used as indices.
        nameless = replace(truth, labels=torch.where(truth.valid, truth.labels, -1))
        with as_on_a_gpu():
            fused = RULES[name](predictions, priors, nameless if name not in LABELLED else truth)
        assert torch.equal(plain.positive, fused.positive), (case, seed)
        torch.testing.assert_close(fused.dense(objects), plain.dense(objects))
        assert torch.equal(plain.background, fused.background)


@pytest.mark.parametrize("name", RULES)
def test_laws_hold(name):
    with as_on_a_gpu():
        for law in (an_image_without_objects_is_all_background, bad_predictions_do_not_spread, padding_changes_nothing):
            law(RULES[name])


BARS = {
    "max-iou": 60,
    "fcos": 60,
    "atss": 60,
    "pseudo-iou": 60,
    "task-aligned": 100,
    "sim-ota": 100,
    "sim-ota-mmdet": 100,
    "dynamic-soft-label": 100,
    "paa": 120,
    "ota": 120,
    "auto-assign": 120,
    "max-iou-simd": 18,
    "atss-simd": 18,
    "fcos-small": 160,
    "atss-small": 100,
}
"""The most operations of one call."""


@pytest.mark.parametrize("name", BARS)
def test_one_call_starts_few_operations_however_many_objects_there_are(name):
    few, many = example(20), example(150)
    launches = operations_on_a_gpu(lambda: RULES[name](*few)).launches
    assert launches == operations_on_a_gpu(lambda: RULES[name](*many)).launches
    assert launches <= BARS[name]


@pytest.mark.parametrize("name", ["task-aligned", "task-aligned-yolo", "sim-ota-mmdet", "dynamic-soft-label", "paa"])
def test_memory_is_bounded_in_a_crowd(name, monkeypatch):
    # A sixteenth of the priors that take less than a gibibyte with 2,000 objects, and a sixteenth of the block.
    monkeypatch.setattr("ladle.device._MEMORY", (1 << 24) // 16)
    scene = example(2000)
    assert operations_on_a_gpu(lambda: RULES[name](*scene)).peak < (1 << 30) // 16


@pytest.mark.parametrize("name", ["task-aligned", "task-aligned-yolo", "sim-ota-mmdet", "paa", "fcos", "ota"])
def test_parts_of_the_objects_give_the_same_plan(name, monkeypatch):
    predictions, priors, truth = inputs(name, scene_of("edge", 1))
    whole = RULES[name](predictions, priors, truth)
    monkeypatch.setattr("ladle.device._MEMORY", 1)
    for scene in (priors, replace(priors, grids=None)):
        with as_on_a_gpu():
            parts = RULES[name](predictions, scene, truth)
        assert torch.equal(whole.positive, parts.positive)
        torch.testing.assert_close(parts.dense(truth.labels.shape[1]), whole.dense(truth.labels.shape[1]))
