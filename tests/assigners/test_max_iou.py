"""Max-IoU against the public implementations and a naive loop."""

import pytest
import torch

from ladle.assigners import MaxIoU
from ladle.types import GroundTruth
from tests.assigners.naive import naive_max_iou
from tests.golden.scenes import Scene, golden, object_numbers

CASES = ("tiny", "edge")


def assign(scene, rule):
    return object_numbers(rule(scene.predictions(), scene.priors(), scene.truth()))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("peer", "rule"),
    [
        ("mmdet_0.5_0.4", MaxIoU(0.5, 0.4)),
        ("mmdet_0.1_0.1", MaxIoU(0.1, 0.1)),
        ("torchvision_0.5_0.4", MaxIoU(0.5, 0.4, rescued="prior")),
    ],
)
def test_agrees_exactly_with_the_reference(case, peer, rule):
    assert torch.equal(assign(Scene(case), rule), golden(f"maxiou__{case}__{peer}")["gt_inds"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rescue", [None, 0.0, 0.3])
def test_agrees_with_a_naive_loop(case, seed, rescue):
    scene = Scene(case, seed)
    expected = naive_max_iou(scene, 0.5, 0.4, rescue)
    assert torch.equal(assign(scene, MaxIoU(0.5, 0.4, rescue=rescue)), expected)


def test_an_object_that_touches_no_prior_rescues_none():
    scene = Scene("tiny")
    alone = scene.truth()
    far = GroundTruth.pad(
        [
            torch.cat([boxes[v], torch.tensor([[900.0, 900.0, 910.0, 910.0]])])
            for boxes, v in zip(alone.boxes, alone.valid)
        ],
        [torch.cat([names[v], torch.tensor([0])]) for names, v in zip(alone.labels, alone.valid)],
    )
    rule, priors, says = MaxIoU(0.1, 0.1), scene.priors(), scene.predictions()
    assert torch.equal(object_numbers(rule(says, priors, alone)), object_numbers(rule(says, priors, far)))


def test_a_crowd_too_large_for_one_chunk_is_assigned_alike(monkeypatch):
    scene = Scene("edge")
    whole = assign(scene, MaxIoU())
    monkeypatch.setattr("ladle.device._CACHE", 4 * scene.A * 3)
    assert torch.equal(assign(scene, MaxIoU()), whole)
