"""Every assigner and every distiller obeys the laws, and the laws fail for those that do not."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from ladle.assigners import (
    ATSS,
    FCOS,
    OTA,
    PAA,
    AutoAssign,
    DynamicSoftLabel,
    Hungarian,
    MaxIoU,
    PseudoIoU,
    SimD,
    SimOTA,
    TaskAligned,
)
from ladle.distillers import (
    BCKD,
    CWD,
    FGD,
    MGD,
    PKD,
    DeFeat,
    FineGrained,
    FitNet,
    GeneralInstance,
    LocalizationDistillation,
    SoftLabels,
)
from ladle.testing import ASSIGNER_LAWS, DISTILLER_LAWS, a_crowded_image_fits_in_a_gibibyte, example_scene
from ladle.types import Assignment, Pyramid, Term

ASSIGNERS = (
    MaxIoU(),
    MaxIoU(rescue=None),
    MaxIoU(rescued="prior"),
    MaxIoU(boxes="predictions"),
    MaxIoU(boxes="predictions", keep_count=True),
    ATSS(),
    ATSS(boxes="predictions"),
    ATSS(boxes="predictions", keep_count=True),
    FCOS(),
    FCOS(radius=None),
    FCOS(boxes="predictions"),
    PseudoIoU(),
    PseudoIoU(boxes="predictions"),
    PseudoIoU(boxes="predictions", keep_count=True),
    PAA(),
    PAA(cut="prefix"),
    OTA(),
    SimOTA(),
    SimOTA(radius=2.5, candidates="center or box", penalty=1e5),
    TaskAligned(),
    TaskAligned(
        topk=10, alpha=0.5, inside="before", overlap="ciou", margin=1e-9, eps=1e-9, conflict="all", least_side=16
    ),
    DynamicSoftLabel(),
    AutoAssign(),
    Hungarian(),
    TaskAligned(min_side=2.0, rescue=True),
    MaxIoU(overlap=SimD(1.5, 1.5)),
    MaxIoU(boxes="predictions", keep_count=True, class_power=0.5, overlap=SimD(1.5, 1.5)),
    ATSS(overlap=SimD(1.5, 1.5)),
)
WAITS = (Hungarian(),)
"""Those that must wait for the device: SciPy solves the matching on the processor."""
DISTILLERS = (
    SoftLabels(),
    SoftLabels(class_weight=10.0, least=0.1),
    SoftLabels(class_weight=2.0, quality_weight=0.0, box_weight=0.0, gamma=0.0, temperature=2.0),
    LocalizationDistillation(),
    LocalizationDistillation(region="inside"),
    LocalizationDistillation(measure="iou", shared=False, rows="box"),
    BCKD(),
    BCKD(box_loss="iou"),
    FitNet(),
    FineGrained(),
    GeneralInstance(),
    DeFeat(),
    FGD(),
    FGD(share="cell", relative=False),
    CWD(),
    PKD(),
    MGD(),
)
"""CrossKD has its own tests: it needs outputs with towers, and a head."""
NEVER_AGREES = (MGD(),)
"""MGD erases random features, so it has no minimum at equality."""


UNTYPED = "it_compiles_into_one_graph"
"""The run-time shape checks of the tests cannot be traced by the compiler, so this law is tested in another process."""
SLOW = (UNTYPED, a_crowded_image_fits_in_a_gibibyte.__name__)
QUICK_LAWS = [law for law in ASSIGNER_LAWS if law.__name__ not in SLOW]


@pytest.mark.parametrize("law", QUICK_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("assigner", ASSIGNERS, ids=repr)
def test_assigners_obey(assigner, law):
    law(assigner)


@pytest.mark.slow
@pytest.mark.parametrize("assigner", ASSIGNERS, ids=repr)
def test_a_crowd_fits_in_memory(assigner):
    a_crowded_image_fits_in_a_gibibyte(assigner)


@pytest.mark.slow
def test_assigners_compile_into_one_graph():
    script = f"""
from ladle.assigners import *
from ladle.testing import {UNTYPED} as law
for assigner in {tuple(rule for rule in ASSIGNERS if rule not in WAITS)!r}:
    law(assigner)
def waits(*scene):
    plan = MaxIoU()(*scene)
    return plan if plan.positive.sum().item() else plan
try:
    law(waits)
