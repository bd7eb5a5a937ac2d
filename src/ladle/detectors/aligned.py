"""TOOD's task-aligned head (Feng et al., ICCV 2021, sections 3.1 and 3.2): one tower that both tasks interact in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ladle.boxes import decode_distances
from ladle.detectors.head_layers import bounded_exp, convolutions, flattened, logit, set_bias
from ladle.detectors.layers import group_norm
from ladle.detectors.protocol import Towers
from ladle.types import GroundTruth, Output, Predictions, Priors

if TYPE_CHECKING:
    from ladle.detectors.dense import DenseSpec

__all__ = ["AlignedStage", "sampled"]

_LARGEST_LOG = -(2.0**-24)
"""The logarithm of the largest score, whose logit is finite in float32."""


class AlignedStage(nn.Module):
    """The task-aligned head: ``propose`` returns the priors of all levels, a call predicts at them.

    The maps after each of ``depth`` convolutions are the interactive features of a level. Each task weights them by
    layer attention and combines them into features of its own. From the interactive features two more maps are
    predicted: probabilities, whose geometric mean with the class scores is the score; and offsets of cells, at which
    each edge of a box is sampled from the map of predicted boxes.
    """

    class_agnostic = False
    samples_first = False

    def __init__(self, spec: DenseSpec, classes: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.spec, self.strides, self.classes = spec, tuple(strides), classes
        width, depth = spec.width, spec.depth
        self.tower = nn.ModuleList(_convolution(width, width, 3) for _ in range(depth))
        self.class_features, self.box_features = _Decomposition(width, depth), _Decomposition(width, depth)
        self.class_conv = nn.Conv2d(width, classes, 3, padding=1)
        self.box_conv = nn.Conv2d(width, 4, 3, padding=1)
        self.class_alignment, self.box_alignment = _alignment(width, depth, 1), _alignment(width, depth, 8)
        self.scales = nn.Parameter(torch.ones(len(self.strides))) if spec.level_scale else None
        self._start()

    @torch.no_grad()
    def _start(self) -> None:
        attentions = (self.class_features.attention, self.box_features.attention)
        small = {id(conv) for conv in convolutions(*attentions, self.box_alignment)}
        for conv in convolutions(self):
            nn.init.normal_(conv.weight, std=0.001 if id(conv) in small else 0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        prior = torch.tensor(logit(self.spec.class_prior))
        set_bias(self.class_conv, prior)
        set_bias(self.class_alignment[-1], prior)
        set_bias(self.box_conv, self.spec.anchors.halves().repeat(1, 2).flatten().log())

    def propose(
        self, features: Sequence[Tensor], previous: Output | None, truth: GroundTruth | None, sizes: Tensor | None
    ) -> Priors:
        """The anchors of all levels; ``previous`` and ``truth`` are not used."""
        return self.spec.anchors.over(features, self.strides, sizes)

    def forward(
        self, features: Sequence[Tensor], priors: Priors, tower_depth: int | None = None
    ) -> tuple[Predictions, Towers | None]:
        """Predict at the priors, which must be the grid of this stage; raises ValueError for a ``tower_depth``."""
        if tower_depth is not None:
            raise ValueError("a task-aligned head has no towers of its own for classes and boxes")
        logits, boxes, start = [], [], 0
        for level, maps in enumerate(features):
            end = start + maps.shape[-2] * maps.shape[-1]
            here = slice(start, end)
            found = self._level(maps, level, priors.centers[:, here], priors.stride[here])
            logits.append(flattened(found[0], self.classes))
            boxes.append(flattened(found[1], 4))
            start = end
        if start != priors.boxes.shape[1]:
            raise ValueError(f"a dense head predicts at its own {start} priors, but was given {priors.boxes.shape[1]}")
        return Predictions(torch.cat(logits, dim=1), torch.cat(boxes, dim=1)), None

    def _level(self, maps: Tensor, level: int, centers: Tensor, stride: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,C,H,W) and boxes (B,4,H,W) of a level, whose cells have ``centers`` (1 or B,H*W,2)."""
        layers = []
        for convolution in self.tower:
            maps = convolution(maps)
            layers.append(maps)
        many = torch.cat(layers, dim=1)
        mean = many.mean((2, 3), keepdim=True)
        scores = self.class_conv(self.class_features(many, mean))
        distances = bounded_exp(flattened(self.box_conv(self.box_features(many, mean)), 4).float())
        if self.scales is not None:
            distances = distances * self.scales[level]
        rows = decode_distances(centers, distances * stride[:, None])
        boxes = rows.transpose(1, 2).unflatten(2, maps.shape[-2:])
        return _geometric_mean(scores, self.class_alignment(many)), _moved(boxes, self.box_alignment(many))


class _Decomposition(nn.Module):
    """The features of one task: the interactive ones weighed layer by layer, combined by a 1x1 convolution."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        hidden = max(1, width // 8)
        self.attention = nn.Sequential(
            nn.Conv2d(depth * width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, depth, 1), nn.Sigmoid()
        )
        self.combine = _convolution(depth * width, width, 1)

    def forward(self, many: Tensor, mean: Tensor) -> Tensor:
        """From the interactive features (B,N*W,H,W) and their mean (B,N*W,1,1)."""
        weight = self.attention(mean)
        features: Tensor = self.combine(many * weight.repeat_interleave(many.shape[1] // weight.shape[1], dim=1))
        return features


def sampled(maps: Tensor, offsets: Tensor) -> Tensor:
    """Each channel of maps (B,C,H,W) sampled bilinearly at its cells moved by ``offsets`` (B,2C,H,W), in cells.

    The offsets of a channel are that down and that to the right. Outside of the map there are zeros, as in
    ``torchvision.ops.deform_conv2d``.

    Examples:
        >>> import torch
        >>> from ladle.detectors.aligned import sampled
        >>> maps = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
        >>> sampled(maps, torch.tensor([0.5, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2))
        tensor([[[[2.0000, 3.0000],
                  [1.5000, 2.0000]]]])
    """
    height, width = maps.shape[-2:]
    down, across = offsets.unflatten(1, (-1, 2)).unbind(2)  # (B,C,H,W) each
    y = (2 * (down + torch.arange(height, device=maps.device).unsqueeze(1)) + 1) / height - 1
    x = (2 * (across + torch.arange(width, device=maps.device)) + 1) / width - 1
    grid = torch.stack([x, y], dim=-1).flatten(0, 1)
    return F.grid_sample(maps.flatten(0, 1).unsqueeze(1), grid, align_corners=False).view_as(maps)


def _moved(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Boxes (B,4,H,W) with edges taken from other cells; as before where an edge would pass the opposite one."""
    moved = sampled(boxes, offsets.float())
    crossed = (moved[:, :2] > moved[:, 2:]).any(1, keepdim=True)
    return torch.where(crossed, boxes, moved)


def _geometric_mean(scores: Tensor, alignment: Tensor) -> Tensor:
    """The logits of the geometric mean of two probabilities, given their logits, in float32."""
    log = ((F.logsigmoid(scores.float()) + F.logsigmoid(alignment.float())) / 2).clamp(max=_LARGEST_LOG)
    return log - (-log.expm1()).log()


def _convolution(narrow: int, wide: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(narrow, wide, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, group_norm(wide), nn.ReLU())


def _alignment(width: int, depth: int, channels: int) -> nn.Sequential:
    hidden = max(1, width // 4)
    first, last = nn.Conv2d(depth * width, hidden, 1), nn.Conv2d(hidden, channels, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), last)
