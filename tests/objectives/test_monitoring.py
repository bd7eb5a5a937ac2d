"""What is logged about assignments: positives per object, and objects without any by their size."""

import math

import torch

from ladle.objectives import assignment_metrics
from ladle.types import Assignment, GroundTruth


def plan(objects, affinity):
    weights = torch.tensor(affinity)
    return Assignment(torch.tensor(objects), weights, (weights.sum(-1) == 0).float())


def test_objects_without_a_positive_are_counted_by_size():
    # Two small objects, a medium one and a large crowd, which is not counted; in the second image padding alone.
    boxes = [[[0, 0, 10, 10], [0, 0, 31, 33], [0, 0, 32, 32], [0, 0, 200, 200]], [[0, 0, 0, 0]] * 4]
    valid = torch.tensor([[True] * 4, [False] * 4])
    crowd = torch.zeros_like(valid)
    crowd[0, 3] = True
    truth = GroundTruth(torch.tensor(boxes).float(), torch.zeros(2, 4, dtype=torch.long), valid, crowd)
    # Three priors learn object 1, one of them object 2 as well; entries of affinity 0 say nothing about object 0.
    assignment = plan(
        [[[1, 0], [1, 2], [1, 0], [0, 0]]] * 2, [[[1.0, 0], [0.5, 0.5], [1.0, 0], [0, 0]], [[0.0, 0]] * 4]
    )
    metrics = assignment_metrics(assignment, truth)
    assert float(metrics["positives_per_object"]) == 1.0
    assert math.isclose(float(metrics["unassigned"]), 1 / 3, rel_tol=1e-6)
    assert float(metrics["unassigned_small"]) == 0.5
    assert float(metrics["unassigned_medium"]) == 0.0
    assert math.isnan(float(metrics["unassigned_large"]))


def test_a_batch_without_objects_has_no_shares():
    truth = GroundTruth.pad([torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.long)])
    metrics = assignment_metrics(plan([[[0], [0]]], [[[0.0], [0.0]]]), truth)
    assert float(metrics.pop("positives_per_object")) == 0
    assert all(math.isnan(float(value)) for value in metrics.values())
