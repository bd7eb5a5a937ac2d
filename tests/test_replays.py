"""What is recorded, and that a replay uses the new values; the graph itself is replaced, since it needs a GPU."""

from dataclasses import dataclass, replace

import pytest
import torch

from ladle import replays
from ladle.assigners import PAA, AutoAssign, MaxIoU
from ladle.families import detector_spec
from ladle.methods import LAD, Method, plan_for
from ladle.objectives import TrainingStep, training_step
from ladle.replays import Replayed
from ladle.teachers import FrozenDetector
from ladle.testing import example_scene
from ladle.types import Assignment
from tests.objectives.test_training_step import CLASSES, batch


@dataclass
class Graph:
    """Computes the plan again, from the tensors that were recorded."""

    assign: object
    scene: tuple
    plan: Assignment

    def pool(self):
        return None

    def replay(self):
        for old, new in zip(replays._tensors((self.plan,)), replays._tensors((self.assign(*self.scene),)), strict=True):
            old.copy_(new)


@pytest.fixture
def recorded(monkeypatch):
    """Pretend that graphs can be recorded; returns the number of recordings so far."""
    made = []

    def record(self, predictions, priors, truth):
        scene = tuple(record.map(torch.clone) for record in (predictions, priors, truth))
        plan = self._plain(*scene)
        made.append(scene)
        used = scene if self._uses_predictions else scene[1:]
        return replays._Recording(Graph(self._plain, scene, plan), replays._tensors(used), plan)

    monkeypatch.setattr(replays, "has_graphs", lambda tensor: True)
    monkeypatch.setattr(Replayed, "_is_free_of_waits", lambda self, *scene: True)
    monkeypatch.setattr(Replayed, "_record", record)
    return made


def same(first, second):
    return torch.equal(first.dense(6), second.dense(6)) and torch.equal(first.background, second.background)


@pytest.mark.parametrize("rule", [PAA(), MaxIoU()])
def test_a_replay_is_the_plan_of_its_own_arguments(rule, recorded):
    assign = Replayed(rule)
    plans = [(assign(*scene), rule(*scene)) for scene in map(scene_of, range(6))]
    assert len(recorded) == 1
    assert all(same(first, second) for first, second in plans)


def scene_of(seed):
    return example_scene(seed=seed)


def test_other_shapes_are_recorded_apart_and_rare_ones_not_at_all(recorded):
    assign = Replayed(PAA())
    for objects, times in ((6, 4), (5, 4), (4, 2)):
        for seed in range(times):
            scene = example_scene(seed=seed, objects=objects)
            assert torch.equal(assign(*scene).positive, PAA()(*scene).positive)
    assert [scene[2].labels.shape[1] for scene in recorded] == [6, 5]


def test_memory_is_bounded(recorded):
    assign = Replayed(PAA(), memory=1000)
    for seed in range(4):
        assign(*scene_of(seed))
    assert recorded == []


def test_a_plan_with_a_gradient_is_not_recorded(recorded):
    assign = Replayed(AutoAssign())
    for seed in range(4):
        predictions, priors, truth = scene_of(seed)
        assert assign(predictions.map(lambda one: one.requires_grad_()), priors, truth).affinity.requires_grad
    assert recorded == []


def test_predictions_with_a_gradient_are_replayed(recorded):
    assign, plans = Replayed(PAA()), []
    for seed in range(4):
        predictions, priors, truth = scene_of(seed)
        leaf = replace(predictions, logits=predictions.logits.clone().requires_grad_())
        plans.append(same(assign(leaf, priors, truth), PAA()(predictions, priors, truth)))
    assert len(recorded) == 1
    assert all(plans)


def test_an_assigner_that_waits_is_called_as_it_is(recorded, monkeypatch):
    monkeypatch.setattr(Replayed, "_is_free_of_waits", lambda self, *scene: False)
    assign = Replayed(PAA())
    assert all(same(assign(*scene), PAA()(*scene)) for scene in map(scene_of, range(4)))
    assert recorded == []


def test_the_plan_belongs_to_the_caller(recorded):
    assign = Replayed(PAA())
    plans = [assign(*scene_of(seed)) for seed in range(5)]
    assert same(plans[3], PAA()(*scene_of(3))), "a later replay has changed an earlier plan"


def test_an_assigner_that_cannot_be_recorded_is_called_as_it_is_with_a_warning(recorded, monkeypatch):
    def fail(self, *scene):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(Replayed, "_record", fail)
    assign = Replayed(PAA())
    assert all(same(assign(*scene), PAA()(*scene)) for scene in map(scene_of, range(2)))
    with pytest.warns(UserWarning, match="PAA cannot be recorded as a CUDA graph, so it is slower: operation not"):
        assert same(assign(*scene_of(2)), PAA()(*scene_of(2)))
    assert same(assign(*scene_of(3)), PAA()(*scene_of(3)))


@pytest.mark.parametrize("name", ["atss", "paa", "retinanet", "fcos"])
def test_the_assigner_of_a_stage_is_one_object_in_all_steps_whoever_judges(name, recorded, monkeypatch):
    monkeypatch.setattr(training_step, "has_graphs", lambda tensor: True)
    spec = detector_spec(f"{name}-tiny", CLASSES)
    plan = plan_for(Method((LAD(after=1),)), spec, spec)
    step = TrainingStep(spec.build(), plan.lessons, FrozenDetector(spec.build(), CLASSES))
    kept = []
    for number in range(8):
        step.set_time(number / 2, number)
        step(batch(0))
        kept.append(len(step._replayed))
    alike = name == "paa"  # its rule is the same for both networks
    assert kept == [1] * 3 + [1 if alike else 2] * 5
    assert len(recorded) == (1 if alike else 2)
