"""What a training run logs about its assignments."""

from __future__ import annotations

import torch
from torch import Tensor

from ladle.boxes import SIZES, area
from ladle.types import Assignment, GroundTruth

__all__ = ["agreement", "assignment_metrics"]


@torch.no_grad()
def assignment_metrics(assignment: Assignment, truth: GroundTruth) -> dict[str, Tensor]:
    """The mean number of positive priors per object of a batch, and the share of objects that have none.

    ``unassigned`` is the share of all objects, ``unassigned_small`` and so on that of the small, medium and large ones
    by COCO's areas, in pixels of the network's input; NaN where a batch has no such object.

    Examples:
        >>> from ladle.assigners import PAA
        >>> from ladle.objectives import assignment_metrics
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> metrics = assignment_metrics(PAA()(predictions, priors, truth), truth)
        >>> round(float(metrics["positives_per_object"]), 2), float(metrics["unassigned"])
        (5.17, 0.0)
    """
    counted, size = truth.learnable, area(truth.boxes)
    learnt = torch.zeros_like(size) if truth.labels.shape[1] else size
    if truth.labels.shape[1]:
        taken = (assignment.affinity > 0).to(size.dtype).flatten(1)
        learnt = learnt.scatter_reduce(1, assignment.objects.flatten(1), taken, "amax")
    groups = {"unassigned": counted}
    groups |= {f"unassigned_{name}": counted & (size >= low) & (size < high) for name, (low, high) in SIZES.items()}
    mean = assignment.positive.sum() / counted.sum().clamp(min=1)
    shares = {name: (some & (learnt == 0)).sum() / some.sum() for name, some in groups.items()}
    return {"positives_per_object": mean} | shares


@torch.no_grad()
def agreement(student: Assignment, teacher: Assignment) -> Tensor:
    """The share of the positives of the student's hard plan that learn the same object in the teacher's plan.

    NaN if the student's plan has no positive.

    Examples:
        >>> import torch
        >>> from ladle.objectives import agreement
        >>> from ladle.types import Assignment
        >>> positive, nothing = torch.tensor([[True, True, False]]), torch.tensor([[False, False, False]])
        >>> first = Assignment.hard(torch.tensor([[0, 1, 0]]), positive, nothing)
        >>> second = Assignment.hard(torch.tensor([[0, 2, 2]]), ~nothing, nothing)
        >>> float(agreement(first, second))
        0.5
    """
    both = student.positive & teacher.positive & (student.index == teacher.index)
    return both.sum() / student.positive.sum()
