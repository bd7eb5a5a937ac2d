"""Random sampling of the priors of a plan, as in two-stage detectors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.types import Assignment, Priors

__all__ = ["RandomSampler", "keep_sampled"]


@dataclass(frozen=True)
class RandomSampler:
    """Keep ``count`` random priors of each image: positives up to a share, and background for the rest.

    All other priors are ignored. Faster R-CNN samples 256 anchors with at most half positives, and 512 proposals with
    at most a quarter (Ren et al. 2015; torchvision). As there, missing positives are replaced by background, but
    missing background is not replaced by positives. Affinities of a soft plan are kept.

    Args:
        count: number of priors per image.
        positives: largest share of positives.

    Examples:
        >>> from ladle.assigners import MaxIoU, RandomSampler
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = RandomSampler(count=64, positives=0.25)(MaxIoU()(predictions, priors, truth))
        >>> plan.positive.sum(1), (plan.background > 0).sum(1)
        (tensor([16, 16]), tensor([48, 48]))
    """

    count: int = 256
    positives: float = 0.5

    @torch.no_grad()
    def __call__(self, plan: Assignment, generator: torch.Generator | None = None) -> Assignment:
        """The plan with the sampled priors only.

        ``generator``, on the device of the plan, determines the sample. All images are sampled at once, without a
        device sync.
        """
        noise = torch.rand(plan.background.shape, generator=generator, device=plan.background.device)
        positive, background = plan.positive, plan.background > 0
        most = positive.new_full((len(noise), 1), int(self.count * self.positives), dtype=torch.long)
        objects = _sampled(noise, positive, most)
        rest = self.count - objects.sum(-1, keepdim=True)
        others = _sampled(noise, background & ~positive, rest)
        return replace(
            plan,
            affinity=plan.affinity * objects.unsqueeze(-1),
            objects=plan.objects * objects.unsqueeze(-1),
            background=plan.background * others,
        )


def _sampled(noise: Float[Tensor, "B P"], mask: Bool[Tensor, "B P"], count: Int[Tensor, "B 1"]) -> Bool[Tensor, "B P"]:
    """The ``count`` marked priors of each image with the lowest ``noise``."""
    order = noise.masked_fill(~mask, 2.0).argsort(dim=-1)  # 2 is above all noise, which lies in [0, 1)
    position = torch.arange(noise.shape[-1], device=noise.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, position)
    return mask & (rank < count)


def keep_sampled(priors: Priors, plan: Assignment, count: int) -> tuple[Priors, Assignment]:
    """Reduce priors and plan to the priors that are not ignored, at most ``count`` of each image.

    Both results have ``count`` priors per image, or all priors if there are fewer. If fewer than that are not ignored,
    the rest has ``valid`` False.

    Examples:
        >>> from ladle.assigners import MaxIoU, RandomSampler, keep_sampled
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = RandomSampler(count=64)(MaxIoU()(predictions, priors, truth))
        >>> few, plan = keep_sampled(priors, plan, 64)
        >>> few.boxes.shape, plan.background.shape
        (torch.Size([2, 64, 4]), torch.Size([2, 64]))
    """
    batch, total = plan.background.shape
    sampled = plan.positive | (plan.background > 0)
    index = sampled.float().topk(min(count, total), dim=-1).indices.sort(dim=-1).values
    kept = sampled.gather(1, index)

    def rows(values: Tensor) -> Tensor:
        wide = values.expand(batch, *values.shape[1:])
        place = index.view(*index.shape, *[1] * (wide.ndim - 2)).expand(*index.shape, *wide.shape[2:])
        return wide.gather(1, place)

    few = Priors(
        boxes=rows(priors.boxes),
        stride=priors.stride.new_ones(index.shape[1]),
        # One level for all: the proposals that were ground truth lie at other places in each image.
        level=priors.level.new_zeros(index.shape[1]),
        valid=kept,
        counts=(index.shape[1],),
        # A later region head needs it: it drops refined ground truth, since the ground-truth boxes are appended again.
        is_ground_truth=None if priors.is_ground_truth is None else rows(priors.is_ground_truth),
    )
    return few, plan.map(rows)
