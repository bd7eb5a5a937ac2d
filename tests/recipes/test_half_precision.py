"""Half precision on a CPU: every family trains, with the same losses as in single precision."""

import pytest
import torch
from lightning_fabric import Fabric

from ladle.data.loader import collate
from ladle.data.scenes import CLASSES, Scenes
from ladle.engine.normalizing import normalize
from ladle.families import families
from ladle.recipes import Run
from ladle.recipes.jobs import Job
from ladle.recipes.parts import parts_of
from ladle.recipes.setup import build_objective, resolve


@pytest.fixture(scope="module")
def batch():
    scenes = Scenes(2, seed=3, size=64)
    return collate([scenes.sample(0), scenes.sample(1)])


@pytest.mark.parametrize("family", families())
@pytest.mark.slow
def test_every_family_learns_in_half_precision(batch, family):
    job = Job("train", "scenes", f"{family}-tiny", "nowhere", Run(imgsz=64))
    setup = resolve(job, parts_of(job), CLASSES, tuple(range(len(CLASSES))))
    losses = {}
    for half in (False, True):
        torch.manual_seed(0)
        network = setup.specs["student"].build()
        objective = build_objective(job, setup, {"student": network})
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            terms = objective(batch)
        losses[half], _ = normalize(terms, Fabric(accelerator="cpu", devices=1))
    losses[True].backward()
    assert losses[True].dtype == torch.float32
    assert losses[True].item() == pytest.approx(losses[False].item(), rel=0.02)
    grads = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() and grad.dtype == torch.float32 for grad in grads)
    assert sum(bool(grad.any()) for grad in grads) > 0.9 * len(list(network.parameters()))
