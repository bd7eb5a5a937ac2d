"""The laws of distillers: functions that take a distiller and raise AssertionError where it breaks the law."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ladle.testing.scenes import example_output
from ladle.types import Assignment, GroundTruth, Output, Term

__all__ = [
    "DISTILLER_LAWS",
    "agreement_is_the_minimum",
    "invalid_priors_are_ignored",
    "terms_are_finite",
    "the_teacher_gets_no_gradient",
]

DistillerUnderTest = Callable[[Output, Output, GroundTruth, Assignment], dict[str, Term]]
Example = Callable[[int], tuple[Output, GroundTruth, Assignment]]
"""Makes a scene from a seed, as :func:`example_output` does; a distiller with more inputs needs another one."""


def the_teacher_gets_no_gradient(distill: DistillerUnderTest, example: Example = example_output) -> None:
    """The loss has a gradient for the student's output and none for the teacher's."""
    (student, truth, plan), (teacher, _, _) = example(0), example(1)
    student, teacher = _with_gradient(student), _with_gradient(replace(teacher, priors=student.priors))
    _loss(distill(student, teacher, truth, plan)).backward()
    assert _gradients(student), "no gradient reaches the student"
    assert not _gradients(teacher), "a gradient reaches the teacher"


def agreement_is_the_minimum(distill: DistillerUnderTest, example: Example = example_output) -> None:
    """Where student and teacher are equal, the loss is lower than nearby, and its gradient is zero."""
    student, truth, plan = example(0)
    equal = _with_gradient(student)
    loss = _loss(distill(equal, student, truth, plan))
    loss.backward()
    assert all(gradient.abs().max() < 1e-4 for gradient in _gradients(equal)), (
        "the gradient is not zero where student and teacher agree"
    )
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        different = _changed(student, partial(_with_noise, generator=generator))
        assert _loss(distill(different, student, truth, plan)) > loss.detach(), (
            "the loss is not larger where the student differs"
        )


def terms_are_finite(distill: DistillerUnderTest, example: Example = example_output) -> None:
    """All terms are finite, also without objects and with very different predictions."""
    (student, truth, plan), (teacher, _, _) = example(0), example(1)
    extreme = replace(
        teacher, priors=student.priors, predictions=replace(teacher.predictions, logits=teacher.predictions.logits * 40)
    )
    empty = replace(truth, valid=torch.zeros_like(truth.valid))
    none = Assignment.hard(plan.index, torch.zeros_like(plan.positive), torch.ones_like(plan.positive))
    for objects, assignment in ((truth, plan), (empty, none)):
        for name, term in distill(student, extreme, objects, assignment).items():
            assert all(value.isfinite() for value in term), f"term {name} is not finite"
            assert term.total == 0 or torch.maximum(term.count, term.floor) > 0, f"term {name} would divide by zero"


def invalid_priors_are_ignored(distill: DistillerUnderTest, example: Example = example_output) -> None:
    """Predictions at invalid priors have no effect on the loss."""
    (student, truth, plan), (teacher, _, _) = example(0), example(1)
    teacher = replace(teacher, priors=student.priors)
    invalid = ~student.priors.valid.expand(2, -1)
    noise = torch.Generator().manual_seed(5)

    def add_noise(tensor: Tensor) -> Tensor:
        noisy = tensor + torch.randn(tensor.shape, generator=noise)
        return torch.where(invalid.view(*invalid.shape, *[1] * (tensor.ndim - 2)), noisy, tensor)

    plain = distill(student, teacher, truth, plan)
    other = distill(
        replace(student, predictions=student.predictions.map(add_noise)),
        replace(teacher, predictions=teacher.predictions.map(add_noise)),
        truth,
        plan,
    )
    for name, term in plain.items():
        torch.testing.assert_close(term.total, other[name].total, msg=f"term {name} depends on invalid priors")


def _with_noise(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point():
        return tensor
    return tensor + 0.3 * torch.randn(tensor.shape, generator=generator)


def _changed(output: Output, change: Callable[[Tensor], Tensor]) -> Output:
    """The output with ``change`` applied to predictions, features and towers; priors and sizes stay."""
    changed = Output(output.predictions, output.priors, output.features, None, output.towers)
    return replace(changed.map(change), priors=output.priors, sizes=output.sizes)


def _with_gradient(output: Output) -> Output:
    return _changed(
        output, lambda tensor: tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor
    )


def _gradients(output: Output) -> list[Tensor]:
    predictions = output.predictions
    leaves = [predictions.logits, predictions.boxes, predictions.quality, predictions.edges, *output.features]
    leaves += [one for pair in output.towers or () for one in pair]
    return [leaf.grad for leaf in leaves if leaf is not None and leaf.grad is not None]


def _loss(terms: dict[str, Term]) -> Tensor:
    return torch.stack([t.total / torch.maximum(t.count, t.floor).clamp(min=1e-12) for t in terms.values()]).sum()


DISTILLER_LAWS: tuple[Callable[..., None], ...] = (
    the_teacher_gets_no_gradient,
    agreement_is_the_minimum,
    terms_are_finite,
    invalid_priors_are_ignored,
)
"""The laws of distillers. That weight 0 is plain training is a law of the training step."""
