"""The records that all parts of Ladle exchange.

Assigners, criteria and distillers are pure functions from records to records. Dimensions are named alike everywhere:

B images · P priors · G objects (padded) · C classes · K bins · M objects that a prior may learn at once.
Boxes are ``x1 y1 x2 y2`` in pixels of the network input, float32. A *prior* is an anchor, a point, a proposal or a
query: a place at which a detector makes one prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "Assignment",
    "Batch",
    "Detections",
    "Grid",
    "GroundTruth",
    "Output",
    "Predictions",
    "Priors",
    "Pyramid",
    "Record",
    "Term",
    "at_least_float32",
]

R = TypeVar("R", bound="Record")


def at_least_float32(tensor: Tensor) -> Tensor:
    """Cast half precision to float32; float32 and float64 stay as they are."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass(frozen=True)
class Record:
    """A frozen group of tensors that are moved and detached together."""

    _names: ClassVar[tuple[str, ...]] = ()
    """The names of the fields; ``dataclasses.fields`` cannot be traced by every ``torch.compile``."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._names = tuple(cls.__annotations__)

    def map(self: R, change: Callable[[Tensor], Tensor]) -> R:
        """Return a copy with ``change`` applied to every tensor, also in nested records and tuples."""
        return type(self)(**{name: _map(getattr(self, name), change) for name in self._names})

    def replaced(self: R, **changes: Any) -> R:
        """Return a copy with other fields; ``dataclasses.replace`` that every ``torch.compile`` can trace."""
        return type(self)(**{name: changes.get(name, getattr(self, name)) for name in self._names})

    def to(self: R, device: torch.device | str, non_blocking: bool = False) -> R:
        """Return a copy with every tensor on ``device``."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: R) -> R:
        """Return a copy in page-locked memory, from which a GPU copies without waiting; torch's loader calls it."""
        return self.map(lambda tensor: tensor.pin_memory())

    def detach(self: R) -> R:
        """Return a copy with every tensor detached from its autograd graph."""
        return self.map(Tensor.detach)


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Record):
        return value.map(change)
    if type(value) is tuple:
        return tuple(_map(item, change) for item in value)
    return value


@dataclass(frozen=True)
class GroundTruth(Record):
    """The objects of a batch, padded to the largest number of objects in an image.

    ``crowd`` marks regions with an unknown number of objects; they are trained neither as objects nor as background.
    Padding has ``valid`` False and arbitrary boxes and labels.
    """

    boxes: Float[Tensor, "B G 4"]
    labels: Int[Tensor, "B G"]
    valid: Bool[Tensor, "B G"]
    crowd: Bool[Tensor, "B G"]

    @classmethod
    def pad(
        cls,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        crowd: Sequence[Tensor] | None = None,
        multiple: int = 1,
    ) -> GroundTruth:
        """Stack per-image boxes (n,4), labels (n,) and crowd flags (n,), padded to a ``multiple`` of objects."""
        crowd = crowd if crowd is not None else [torch.zeros(len(b), dtype=torch.bool, device=b.device) for b in boxes]
        most = -(-max((len(b) for b in boxes), default=0) // multiple) * multiple
        device = boxes[0].device if boxes else None
        padded = cls(
            boxes=torch.zeros(len(boxes), most, 4, device=device),
            labels=torch.zeros(len(boxes), most, dtype=torch.long, device=device),
            valid=torch.zeros(len(boxes), most, dtype=torch.bool, device=device),
            crowd=torch.zeros(len(boxes), most, dtype=torch.bool, device=device),
        )
        for row, (b, label, c) in enumerate(zip(boxes, labels, crowd, strict=True)):
            padded.boxes[row, : len(b)] = b
            padded.labels[row, : len(b)] = label
            padded.valid[row, : len(b)] = True
            padded.crowd[row, : len(b)] = c
        return padded

    def one_class(self) -> GroundTruth:
        """The same objects with label 0, for a stage that does not tell classes apart."""
        return self.replaced(labels=torch.zeros_like(self.labels))

    @property
    def learnable(self) -> Bool[Tensor, "B G"]:
        """The objects that a prior may learn: valid and not a crowd region."""
        return self.valid & ~self.crowd

    def at(self, index: Int[Tensor, "B P"]) -> tuple[Float[Tensor, "B P 4"], Int[Tensor, "B P"]]:
        """Gather the boxes and labels of the objects ``index``; zeros in a batch without objects."""
        if not self.labels.shape[1]:
            return self.boxes.new_zeros(*index.shape, 4), torch.zeros_like(index)
        return self.boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)), self.labels.gather(1, index)


