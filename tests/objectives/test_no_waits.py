"""A training step of a one-stage detector never waits for a GPU: no operation reads values or copies from the host."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ladle.device import as_on_a_gpu
from ladle.engine.weighing import EVERY, GradientWeight
from ladle.families import Start, detector_spec
from ladle.methods import plan_for
from ladle.objectives import TrainingStep
from ladle.teachers import AuxiliaryTeacher, AverageTeacher, FrozenDetector, MovedTeacher
from ladle.types import Batch, GroundTruth

NAMES = ("a", "b", "c")
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "bincount", "_unique2", "is_nonzero", "equal", "lift_fresh"}
"""Operations whose result the host needs, and tensors made from Python numbers, which are copied from the host."""


class Waits(TorchDispatchMode):
    """Collects the operations that wait."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[-1]
        by_mask = (
            name.startswith("index")
            and any(isinstance(index, torch.Tensor) and index.dtype == torch.bool for index in (args[1] or []))
            if len(args) > 1 and isinstance(args[1], list | tuple)
            else False
        )
        repeats = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in WAITS or by_mask or repeats:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def batch():
    boxes = [torch.tensor([[10.0, 10, 60, 70], [50, 40, 90, 90]]), torch.tensor([[5.0, 5, 80, 90]])]
    sizes = torch.tensor([[96, 96]] * 2)
    images = torch.randint(256, (2, 3, 96, 96), dtype=torch.uint8)
    truth = GroundTruth.pad(boxes, [torch.tensor([0, 1]), torch.tensor([2])], multiple=16)
    return Batch(images, truth, sizes, sizes, (0, 1))


def step_of(family, method, taught_by=None):
    student = detector_spec(f"{family}-tiny", NAMES, start=Start(norm="frozen")).build()
    if method == "plain":
        return TrainingStep(student, plan_for(method, student.spec).lessons).train()
    frozen = FrozenDetector(detector_spec(f"{taught_by or family}-tiny", NAMES).build(), NAMES)
    teacher = MovedTeacher(frozen) if taught_by else frozen
    return TrainingStep(student, plan_for(method, student.spec, teacher.info).lessons, teacher).train()


def waits_of(step):
    moved = batch()
    with as_on_a_gpu():
        step(moved)  # constants are copied in the first step
        with Waits() as waits:
            terms = step(moved)
            sum(
                term.total / torch.maximum(term.count, term.floor).clamp(min=1e-6) for term in terms.values()
            ).backward()
    return waits.found


FAMILIES = ("retinanet", "fcos", "atss", "paa", "gfl", "tood", "autoassign", "ota", "yolox", "rtmdet")
METHODS = ("lad", "ld", "soft", "bckd", "cross", "pkd", "fgd", "mgd", "cwd", "fitnet", "defeat", "gi")


@pytest.mark.parametrize("family", [*FAMILIES, "tood+o2o"])
def test_a_plain_step(family):
    assert waits_of(step_of(family, "plain")) == []


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_distillation(method):
    assert waits_of(step_of("gfl" if method == "ld" else "paa", method)) == []


@pytest.mark.parametrize("method", ["lad", "soft"])
def test_a_step_with_predictions_moved_from_the_priors_of_another_family(method):
    assert waits_of(step_of("fcos", method, taught_by="retinanet")) == []


@pytest.mark.parametrize("kind", ["ema", "auxiliary"])
def test_a_step_with_a_teacher_that_is_made_of_the_student(kind):
    student = detector_spec("paa-tiny", NAMES, start=Start(norm="frozen")).build()
    teacher = AverageTeacher(student) if kind == "ema" else AuxiliaryTeacher(student.spec, width=32, depth=1)
    step = TrainingStep(student, plan_for("solad", student.spec, teacher.info).lessons, teacher).train()
    step.set_time(0.5, 1)
    assert waits_of(step) == []
    with Waits() as waits:
        step.set_time(20.0, 300)
    assert waits.found == [], "the average moves, the maps are detached"


def test_a_weight_that_follows_gradient_norms():
    weight, norms = GradientWeight(0.5, torch.device("cpu")), torch.rand(2, EVERY)
    with as_on_a_gpu(), Waits() as waits:
        for others, mine in norms.unbind(1):
            weight.note(others, mine)
    assert waits.found == []
    assert weight.steps == 0, "it has changed"


def test_a_wait_is_found():
    with Waits() as waits:
        mask = torch.tensor([1.0, 0.0]) > 0
        torch.ones(2)[mask].sum().item()
    assert waits.found == ["lift_fresh", "index", "_local_scalar_dense"]


@pytest.mark.parametrize("family", ["fasterrcnn", "cascade"])
def test_a_step_in_two_stages_waits_for_the_suppression_and_for_pooling_alone(family, monkeypatch):
    """What is counted here is all else: on a CPU these two are other operations than on a GPU."""
    monkeypatch.setattr("torchvision.ops.nms", lambda boxes, scores, threshold: scores.argsort(descending=True))
    monkeypatch.setattr(
        "ladle.detectors.regions.roi_align",
        lambda features, strides, boxes, cells: features[0].new_zeros(
            boxes.shape[0] * boxes.shape[1], features[0].shape[1], cells, cells
        ),
    )
    assert waits_of(step_of(family, "plain")) == []
