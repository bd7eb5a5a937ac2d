"""A random few of the priors of a plan, as detectors in two stages learn from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladle.types import Assignment, Priors

__all__ = ["RandomSampler", "keep_sampled"]


@dataclass(frozen=True)
class RandomSampler:
    """Keep ``count`` priors of each image, drawn at random: objects up to a share, background for the rest.

    What is not drawn is ignored. Faster R-CNN learns from 256 anchors, half of them objects, and from 512 proposals, a
    quarter of them (Ren et al. 2015; torchvision). As there, too few objects make room for background, and not the
    other way round. Strengths of a soft plan are kept.

    Args:
        count: priors of an image.
        positives: largest share of objects.

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
        """The plan with the drawn priors alone; the same state of ``generator``, on the plan's device, draws the same.

        Drawn for all images at once: nothing waits for the device.
        """
        lot = torch.rand(plan.background.shape, generator=generator, device=plan.background.device)
        positive, background = plan.positive, plan.background > 0
        most = positive.new_full((len(lot), 1), int(self.count * self.positives), dtype=torch.long)
        objects = _drawn(lot, positive, most)
        rest = self.count - objects.sum(-1, keepdim=True)
        others = _drawn(lot, background & ~positive, rest)
        return replace(
            plan,
            affinity=plan.affinity * objects.unsqueeze(-1),
            objects=plan.objects * objects.unsqueeze(-1),
            background=plan.background * others,
        )


def _drawn(lot: Float[Tensor, "B P"], among: Bool[Tensor, "B P"], count: Int[Tensor, "B 1"]) -> Bool[Tensor, "B P"]:
    """Of the marked ones, as many as ``count`` says, those with the smallest lots."""
    order = lot.masked_fill(~among, 2.0).argsort(dim=-1)
    place = torch.arange(lot.shape[-1], device=lot.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(-1, order, place)
    return among & (rank < count)


def keep_sampled(priors: Priors, plan: Assignment, count: int) -> tuple[Priors, Assignment]:
    """The priors that a plan of a sample speaks of, at most ``count`` of each image, and the plan for these alone.

    Where there are fewer, the rest is not valid. Both answers have ``count`` priors, or all if those are fewer.

    Examples:
        >>> from ladle.assigners import MaxIoU, RandomSampler, keep_sampled
        >>> from ladle.testing import example_scene
        >>> predictions, priors, truth = example_scene()
        >>> plan = RandomSampler(count=64)(MaxIoU()(predictions, priors, truth))
        >>> few, plan = keep_sampled(priors, plan, 64)
        >>> few.boxes.shape, plan.background.shape
        (torch.Size([2, 64, 4]), torch.Size([2, 64]))
    """
    batch, every = plan.background.shape
    spoken = plan.positive | (plan.background > 0)
    index = spoken.float().topk(min(count, every), dim=-1).indices.sort(dim=-1).values
    kept = spoken.gather(1, index)

    def rows(values: Tensor) -> Tensor:
        wide = values.expand(batch, *values.shape[1:])
        place = index.view(*index.shape, *[1] * (wide.ndim - 2)).expand(*index.shape, *wide.shape[2:])
        return wide.gather(1, place)

    few = Priors(
        boxes=rows(priors.boxes),
        stride=priors.stride.new_ones(index.shape[1]),
        # One level: which of them were ground truth differs from image to image, and no longer matters.
        level=priors.level.new_zeros(index.shape[1]),
        valid=kept,
        counts=(index.shape[1],),
    )
    return few, plan.map(rows)
