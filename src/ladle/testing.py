"""The laws that every assigner and every distiller obeys, ours and yours.

Each law is a function that takes the thing to be tried and raises AssertionError where it is broken::

    @pytest.mark.parametrize("law", ASSIGNER_LAWS, ids=lambda law: law.__name__)
    def test_my_assigner_obeys(law):
        law(MyAssigner())
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ladle.types import Assignment, Grid, GroundTruth, Output, Predictions, Priors, Pyramid, Term

__all__ = ["ASSIGNER_LAWS", "DISTILLER_LAWS", "example_network", "example_output", "example_scene", "grid_priors"]

AssignerUnderTest = Callable[[Predictions, Priors, GroundTruth], Assignment]
DistillerUnderTest = Callable[[Output, Output, GroundTruth, Assignment], dict[str, Term]]

Scene = tuple[Predictions, Priors, GroundTruth]
_GIB = 1 << 30
_ROUNDING = 1e-4


def grid_priors(height: int, width: int, strides: Sequence[int] = (8, 16, 32), side: float = 8.0) -> Priors:
    """One square anchor of ``side`` strides at every location of every level."""
    boxes, counts, grids = [], [], []
    for stride in strides:
        y, x = torch.meshgrid(torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij")
        center = torch.stack([x, y, x, y], dim=-1).reshape(-1, 4).float()
        half = side * stride / 2
        boxes.append(center + torch.tensor([-half, -half, half, half]))
        counts.append(len(center))
        grids.append(Grid(len(range(0, height, stride)), len(range(0, width, stride)), float(stride), 0.0))
    level = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    every = torch.cat(boxes)
    valid = torch.ones(1, len(every), dtype=torch.bool)
    return Priors(every[None], torch.tensor(strides).float()[level], level, valid, tuple(counts), tuple(grids))


def example_scene(
    batch: int = 2, objects: int = 6, seed: int = 0, size: tuple[int, int] = (192, 256), classes: int = 5
) -> Scene:
    """Random objects, and predictions as of a half-trained detector: better near an object than elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    priors = grid_priors(height, width)
    center = torch.rand(batch, objects, 2, generator=generator) * torch.tensor([width, height])
    half = torch.exp(torch.rand(batch, objects, 2, generator=generator) * 2.2 + 2.6) / 2
    low = (center - half).clamp(min=0)
    high = torch.minimum(center + half, torch.tensor([float(width), float(height)])).maximum(low + 2)
    labels = torch.randint(classes, (batch, objects), generator=generator)
    truth = GroundTruth.pad(list(torch.cat([low, high], dim=-1)), list(labels))

    count = priors.boxes.shape[1]
    logits = torch.randn(batch, count, classes, generator=generator) - 3
    noise = torch.randn(batch, count, 4, generator=generator) * priors.stride[:, None]
    boxes = priors.boxes + noise
    if objects:
        nearest = torch.cdist(priors.centers.expand(batch, -1, -1), (low + high) / 2).argmin(-1)
        target, label = truth.at(nearest)
        trust = torch.rand(batch, count, 1, generator=generator)
        boxes = trust * target + (1 - trust) * boxes
        logits = logits.scatter_add(2, label.unsqueeze(-1), 4 * trust)
    boxes = torch.cat([boxes[..., :2].minimum(boxes[..., 2:] - 1), boxes[..., 2:]], dim=-1)
    quality = torch.randn(batch, count, generator=generator)
    return Predictions(logits, boxes, quality), priors, truth


# --------------------------------------------------------------------------------------------------------- assigners


def same_inputs_give_the_same_plan(assign: AssignerUnderTest) -> None:
    """There is no hidden state and no hidden randomness."""
    scene = example_scene()
    _same(assign(*scene), assign(*scene), scene)


