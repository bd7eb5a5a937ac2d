"""Distillers with the settings of each family against the releases' formulas in float64, on a scene of sines."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ladle.assigners import ATSS
from ladle.distillers import CWD, FGD, FineGrained
from ladle.distillers.levels import SHARP, UNIT
from ladle.distillers.regions import cells_of_objects, near_best, within_objects, worthwhile_ring
from ladle.families import detector_spec
from ladle.methods import Published, pair_of
from ladle.methods.words import pieces_of
from ladle.testing import grid_priors
from ladle.types import GroundTruth, Output, Predictions, Pyramid
from tests.distillers import released

STRIDES, SIDE, CLASSES, WIDTH = (8, 16, 32), 96, 3, 6
OBJECTS = [[[10.0, 12, 50, 60], [40, 30, 90, 88]], [[5, 5, 30, 90], [60, 8, 71, 20]]]
LABELS = [[0, 1], [2, 1]]
PRIORS = grid_priors(SIDE, SIDE, STRIDES)
COUNT = PRIORS.boxes.shape[1]


def sines(shape, step, shift=0.0):
    """Numbers between -1 and 1, in float64."""
    return np.sin(step * np.arange(np.prod(shape)) + shift).reshape(shape)


def predicted(seed):
    """What a network says at every prior."""
    center, half = PRIORS.centers[0].double().numpy(), PRIORS.stride.double().numpy()[:, None]
    sides = half * (2.5 + sines((2, COUNT, 4), 0.37, seed))
    return {
        "logits": 2 * sines((2, COUNT, CLASSES), 0.71, seed) - 1,
        "boxes": np.concatenate([center - sides[..., :2], center + sides[..., 2:]], -1),
        "edges": 2 * sines((2, COUNT, 4, 17), 0.53, seed),
        "quality": sines((2, COUNT), 0.29, seed),
    }


def maps(seed, width=WIDTH, strides=STRIDES):
    return [3 * sines((2, width, SIDE // s, SIDE // s), 0.61, seed + s) ** 3 for s in strides]


def tensors(values):
    return tuple(torch.from_numpy(value).float() for value in values)


def output(values, features=(), towers=None):
    predictions = Predictions(**{name: torch.from_numpy(value).float() for name, value in values.items()})
    return Output(predictions, PRIORS, tensors(features), None, towers)


TRUTH = GroundTruth.pad([torch.tensor(boxes) for boxes in OBJECTS], [torch.tensor(labels) for labels in LABELS])
PLAN = ATSS()(output(predicted(0)).predictions, PRIORS, TRUTH)


def distiller_of(word, student, teacher):
    """The distiller that a word stands for, with the settings that were released for two detectors."""
    (found,) = pieces_of(Published(word), pair_of(student, teacher))
    return found


def spec(family):
    return detector_spec(f"{family}-tiny", ("a", "b", "c"))


def values(terms):
    return {name: float(t.total.detach() / torch.maximum(t.count, t.floor)) for name, t in terms.items()}


class Net:
    head = None

    def __init__(self, width=WIDTH, strides=STRIDES):
        self.pyramid = Pyramid((width,) * len(strides), strides)


class Scripted:
    """A head that finishes every tower with the same predictions."""

    depth, width = 2, WIDTH

    def __init__(self, predictions):
        self.predictions = predictions

    def predict_from(self, towers, depth, priors):
        return self.predictions


# ------------------------------------------------------------------------------------------------------------ CrossKD


@pytest.mark.parametrize("family", ["gfl", "retinanet", "atss", "fcos"])
def test_crosskd_divides_as_the_release_does_for_the_teachers_family(family):
    crossed, teacher = predicted(0.4), predicted(1.3)
    if family != "gfl":
        del crossed["edges"], teacher["edges"]
    if family in ("gfl", "retinanet"):
        del crossed["quality"], teacher["quality"]
    towers = tuple(tensors(pair) for pair in zip(maps(5), maps(6), strict=True))
    student_out, teacher_out = output(predicted(0), towers=towers), output(teacher, towers=towers)
    net = Net()
    net.head = Scripted(output(crossed).predictions)
    found = distiller_of("cross", spec(family), spec(family)).build(net, net)(student_out, teacher_out, TRUTH, PLAN)
    positive = PLAN.positive.numpy()
    target = np.take_along_axis(TRUTH.boxes.double().numpy(), PLAN.index.numpy()[..., None], 1)
    central = released.centerness(PRIORS.centers.double().numpy(), target)
    expected = released.cross_kd(family, crossed, teacher, positive, central)
    assert values(found) == {f"cross_{name}": pytest.approx(value, rel=1e-4) for name, value in expected.items()}
    assert positive.sum() > 5


# ----------------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize(("teacher", "weight"), [("fasterrcnn", 6.0), ("retinanet", 10.0)])
def test_pkd_weighs_by_its_teachers_stages(teacher, weight):
    found = distiller_of("pkd", spec("retinanet"), spec(teacher)).build(Net(), Net())
    student_out, teacher_out = maps(0), maps(1)
    value = values(found(output(predicted(0), student_out), output(predicted(1), teacher_out), TRUTH, PLAN))
    assert value == {"pkd": pytest.approx(released.pkd(student_out, teacher_out, weight), rel=1e-4)}


@pytest.mark.parametrize(("relative", "size"), [(False, None), (True, SHARP)])
def test_cwd_compares_softmaxes_of_maps_as_they_are_or_of_one_size(relative, size):
    student_out, teacher_out = maps(0), maps(1)
    found = CWD(relative=relative).build(Net(), Net())(
        output(predicted(0), student_out), output(predicted(1), teacher_out), TRUTH, PLAN
    )
    assert values(found) == {"cwd": pytest.approx(released.cwd(student_out, teacher_out, size=size), rel=1e-4)}


@pytest.mark.parametrize(("relative", "size"), [(False, None), (True, UNIT)])
def test_fgd_attends_by_maps_as_they_are_or_of_one_size(relative, size):
    student_out, teacher_out = maps(0), maps(1)
    distil = FGD(0.0, 0.0, 1.0, 0.0, temperature=0.8, share="cell", relative=relative).build(Net(), Net())
    found = distil(output(predicted(0), student_out), output(predicted(1), teacher_out), TRUTH, PLAN)
    assert values(found) == {
        "fgd_attention": pytest.approx(released.fgd_attention(student_out, teacher_out, 1.0, 0.8, size), rel=1e-4)
    }


def test_fgds_attention_over_the_whole_map_starts_by_kaiming():
    torch.manual_seed(0)
    built = FGD().build(Net(256, (8,)), Net(256, (8,)))
    for context in (*built.student_context, *built.teacher_context):
        # A normal distribution with the variance 2 / 256: the gain of ReLU and 256 inputs.
        assert float(context.attend.weight.detach().std()) == pytest.approx((2 / 256) ** 0.5, rel=0.2)
        assert not context.attend.bias.any()


def test_fine_grained_imitation_sums_over_channels_at_the_released_weight():
    student_out, teacher_out = maps(0), maps(1)
    marked = near_best(PRIORS, TRUTH, 0.5).split(PRIORS.counts, dim=1)
    masks = [part.view(2, SIDE // s, SIDE // s).numpy() for part, s in zip(marked, STRIDES, strict=True)]
    distil = FineGrained(relative=False).build(Net(), Net())
    assert {tuple(adapter.kernel_size) for adapter in distil.levels.adapters} == {(3, 3)}
    found = distil(output(predicted(0), student_out), output(predicted(1), teacher_out), TRUTH, PLAN)
    assert values(found) == {
        "fine_grained": pytest.approx(released.fine_grained(student_out, teacher_out, masks), rel=1e-4)
    }


@pytest.mark.parametrize("stride", STRIDES)
def test_defeat_marks_one_cell_of_a_box_that_is_thin_in_either_direction(stride):
    boxes = [[3.0, 20, 90, 22], [70, 1, 71.5, 95], [40, 40, 41, 41], [10, 12, 50, 60], [80, 80, 96, 96]]
    truth = GroundTruth.pad([torch.tensor(boxes)], [torch.zeros(5, dtype=torch.long)])
    side = SIDE // stride
    rows, columns = cells_of_objects(truth, (side, side), stride, slice(None), outward=False)
    for number, box in enumerate(boxes):
        found = (rows[0, number, :, None] & columns[0, number]).numpy()
        assert (found == released.defeat_mask([box], stride, side, side)).all()


# ------------------------------------------------------------------------------------------- localization distillation


@pytest.mark.parametrize(("family", "images"), [("gfl", 3), ("atss", 2), ("fcos", 2), ("retinanet", 2)])
def test_localization_distillation_is_the_release_of_its_family(family, images):
    """For one image on a device: what is released is a sum over the batch, here its mean times so many images.

    The divisor of the class term is the number of classes there; the default here is COCO's 80.
    """
    name = family if family == "gfl" else f"{family}+dist"
    ours = distiller_of("ld", spec(name), spec(name))
    distil = replace(ours, mean_of=None)
    student, teacher = predicted(0.2), predicted(1.1)
    plan = PLAN.map(lambda value: value[:1])
    truth = TRUTH.map(lambda value: value[:1])
    one, other = (output({name: value[:1] for name, value in each.items()}) for each in (student, teacher))
    found = values(distil(one, replace(other, priors=one.priors), truth, plan))
    ring = (within_objects if family == "fcos" else worthwhile_ring)(PRIORS, truth)[0].double().numpy()
    single = [{name: value[0] for name, value in each.items()} for each in (student, teacher)]
    expected = released.ld(family, *single, plan.positive[0].numpy(), ring, PRIORS.level.numpy())
    factors = {"ld": images, "ld_ring": images, "ld_class": 1}
    assert found == {name: pytest.approx(factors[name] * value, rel=1e-4) for name, value in expected.items()}
    count = student["logits"].shape[-1]
    scaled = values(ours(one, replace(other, priors=one.priors), truth, plan))
    assert scaled == found | {"ld_class": pytest.approx(found["ld_class"] * count / 80, rel=1e-6)}
