"""The images of the pages of distillers: what counts for each, and how much, on one scene."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ladle.assigners import PAA, CostSelector
from ladle.boxes import clip
from ladle.detectors import Detector
from ladle.distillers import CWD, FGD, MGD, FineGrained, GeneralInstance, SoftLabels
from ladle.distillers.defeat import _object_cells
from ladle.distillers.fgd import _object_share
from ladle.distillers.levels import Level, Levels, at_locations, channel_spread
from ladle.distillers.regions import near_best, worthwhile_ring
from ladle.overlaps import best_overlaps
from ladle.types import Assignment, Batch, Output

Plans = dict[str, Assignment]
Maps = dict[str, Tensor]

STRIDES = (8, 16, 32)
LEAST_SCORE = 0.05
"""Scores below this are not drawn."""
CHANNELS = 3
"""Channels that CWD's image shows: those that attend to the smallest regions."""


def plans_of_distillers(batch: Batch, beginner: Output, teacher: Output) -> dict[str, Plans]:
    """Dots for those that choose among priors, by the name of their page."""
    boxes = clip(teacher.predictions.boxes, batch.sizes)
    priors, truth = teacher.priors, batch.truth
    overlap = best_overlaps(boxes, priors.valid, truth)
    judged = PAA()(teacher.predictions, priors, truth)
    nearest = best_overlaps(priors.boxes, priors.valid, truth, grids=priors.grids)
    evidence = [PAA().weigh(one.predictions, priors, truth) for one in (beginner, teacher)]
    verdict = CostSelector()(*evidence, priors, truth)
    score = teacher.predictions.scores.amax(-1)
    apart = (teacher.predictions.scores - beginner.predictions.scores).abs().amax(-1)
    return {
        "soft_labels": {
            f"SoftLabels(least={least})": _weighed(overlap.index, torch.where(overlap.iou > least, overlap.iou, 0.0))
            for least in (SoftLabels().least, 0.1)
        },
        "localization": {
            "edges and classes: positives": judged,
            'edges: measure="coverage"': _weighed(nearest.index, worthwhile_ring(priors, truth)),
            'edges: measure="iou"': _weighed(nearest.index, worthwhile_ring(priors, truth, measure="iou")),
        },
        "fine_grained": {
            f"FineGrained(share={share})": _weighed(nearest.index, near_best(priors, truth, share).float())
            for share in (0.3, FineGrained().share, 0.7)
        },
        "bckd": {
            f"difference of scores, stride {stride}": _weighed(
                overlap.index, apart * ((apart > LEAST_SCORE) & (priors.stride == stride))
            )
            for stride in STRIDES
        },
        "cross": {
            f"the teacher's score, stride {stride}": _weighed(
                overlap.index, score * ((score > LEAST_SCORE) & (priors.stride == stride))
            )
            for stride in STRIDES
        },
        "colad": {
            "the first student judges": PAA().select(evidence[0], priors, truth),
            "the second judges": PAA().select(evidence[1], priors, truth),
            "whoever is surer judges": PAA().select(verdict.evidence, priors, truth),
        },
    }


def _weighed(index: Tensor, strength: Tensor) -> Assignment:
    return Assignment(index.unsqueeze(-1), strength.unsqueeze(-1), torch.ones_like(strength))


@torch.no_grad()
def maps_of_distillers(batch: Batch, student: Detector, teacher: Detector) -> dict[str, Maps]:
    """Shades for those that compare maps, by the name of their page; the student has the teacher's channels."""
    student_output, teacher_output = (net.eval()(batch.images, batch.sizes)[0] for net in (student, teacher))
    levels: list[Level] = Levels(student.pyramid, teacher.pyramid, relative=True)(student_output, teacher_output)
    fine, attention = levels[0], FGD().build(student, teacher)._attention(levels[0].teacher, levels[0])
    front = _object_share(fine, batch.truth)[0, 0]
    home = _object_cells(fine, batch.truth, list(STRIDES), 0)[0, 0].float()
    outside = (front == 0) & fine.filled[0, 0]
    torch.manual_seed(0)
    return {
        "fitnet": _by_level(levels, lambda level: (level.student - level.teacher).square().mean(1)[0]),
        "pkd": _by_level(levels, lambda level: _standard(level).abs().mean(1)[0]),
        "mgd": _by_level(levels, lambda level: (torch.rand(level.student.shape[-2:]) <= 1 - MGD().erased).float()),
        "defeat": {"foreground, stride 8": home, "background, stride 8": 1 - home},
        "general_instance": _instances(student_output, teacher_output),
        "fgd": {
            "foreground, stride 8": front,
            "background, stride 8": outside / outside.sum(),
            "attention of the teacher, stride 8": attention.cells[0, 0],
        },
        "cwd": _channels(Levels(student.pyramid, teacher.pyramid)(student_output, teacher_output)[0]),
    }


def _by_level(levels: list[Level], cells: Callable[[Level], Tensor]) -> Maps:
    return {f"stride {level.stride}": cells(level) for level in levels}


def _standard(level: Level) -> Tensor:
    mean, spread = channel_spread(level.teacher, level.filled)
    return (level.teacher - mean) / (spread + 1e-6)


def _instances(student_output: Output, teacher_output: Output) -> Maps:
    gap = (teacher_output.predictions.scores - student_output.predictions.scores).abs().amax(-1)
    chosen = at_locations(
        GeneralInstance().instances(student_output, teacher_output), student_output.priors, student_output.features
    )
    sizes = [
        part.view(maps.shape[-2:])
        for part, maps in zip(gap.split(student_output.priors.counts, 1), student_output.features, strict=True)
    ]
    return {
        f"instances, stride {stride}": size * mark[0, 0]
        for stride, size, mark in zip(STRIDES, sizes, chosen, strict=True)
    }


def _channels(level: Level) -> Maps:
    """The distributions of the channels with the least entropy, which attend to the smallest regions."""
    attended = CWD()._log_probs(level.teacher, level)[0].exp()
    entropy = -(attended * attended.clamp(min=1e-12).log()).sum(-1)
    closest = entropy.argsort()[:CHANNELS].tolist()
    return {f"channel {number} of the teacher": attended[number].view(level.teacher.shape[-2:]) for number in closest}