def padding_changes_nothing(assign: AssignerUnderTest) -> None:
    """Objects that are not valid are as good as absent, whatever their boxes hold."""
    said, priors, truth = example_scene()
    extra = GroundTruth(
        torch.cat([truth.boxes, truth.boxes[:, :3] + 5], dim=1),
        torch.cat([truth.labels, truth.labels[:, :3]], dim=1),
        torch.cat([truth.valid, torch.zeros_like(truth.valid[:, :3])], dim=1),
        torch.cat([truth.crowd, torch.ones_like(truth.crowd[:, :3])], dim=1),
    )
    objects = truth.labels.shape[1]
    plain, padded = assign(said, priors, truth), assign(said, priors, extra)
    _equal(plain.dense(objects), padded.dense(objects + 3)[..., :objects])
    _equal(plain.background, padded.background)
    assert not padded.dense(objects + 3)[..., objects:].any(), "a prior learns an object that is not there"


def order_of_objects_does_not_matter(assign: AssignerUnderTest) -> None:
    """Shuffling the objects shuffles the plan's columns (they stand apart: who wins a tie is each rule's own)."""
    said, priors, truth = example_scene(objects=4, size=(320, 320))
    corners = torch.tensor([[0.0, 0.0], [160.0, 0.0], [0.0, 160.0], [160.0, 160.0]])
    extents = torch.tensor([[130.0, 90.0], [60.0, 61.0], [70.0, 120.0], [75.0, 62.0]])
    truth = replace(truth, boxes=torch.cat([corners + 13, corners + 13 + extents], dim=-1).expand(2, -1, -1))
    objects = truth.labels.shape[1]
    order = torch.tensor([2, 0, 3, 1])
    shuffled = assign(said, priors, truth.map(lambda tensor: tensor[:, order]))
    plain = assign(said, priors, truth)
    _equal(plain.dense(objects)[..., order], shuffled.dense(objects))
    _equal(plain.background, shuffled.background)


def images_do_not_talk_to_each_other(assign: AssignerUnderTest) -> None:
    """Each image of a batch is assigned as if it were alone."""
    said, priors, truth = example_scene()
    whole = assign(said, priors, truth)
    for row in range(len(truth.labels)):
        alone = assign(said.map(itemgetter(slice(row, row + 1))), priors, truth.map(itemgetter(slice(row, row + 1))))
        _equal(whole.background[row], alone.background[0])
        objects = truth.labels.shape[1]
        _equal(whole.dense(objects)[row], alone.dense(objects)[0])


def an_image_without_objects_is_all_background(assign: AssignerUnderTest) -> None:
    """Both when the batch has no column for objects and when the columns are padding."""
    said, priors, truth = example_scene(objects=3)
    none = GroundTruth.pad([truth.boxes[0, :0]] * 2, [truth.labels[0, :0]] * 2)
    padding = replace(truth, valid=torch.zeros_like(truth.valid))
    for empty in (none, padding):
        plan = assign(said, priors, empty)
        assert not plan.positive.any(), "a prior learns an object in an empty image"
        assert (plan.background == 1).all(), "a prior of an empty image is not background"


def inputs_are_left_alone(assign: AssignerUnderTest) -> None:
    """No input tensor is written to."""
    scene, untouched = example_scene(), example_scene()
    assign(*scene)
    for record, original in zip(scene, untouched, strict=True):
        for name, value in vars(original).items():
            if isinstance(value, Tensor):
                _equal(value, getattr(record, name))


def a_hard_plan_gives_a_prior_one_role(assign: AssignerUnderTest) -> None:
    """Object, background or ignored, never two of them; and no gradient flows into the decision.

    Strengths lie between 0 and 1. A soft plan, which gives a prior several objects, only has to keep to that.
    """
    said, priors, truth = example_scene()
    plan = assign(said.map(lambda tensor: tensor.clone().requires_grad_()), priors, truth)
    assert plan.positive.any(), "nothing is assigned in a scene full of objects"
    assert ((plan.affinity >= 0) & (plan.affinity <= 1)).all(), "a strength lies outside 0 and 1"
    if plan.objects.shape[-1] > 1:
        return
    assert not (plan.positive & (plan.background > 0)).any(), "a prior is object and background at once"
    assert not plan.affinity.requires_grad, "a gradient flows into the plan"