except Exception:
    print("caught")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "caught", "the law accepted an assigner with a device sync"


class Net:
    """What building a distiller needs of a network: the feature maps of :func:`ladle.testing.example_output`."""

    pyramid, head = Pyramid((8, 8, 8), (8, 16, 32)), None


@pytest.mark.parametrize("law", DISTILLER_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("distiller", DISTILLERS, ids=repr)
def test_distillers_obey(distiller, law):
    torch.manual_seed(0)
    built = distiller.build(Net(), Net())

    def seeded(*case):
        torch.manual_seed(0)
        return built(*case)

    if distiller in NEVER_AGREES and law.__name__ == "agreement_is_the_minimum":
        with pytest.raises(AssertionError, match="gradient is not zero"):
            law(seeded)
    else:
        law(seeded)


class Counterexample:
    """An assigner that breaks one law: MaxIoU whose plan is changed by ``fault``."""

    def __init__(self, fault):
        self.fault, self.calls = fault, 0

    def __call__(self, predictions, priors, truth):
        self.calls += 1
        return self.fault(self, MaxIoU(0.1, 0.1)(predictions, priors, truth), predictions, priors, truth)


def depends_on_earlier_calls(self, plan, predictions, priors, truth):
    return replace(plan, background=plan.background * (self.calls % 2))


def mixes_images(self, plan, predictions, priors, truth):
    return replace(plan, affinity=plan.affinity.flip(0)) if len(plan.affinity) > 1 else plan


def gives_two_roles(self, plan, predictions, priors, truth):
    return replace(plan, background=torch.ones_like(plan.background))


def uses_padding(self, plan, predictions, priors, truth):
    everything = replace(truth, valid=torch.ones_like(truth.valid), crowd=torch.zeros_like(truth.crowd))
    return MaxIoU(0.1, 0.1)(predictions, priors, everything)


def depends_on_position(self, plan, predictions, priors, truth):
    return replace(plan, affinity=plan.affinity * (priors.centers[..., :1] < 140))


def writes_to_its_inputs(self, plan, predictions, priors, truth):
    predictions.boxes.zero_()
    return plan


def takes_too_much_memory(self, plan, predictions, priors, truth):
    matrix = torch.ones(len(truth.labels), priors.boxes.shape[1], truth.labels.shape[1], 17)
    return replace(plan, background=plan.background + 0 * matrix.sum())


def decides_in_half_precision(self, plan, predictions, priors, truth):
    rough = predictions.logits @ torch.ones(predictions.logits.shape[-1], 1, dtype=predictions.logits.dtype)
    return Assignment.hard(plan.index, plan.positive, rough[..., 0].float() > -15)


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (depends_on_earlier_calls, "same_inputs_give_the_same_plan"),
        (mixes_images, "images_do_not_talk_to_each_other"),
        (gives_two_roles, "a_hard_plan_gives_a_prior_one_role"),
        (uses_padding, "padding_changes_nothing"),
        (uses_padding, "an_image_without_objects_is_all_background"),
        (uses_padding, "crowds_are_neither_objects_nor_background"),
        (depends_on_position, "moving_the_scene_by_a_stride_moves_the_plan"),
        (writes_to_its_inputs, "inputs_are_left_alone"),
        pytest.param(takes_too_much_memory, "a_crowded_image_fits_in_a_gibibyte", marks=pytest.mark.slow),
        (decides_in_half_precision, "half_precision_decides_nothing"),
    ],
)
def test_a_law_fails_for_an_assigner_that_breaks_it(fault, law):
    check = next(item for item in ASSIGNER_LAWS if item.__name__ == law)
    with pytest.raises(AssertionError):
        check(Counterexample(fault))


def test_a_law_fails_for_a_distiller_with_a_gradient_for_the_teacher():
    def mutual(student, teacher, truth, assignment):
        apart = (student.predictions.logits - teacher.predictions.logits).square().sum()
        return {"mutual": Term(apart, torch.tensor(1.0), torch.tensor(1.0))}

    with pytest.raises(AssertionError, match="reaches the teacher"):
        DISTILLER_LAWS[0](mutual)


def test_the_example_scene_has_objects_of_many_sizes():
    _, _, truth = example_scene(objects=50)
    side = (truth.boxes[..., 2:] - truth.boxes[..., :2]).amax(-1)
    assert side.max() / side.min() > 4