class Grid(NamedTuple):
    """The regular grid of a level: ``each`` priors centered at ``(column + offset, row + offset) * stride`` pixels.

    The ``each`` priors have the same sizes at every location.
    """

    height: int
    width: int
    stride: float
    offset: float
    each: int = 1


class Pyramid(NamedTuple):
    """The number of channels and the stride, in pixels, of each of a detector's feature maps, finest first."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Priors(Record):
    """The places at which a detector predicts, level by level (finest first), row by row within a level.

    Attributes:
        boxes: the box of each prior; the first dimension is 1 if all images have the same priors.
        stride: the stride of its level in pixels.
        level: the number of its level.
        valid: False where a prior lies in the padding of its image; such priors take part in no loss.
        counts: number of priors on each level, as Python integers, so that work per level needs no device sync.
        grids: the grid of each level, if every level is a regular grid whose valid priors fill a rectangle at its top
            left. Assigners then compute which priors lie near an object instead of testing all. None for other priors,
            such as proposals.
        is_ground_truth: True for ground-truth boxes appended to the proposals during training; None without any.
    """

    boxes: Float[Tensor, "#B P 4"]
    stride: Float[Tensor, " P"]
    level: Int[Tensor, " P"]
    valid: Bool[Tensor, "#B P"]
    counts: tuple[int, ...]
    grids: tuple[Grid, ...] | None = None
    is_ground_truth: Bool[Tensor, "#B P"] | None = None

    @property
    def centers(self) -> Float[Tensor, "#B P 2"]:
        """The center of every prior, ``x y`` in pixels."""
        return (self.boxes[..., :2] + self.boxes[..., 2:]) / 2


@dataclass(frozen=True)
class Predictions(Record):
    """A detector's predictions at its priors.

    Attributes:
        logits: class logits.
        boxes: decoded boxes.
        quality: logits of the localization quality (IoU or centerness branch); None without such a branch.
        edges: logits of the distributions of the four box edges over K bins; None without such a branch.
        center_prior: AutoAssign's learnt mean x, y and standard deviation x, y of each class's priors around an
            object's center, in strides; None in other detectors.
        class_boxes: one box per class, of a head that regresses them separately. ``boxes`` then holds the box of the
            most probable class.
        exclusive: whether the classes share one softmax with background, whose logit is 0. Otherwise each class has its
            own sigmoid.
    """

    logits: Float[Tensor, "B P C"]
    boxes: Float[Tensor, "B P 4"]
    quality: Float[Tensor, "B P"] | None = None
    edges: Float[Tensor, "B P 4 K"] | None = None
    center_prior: Float[Tensor, "B C 4"] | None = None
    class_boxes: Float[Tensor, "B P C 4"] | None = None
    exclusive: bool = False

    @classmethod
    def placeholder(cls, priors: Priors, classes: int, batch: int) -> Predictions:
        """Placeholder predictions for unscored proposals: zero logits, boxes equal to the priors."""
        boxes = priors.boxes.expand(batch, -1, -1)
        # One zero for all, since there may be many priors.
        return cls(boxes.new_zeros(1).expand(batch, boxes.shape[1], classes), boxes, exclusive=True)

    def boxes_of(self, label: Int[Tensor, "B P"]) -> Float[Tensor, "B P 4"]:
        """The box of a class at each prior, in float32 at least; the only one unless each class has its own."""
        if self.class_boxes is None:
            return at_least_float32(self.boxes)
        place = label[..., None, None].expand(-1, -1, 1, 4)
        return at_least_float32(self.class_boxes).gather(2, place)[:, :, 0]

    @property
    def log_odds(self) -> Float[Tensor, "B P C"]:
        """The log-odds of each class probability, in float32; the logits themselves unless ``exclusive``."""
        logits = at_least_float32(self.logits)
        if not self.exclusive:
            return logits
        log_prob = logits - F.pad(logits, (0, 1)).logsumexp(-1, keepdim=True)
        # log(p / (1 - p)) with p kept below 1 by about one float32 step, so that a certain class stays finite.
        return log_prob - (-torch.expm1(log_prob.clamp(max=-1e-7))).log()

    @property
    def scores(self) -> Float[Tensor, "B P C"]:
        """Class probabilities, in float32."""
        return (
            F.pad(at_least_float32(self.logits), (0, 1)).softmax(-1)[..., :-1]
            if self.exclusive
            else self.log_odds.sigmoid()
        )


@dataclass(frozen=True)
class Assignment(Record):
    """Which prior learns which object, as a sparse plan.

    Prior p learns object ``objects[b,p,m]`` with strength ``affinity[b,p,m]`` and counts as background with weight
    ``background[b,p]``. If both are zero, the prior is ignored. Hard assigners have M = 1. Where an affinity is zero,
    the entry of ``objects`` has no meaning (hard assigners write 0).

    A prior is not trained as background for the class of an object that it learns. ``negative_weight``, if given, is
    the weight with which it is nevertheless (AutoAssign).
    """

    objects: Int[Tensor, "B P M"]
    affinity: Float[Tensor, "B P M"]
    background: Float[Tensor, "B P"]
    negative_weight: Float[Tensor, "B P M"] | None = None

    @classmethod
    def hard(
        cls, index: Int[Tensor, "B P"], positive: Bool[Tensor, "B P"], background: Bool[Tensor, "B P"]
    ) -> Assignment:
        """Build the plan in which each prior learns one object fully, is background, or is ignored."""
        return cls(
            objects=(index * positive).unsqueeze(-1),
            affinity=positive.unsqueeze(-1).float(),
            background=(background > positive).float(),
        )

    @classmethod
    def empty(cls, background: Bool[Tensor, "B P"]) -> Assignment:
        """Build the plan in which no prior learns an object."""
        return cls.hard(torch.zeros_like(background, dtype=torch.long), torch.zeros_like(background), background)

    def limited_to(self, free: Bool[Tensor, "B P"]) -> Assignment:
        """The plan in which only priors that are ``free`` may be background."""
        return Assignment(self.objects, self.affinity, self.background * free, self.negative_weight)

    @property
    def positive(self) -> Bool[Tensor, "B P"]:
        """The priors that learn at least one object."""
        return (self.affinity > 0).any(-1)

    @property
    def index(self) -> Int[Tensor, "B P"]:
        """The object that each prior of a hard plan learns; 0 where it learns none.

        Raises:
            ValueError: for a plan in which a prior may learn several objects.
        """
        if self.objects.shape[-1] != 1:
            raise ValueError(f"this plan gives each prior {self.objects.shape[-1]} objects; use .dense(G) instead")
        return self.objects[..., 0]

    @property
    def weight(self) -> Float[Tensor, "B P"]:
        """The sum of each prior's affinities over its objects."""
        return self.affinity.sum(-1)

    def dense(self, objects: int) -> Float[Tensor, "B P G"]:
        """The affinities as a dense matrix with one column for each of G = ``objects`` objects."""
        batch, priors, _ = self.objects.shape
        # At least one column keeps the scatter valid in a batch without objects, where every index is 0.
        plan = self.affinity.new_zeros(batch, priors, max(objects, 1))
        return plan.scatter_add(2, self.objects, self.affinity)[..., :objects]