def moving_the_scene_by_a_stride_moves_the_plan(assign: AssignerUnderTest) -> None:
    """Away from the border, an assigner sees relations and no absolute positions."""
    strides, shift = (8, 16), 16
    priors = grid_priors(256, 256, strides, side=4.0)
    generator = torch.Generator().manual_seed(3)
    boxes = torch.tensor([[101.0, 93.0, 141.0, 139.0], [150.0, 118.0, 171.0, 151.0]])
    labels = torch.tensor([0, 1])
    count = priors.boxes.shape[1]
    said = Predictions(
        torch.randn(1, count, 2, generator=generator),
        priors.boxes + torch.randn(1, count, 4, generator=generator),
        torch.randn(1, count, generator=generator),
    )
    offset = torch.tensor([float(shift), 0.0, float(shift), 0.0])
    moved = Predictions(
        _roll(said.logits, priors, 256, strides, shift),
        _roll(said.boxes, priors, 256, strides, shift) + offset,
        _roll(said.quality, priors, 256, strides, shift) if said.quality is not None else None,
    )
    plan = _roll(assign(said, priors, GroundTruth.pad([boxes], [labels])).dense(2), priors, 256, strides, shift)
    there = assign(moved, priors, GroundTruth.pad([boxes + offset], [labels])).dense(2)
    _equal(plan > 0, there > 0)
    # Strengths may differ by what moved coordinates round off.
    assert (plan - there).abs().max() < _ROUNDING, "the strengths of a plan depend on where the scene lies"


def crowds_are_neither_objects_nor_background(assign: AssignerUnderTest) -> None:
    """A region of uncounted objects is left out of the plan; priors outside it are not affected."""
    said, priors, truth = example_scene(batch=1, objects=2)
    boxes = torch.cat([truth.boxes[0], torch.tensor([[96.0, 64.0, 256.0, 192.0]])])
    labels = torch.cat([truth.labels[0], torch.tensor([0])])
    plan = assign(said, priors, GroundTruth.pad([boxes], [labels], [torch.tensor([False, False, True])]))
    assert not plan.dense(3)[..., 2].any(), "a prior learns a crowd"
    x, y = priors.centers[0].unbind(-1)
    half = priors.boxes[0, :, 2] - x
    deep = (x - half >= 96) & (x + half <= 256) & (y - half >= 64) & (y + half <= 192)
    assert deep.any(), "the scene holds no prior inside the crowd"
    assert not plan.background[0, deep].any(), "a prior inside a crowd counts as background"


def bad_predictions_do_not_spread(assign: AssignerUnderTest) -> None:
    """NaN and inf are refused, or harm the image they belong to alone."""
    said, priors, truth = example_scene()
    for poison in (torch.nan, torch.inf):
        bad = said.map(torch.clone)
        bad.logits[0, ::3] = poison
        bad.boxes[0, 1::3] = poison
        try:
            plan = assign(bad, priors, truth)
        except (ValueError, FloatingPointError):
            continue
        _equal(plan.dense(6)[1], assign(said, priors, truth).dense(6)[1])
        assert plan.affinity.isfinite().all(), "the plan holds NaN or inf"


def half_precision_decides_nothing(assign: AssignerUnderTest) -> None:
    """Under autocast the plan is the float32 one, and half-precision predictions are judged in float32."""
    said, priors, truth = example_scene()
    plan = assign(said, priors, truth)
    with torch.autocast("cpu", torch.bfloat16):
        _same(plan, assign(said, priors, truth), (said, priors, truth))
    rounded = said.map(Tensor.bfloat16)
    _same(assign(rounded.map(Tensor.float), priors, truth), assign(rounded, priors, truth), (said, priors, truth))


def a_crowded_image_fits_in_a_gibibyte(assign: AssignerUnderTest) -> None:
    """2,000 objects in one image of 640 x 640 (measured on Linux; elsewhere the law asks that it ends)."""
    scene = example_scene(batch=1, objects=2000, size=(640, 640), classes=80)
    grown = _peak_growth(lambda: assign(*scene))
    if grown >= _GIB:
        # The first time may also bring back pages of the process that the kernel had taken from it meanwhile.
        grown = _peak_growth(lambda: assign(*scene))
    assert grown < _GIB, f"one image with 2,000 objects took {grown / _GIB:.2f} GiB"


