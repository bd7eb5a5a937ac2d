"""ATSS against mmdetection and a naive loop."""

import pytest
import torch

from ladle.assigners import ATSS
from tests.assigners.naive import naive_atss
from tests.golden.scenes import Scene, golden, object_numbers


def assign(scene, rule):
    return object_numbers(rule(scene.predictions(), scene.priors(), scene.truth()))


@pytest.mark.parametrize("case", ["tiny", "edge"])
def test_agrees_exactly_with_the_reference(case):
    assert torch.equal(assign(Scene(case), ATSS()), golden(f"atss__{case}__mmdet")["gt_inds"])


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("topk", [9, 4])
def test_agrees_with_a_naive_loop(seed, topk):
    scene = Scene("tiny", seed)
    assert torch.equal(assign(scene, ATSS(topk=topk)), naive_atss(scene, topk))


def test_a_crowd_too_large_for_one_chunk_is_assigned_alike(monkeypatch):
    scene = Scene("edge")
    whole = assign(scene, ATSS())
    monkeypatch.setattr("ladle.device._CACHE", 4 * max(scene.num_lvl) * 3)
    assert torch.equal(assign(scene, ATSS()), whole)
