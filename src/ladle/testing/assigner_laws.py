"""The laws of assigners: functions that take an assigner and raise AssertionError where it breaks the law."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import itemgetter

import torch
from torch import Tensor

from ladle.testing.comparing import assert_equal, assert_same_plan
from ladle.testing.memory import peak_growth
from ladle.testing.scenes import example_scene, grid_priors
from ladle.types import Assignment, GroundTruth, Predictions, Priors

__all__ = [
    "ASSIGNER_LAWS",
    "a_crowded_image_fits_in_a_gibibyte",
    "a_hard_plan_gives_a_prior_one_role",
    "an_image_without_objects_is_all_background",
    "bad_predictions_do_not_spread",
    "crowds_are_neither_objects_nor_background",
    "half_precision_decides_nothing",
    "images_do_not_talk_to_each_other",
    "inputs_are_left_alone",
    "it_compiles_into_one_graph",
    "moving_the_scene_by_a_stride_moves_the_plan",
    "order_of_objects_does_not_matter",
    "padding_changes_nothing",
    "same_inputs_give_the_same_plan",
]

AssignerUnderTest = Callable[[Predictions, Priors, GroundTruth], Assignment]

_GIB = 1 << 30
_ROUNDING = 1e-4
"""Largest difference of affinities that rounding of moved coordinates may cause."""


def same_inputs_give_the_same_plan(assign: AssignerUnderTest) -> None:
    """Calling the assigner twice gives the same plan: it has no hidden state and no hidden randomness."""
    scene = example_scene()
    assert_same_plan(assign(*scene), assign(*scene), scene)


def padding_changes_nothing(assign: AssignerUnderTest) -> None:
    """Objects with ``valid`` False have no effect, whatever their boxes, labels and crowd flags are."""
    predictions, priors, truth = example_scene()
    extra = GroundTruth(
        torch.cat([truth.boxes, truth.boxes[:, :3] + 5], dim=1),
        torch.cat([truth.labels, truth.labels[:, :3]], dim=1),
        torch.cat([truth.valid, torch.zeros_like(truth.valid[:, :3])], dim=1),
        torch.cat([truth.crowd, torch.ones_like(truth.crowd[:, :3])], dim=1),
    )
    objects = truth.labels.shape[1]
    plain, padded = assign(predictions, priors, truth), assign(predictions, priors, extra)
    assert_equal(plain.dense(objects), padded.dense(objects + 3)[..., :objects])
    assert_equal(plain.background, padded.background)
    assert not padded.dense(objects + 3)[..., objects:].any(), "a prior learns an object that is padding"


def order_of_objects_does_not_matter(assign: AssignerUnderTest) -> None:
    """Permuting the objects permutes the columns of the plan.

    The objects do not overlap, because assigners may break ties by the order of the objects.
    """
    predictions, priors, truth = example_scene(objects=4, size=(320, 320))
    corners = torch.tensor([[0.0, 0.0], [160.0, 0.0], [0.0, 160.0], [160.0, 160.0]])
    extents = torch.tensor([[130.0, 90.0], [60.0, 61.0], [70.0, 120.0], [75.0, 62.0]])
    truth = replace(truth, boxes=torch.cat([corners + 13, corners + 13 + extents], dim=-1).expand(2, -1, -1))
    objects = truth.labels.shape[1]
    order = torch.tensor([2, 0, 3, 1])
    shuffled = assign(predictions, priors, truth.map(lambda tensor: tensor[:, order]))
    plain = assign(predictions, priors, truth)
    assert_equal(plain.dense(objects)[..., order], shuffled.dense(objects))
    assert_equal(plain.background, shuffled.background)


def images_do_not_talk_to_each_other(assign: AssignerUnderTest) -> None:
    """Each image of a batch gets the plan that it gets alone."""
    predictions, priors, truth = example_scene()
    whole = assign(predictions, priors, truth)
    for row in range(len(truth.labels)):
        alone = assign(
            predictions.map(itemgetter(slice(row, row + 1))), priors, truth.map(itemgetter(slice(row, row + 1)))
        )
        assert_equal(whole.background[row], alone.background[0])
        objects = truth.labels.shape[1]
        assert_equal(whole.dense(objects)[row], alone.dense(objects)[0])


def an_image_without_objects_is_all_background(assign: AssignerUnderTest) -> None:
    """In an image without objects every prior is background, both with G = 0 and with padding only."""
    predictions, priors, truth = example_scene(objects=3)
    none = GroundTruth.pad([truth.boxes[0, :0]] * 2, [truth.labels[0, :0]] * 2)
    padding = replace(truth, valid=torch.zeros_like(truth.valid))
    for empty in (none, padding):
        plan = assign(predictions, priors, empty)
        assert not plan.positive.any(), "a prior learns an object in an empty image"
        assert (plan.background == 1).all(), "a prior of an empty image is not background"


def inputs_are_left_alone(assign: AssignerUnderTest) -> None:
    """The assigner does not write to its input tensors."""
    scene, untouched = example_scene(), example_scene()
    assign(*scene)
    for record, original in zip(scene, untouched, strict=True):
        for name, value in vars(original).items():
            if isinstance(value, Tensor):
                assert_equal(value, getattr(record, name))


def a_hard_plan_gives_a_prior_one_role(assign: AssignerUnderTest) -> None:
    """A prior is positive, background or ignored, never two of these, and the plan has no gradient.

    Affinities lie in [0, 1]. For soft plans, in which a prior may learn several objects, only this is required.
    """
    predictions, priors, truth = example_scene()
    plan = assign(predictions.map(lambda tensor: tensor.clone().requires_grad_()), priors, truth)
    assert plan.positive.any(), "nothing is assigned in a scene full of objects"
    assert ((plan.affinity >= 0) & (plan.affinity <= 1)).all(), "an affinity lies outside [0, 1]"
    if plan.objects.shape[-1] > 1:
        return
    assert not (plan.positive & (plan.background > 0)).any(), "a prior is positive and background at once"
    assert not plan.affinity.requires_grad, "a gradient flows into the plan"


def moving_the_scene_by_a_stride_moves_the_plan(assign: AssignerUnderTest) -> None:
    """Translating objects and predictions by a multiple of the strides translates the plan, away from the border."""
    strides, shift = (8, 16), 16
    priors = grid_priors(256, 256, strides, side=4.0)
    generator = torch.Generator().manual_seed(3)
    boxes = torch.tensor([[101.0, 93.0, 141.0, 139.0], [150.0, 118.0, 171.0, 151.0]])
    labels = torch.tensor([0, 1])
    count = priors.boxes.shape[1]
    predictions = Predictions(
        torch.randn(1, count, 2, generator=generator),
        priors.boxes + torch.randn(1, count, 4, generator=generator),
        torch.randn(1, count, generator=generator),
    )
    offset = torch.tensor([float(shift), 0.0, float(shift), 0.0])
    moved = Predictions(
        _roll(predictions.logits, priors, 256, strides, shift),
        _roll(predictions.boxes, priors, 256, strides, shift) + offset,
        _roll(predictions.quality, priors, 256, strides, shift) if predictions.quality is not None else None,
    )
    plan = _roll(assign(predictions, priors, GroundTruth.pad([boxes], [labels])).dense(2), priors, 256, strides, shift)
    there = assign(moved, priors, GroundTruth.pad([boxes + offset], [labels])).dense(2)
    assert_equal(plan > 0, there > 0)
    assert (plan - there).abs().max() < _ROUNDING, "the affinities of a plan depend on the position of the scene"


def crowds_are_neither_objects_nor_background(assign: AssignerUnderTest) -> None:
    """No prior learns a crowd region, and priors inside one are not background."""
    predictions, priors, truth = example_scene(batch=1, objects=2)
    boxes = torch.cat([truth.boxes[0], torch.tensor([[96.0, 64.0, 256.0, 192.0]])])
    labels = torch.cat([truth.labels[0], torch.tensor([0])])
    plan = assign(predictions, priors, GroundTruth.pad([boxes], [labels], [torch.tensor([False, False, True])]))
    assert not plan.dense(3)[..., 2].any(), "a prior learns a crowd"
    x, y = priors.centers[0].unbind(-1)
    half = priors.boxes[0, :, 2] - x
    inside = (x - half >= 96) & (x + half <= 256) & (y - half >= 64) & (y + half <= 192)
    assert inside.any(), "the scene has no prior inside the crowd"
    assert not plan.background[0, inside].any(), "a prior inside a crowd counts as background"


def bad_predictions_do_not_spread(assign: AssignerUnderTest) -> None:
    """NaN and inf in the predictions raise an error, or affect only the plan of their own image."""
    predictions, priors, truth = example_scene()
    for poison in (torch.nan, torch.inf):
        bad = predictions.map(torch.clone)
        bad.logits[0, ::3] = poison
        bad.boxes[0, 1::3] = poison
        try:
            plan = assign(bad, priors, truth)
        except (ValueError, FloatingPointError):
            continue
        assert_equal(plan.dense(6)[1], assign(predictions, priors, truth).dense(6)[1])
        assert plan.affinity.isfinite().all(), "the plan holds NaN or inf"


def half_precision_decides_nothing(assign: AssignerUnderTest) -> None:
    """Autocast does not change the plan, and half-precision predictions are converted to float32 first."""
    predictions, priors, truth = example_scene()
    plan = assign(predictions, priors, truth)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_plan(plan, assign(predictions, priors, truth), (predictions, priors, truth))
    rounded = predictions.map(Tensor.bfloat16)
    assert_same_plan(
        assign(rounded.map(Tensor.float), priors, truth), assign(rounded, priors, truth), (predictions, priors, truth)
    )


def a_crowded_image_fits_in_a_gibibyte(assign: AssignerUnderTest) -> None:
    """An image of 640 x 640 pixels with 2,000 objects takes less than 1 GiB; measured on Linux only."""
    scene = example_scene(batch=1, objects=2000, size=(640, 640), classes=80)
    grown = peak_growth(lambda: assign(*scene))
    if grown >= _GIB:
        # Measure again: the first time may include pages of the process that the kernel had swapped out.
        grown = peak_growth(lambda: assign(*scene))
    assert grown < _GIB, f"one image with 2,000 objects took {grown / _GIB:.2f} GiB"


def it_compiles_into_one_graph(assign: AssignerUnderTest) -> None:
    """The assigner compiles with ``torch.compile(fullgraph=True)``, hence without device sync, to the same plan.

    Run-time type checkers (jaxtyping's import hook, beartype) cannot be traced: test this law without them.
    """
    torch.compiler.reset()
    scene = example_scene()
    compiled = torch.compile(lambda *args: assign(*args), fullgraph=True, backend="eager")
    assert_same_plan(assign(*scene), compiled(*scene), scene)
    torch.compiler.reset()


def _roll(values: Tensor, priors: Priors, size: int, strides: Sequence[int], shift: int) -> Tensor:
    """Move per-prior values (1, P, ...) to the right by ``shift`` pixels on every level."""
    parts = values.split(priors.counts, dim=1)
    moved = []
    for part, stride in zip(parts, strides, strict=True):
        side = size // stride
        rows = part.reshape(1, side, side, *part.shape[2:])
        moved.append(rows.roll(shift // stride, dims=2).reshape(part.shape))
    return torch.cat(moved, dim=1)


ASSIGNER_LAWS: tuple[Callable[[AssignerUnderTest], None], ...] = (
    same_inputs_give_the_same_plan,
    padding_changes_nothing,
    order_of_objects_does_not_matter,
    images_do_not_talk_to_each_other,
    an_image_without_objects_is_all_background,
    inputs_are_left_alone,
    a_hard_plan_gives_a_prior_one_role,
    moving_the_scene_by_a_stride_moves_the_plan,
    crowds_are_neither_objects_nor_background,
    bad_predictions_do_not_spread,
    half_precision_decides_nothing,
    a_crowded_image_fits_in_a_gibibyte,
    it_compiles_into_one_graph,
)
"""The laws of hard assigners."""