def it_compiles_into_one_graph(assign: AssignerUnderTest) -> None:
    """``torch.compile(fullgraph=True)`` takes it, so nothing waits for the device, and it decides alike.

    Run-time type checkers (jaxtyping's import hook, beartype) cannot be traced: try this law without them.
    """
    torch.compiler.reset()
    scene = example_scene()
    compiled = torch.compile(lambda *args: assign(*args), fullgraph=True, backend="eager")
    _same(assign(*scene), compiled(*scene), scene)
    torch.compiler.reset()


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
"""Everything a hard assigner promises."""


# -------------------------------------------------------------------------------------------------------- distillers


def example_output(seed: int = 0, classes: int = 5) -> tuple[Output, GroundTruth, Assignment]:
    """A detector's output on a scene, with features, and a plan in which the priors nearest to objects are positive."""
    said, priors, truth = example_scene(seed=seed, classes=classes)
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, 8, 192 // s, 256 // s, generator=generator) for s in (8, 16, 32)]
    said = replace(said, edges=torch.randn(*said.boxes.shape, 9, generator=generator))
    middle = (truth.boxes[..., :2] + truth.boxes[..., 2:]) / 2
    distance, index = torch.cdist(priors.centers.expand(2, -1, -1), middle).min(-1)
    positive = distance < priors.stride
    valid = priors.valid.clone()
    valid[:, ::7] = False
    plan = Assignment.hard(index, positive & valid, valid.expand_as(positive))
    # Valid priors no longer fill a rectangle, so they stand on no grid that may be looked up.
    return Output(said, replace(priors, valid=valid, grids=None), tuple(maps)), truth, plan


class _Network(NamedTuple):
    pyramid: Pyramid
    head: None = None


def example_network() -> _Network:
    """What a distiller of feature maps asks of a network before training, as of one that gives example outputs."""
    return _Network(Pyramid((8, 8, 8), (8, 16, 32)))


Example = Callable[[int], tuple[Output, GroundTruth, Assignment]]
"""A scene from a seed, as :func:`example_output` makes it; give your own where a distiller looks at more."""


def the_teacher_gets_no_gradient(distil: DistillerUnderTest, example: Example = example_output) -> None:
    """Nothing the teacher said is pulled towards the student."""
    (own, truth, plan), (guide, _, _) = example(0), example(1)
    own, guide = _with_gradient(own), _with_gradient(replace(guide, priors=own.priors))
    _loss(distil(own, guide, truth, plan)).backward()
    assert _gradients(own), "the student learns nothing"
    assert not _gradients(guide), "a gradient reaches the teacher"


def agreement_is_the_minimum(distil: DistillerUnderTest, example: Example = example_output) -> None:
    """Where student and teacher agree, every term is no larger than anywhere near, and pulls nowhere."""
    own, truth, plan = example(0)
    agreed = _with_gradient(own)
    loss = _loss(distil(agreed, own, truth, plan))
    loss.backward()
    assert all(gradient.abs().max() < 1e-4 for gradient in _gradients(agreed)), "agreement still pulls"
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        apart = _changed(own, partial(_shaken, generator=generator))
        assert _loss(distil(apart, own, truth, plan)) > loss.detach(), "a student that disagrees pays no more"


def terms_are_finite(distil: DistillerUnderTest, example: Example = example_output) -> None:
    """Also without objects, and where the two say very different things."""
    (own, truth, plan), (guide, _, _) = example(0), example(1)
    loud = replace(
        guide, priors=own.priors, predictions=replace(guide.predictions, logits=guide.predictions.logits * 40)
    )
    empty = replace(truth, valid=torch.zeros_like(truth.valid))
    none = Assignment.hard(plan.index, torch.zeros_like(plan.positive), torch.ones_like(plan.positive))
    for objects, assignment in ((truth, plan), (empty, none)):
        for name, term in distil(own, loud, objects, assignment).items():
            assert all(value.isfinite() for value in term), f"term {name} is not finite"
            assert term.total == 0 or torch.maximum(term.count, term.floor) > 0, f"term {name} would divide by zero"