@dataclass(frozen=True)
class Output(Record):
    """The output of one stage of a detector: its predictions, their priors, and the feature maps.

    ``sizes`` is the height and width, in pixels, of each image within the padded input; None without padding.
    ``towers`` are the intermediate maps of the head's class tower and box tower on each level, if they were requested.
    """

    predictions: Predictions
    priors: Priors
    features: tuple[Float[Tensor, "B _C _H _W"], ...]
    sizes: Int[Tensor, "B 2"] | None = None
    towers: tuple[tuple[Float[Tensor, "B _C _H _W"], Float[Tensor, "B _C _H _W"]], ...] | None = None


@dataclass(frozen=True)
class Batch(Record):
    """A batch of padded images with their objects.

    ``images`` (B, 3, H, W) are RGB, uint8 or float in [0, 1]. ``sizes`` is the height and width of each image within
    the padded tensor, ``originals`` that of the image on disk. Images are resized without an offset, so multiplying by
    ``originals / sizes`` converts a box to pixels of the file. ``ids`` are the image ids of the data set.
    ``predicted`` are recorded boxes of a teacher in these views, with the numbers of the predictions as labels.
    """

    images: Tensor
    truth: GroundTruth
    sizes: Int[Tensor, "B 2"]
    originals: Int[Tensor, "B 2"]
    ids: tuple[int | str, ...]
    predicted: GroundTruth | None = None


class Term(NamedTuple):
    """A loss before normalization; its value is ``total / max(count, floor)``.

    The three numbers are summed over images and ranks separately, and divided in one place once the counts of all ranks
    are known. ``floor`` is a lower bound of the denominator, for batches without objects; it is summed like the others.
    """

    total: Float[Tensor, ""]
    count: Float[Tensor, ""]  # type: ignore[assignment]  # tuple.count is of no use on a loss
    floor: Float[Tensor, ""]


@dataclass(frozen=True)
class Detections(Record):
    """The objects detected in one image, by descending score; boxes are in pixels of the original image."""

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, " N"]
    labels: Int[Tensor, " N"]