def invalid_priors_are_ignored(distil: DistillerUnderTest, example: Example = example_output) -> None:
    """What is predicted in the padding of an image has no say."""
    (own, truth, plan), (guide, _, _) = example(0), example(1)
    guide = replace(guide, priors=own.priors)
    out = ~own.priors.valid.expand(2, -1)
    noise = torch.Generator().manual_seed(5)

    def disturb(tensor: Tensor) -> Tensor:
        moved = tensor + torch.randn(tensor.shape, generator=noise)
        return torch.where(out.view(*out.shape, *[1] * (tensor.ndim - 2)), moved, tensor)

    plain = distil(own, guide, truth, plan)
    other = distil(
        replace(own, predictions=own.predictions.map(disturb)),
        replace(guide, predictions=guide.predictions.map(disturb)),
        truth,
        plan,
    )
    for name, term in plain.items():
        torch.testing.assert_close(term.total, other[name].total, msg=f"term {name} listens to invalid priors")


DISTILLER_LAWS: tuple[Callable[..., None], ...] = (
    the_teacher_gets_no_gradient,
    agreement_is_the_minimum,
    terms_are_finite,
    invalid_priors_are_ignored,
)
"""Everything a distiller promises by itself; that weight 0 is plain training is a law of the objective."""


# ------------------------------------------------------------------------------------------------------------ helpers


def _equal(first: Tensor, second: Tensor) -> None:
    assert torch.equal(first, second), f"{int((first != second).sum())} of {first.numel()} entries differ"


def _same(first: Assignment, second: Assignment, scene: Scene) -> None:
    objects = scene[2].labels.shape[1]
    _equal(first.dense(objects), second.dense(objects))
    _equal(first.background, second.background)


def _roll(values: Tensor, priors: Priors, size: int, strides: Sequence[int], shift: int) -> Tensor:
    """Move per-prior values (1, P, ...) to the right by ``shift`` pixels on every level."""
    parts = values.split(priors.counts, dim=1)
    moved = []
    for part, stride in zip(parts, strides, strict=True):
        side = size // stride
        rows = part.reshape(1, side, side, *part.shape[2:])
        moved.append(rows.roll(shift // stride, dims=2).reshape(part.shape))
    return torch.cat(moved, dim=1)


def _shaken(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return tensor + 0.3 * torch.randn(tensor.shape, generator=generator)


def _changed(output: Output, change: Callable[[Tensor], Tensor]) -> Output:
    """The output with a change to everything a network said; its priors stay where they are."""
    said = Output(output.predictions, output.priors, output.features, None, output.towers)
    return replace(said.map(change), priors=output.priors, sizes=output.sizes)


def _with_gradient(output: Output) -> Output:
    return _changed(
        output, lambda tensor: tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor
    )


def _gradients(output: Output) -> list[Tensor]:
    said = output.predictions
    leaves = [said.logits, said.boxes, said.quality, said.edges, *output.features]
    leaves += [one for pair in output.towers or () for one in pair]
    return [leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None]


def _loss(terms: dict[str, Term]) -> Tensor:
    return torch.stack([t.total / torch.maximum(t.count, t.floor).clamp(min=1e-12) for t in terms.values()]).sum()


def _peak_growth(work: Callable[[], object]) -> int:
    """Bytes by which the process grew at most during ``work``, by the kernel's high-water mark."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    gc.collect()
    if not reset.exists():
        work()
        return 0
    ctypes.CDLL(None).malloc_trim(0)
    reset.write_text("5")
    before = _kibibytes(status, "VmRSS")
    work()
    return 1024 * (_kibibytes(status, "VmHWM") - before)


def _kibibytes(status: Path, key: str) -> int:
    return int(next(line for line in status.read_text().splitlines() if line.startswith(key)).split()[1])
