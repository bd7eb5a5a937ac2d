"""The records that travel between the parts of Ladle.

Every part is a pure function between these records, so this page is the vocabulary of the whole library.

B images · P priors · G objects (padded) · C classes · K bins · M objects a prior may learn at once.
Boxes are ``x1 y1 x2 y2`` in pixels of the network input, float32. A *prior* is an anchor, a point, a proposal or a
query: a place at which a detector makes one prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, TypeVar

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
    """``tensor`` in float32, or as it is where that is float64: half precision goes up, nothing goes down."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@dataclass(frozen=True)
class Record:
    """A frozen bundle of tensors that moves as one."""

    def map(self: R, change: Callable[[Tensor], Tensor]) -> R:
        """Return a copy with ``change`` applied to every tensor inside, however deep."""
        return replace(self, **{field.name: _map(getattr(self, field.name), change) for field in fields(self)})

    def to(self: R, device: torch.device | str, non_blocking: bool = False) -> R:
        """Move every tensor to ``device``."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def detach(self: R) -> R:
        """Cut every tensor off its graph."""
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
    """The objects of a batch, padded to the fullest image.

    ``crowd`` marks regions that hold an unknown number of objects: they are never learnt, neither as an object nor as
    background. Padding has ``valid`` False and arbitrary boxes.
    """

    boxes: Float[Tensor, "B G 4"]
    labels: Int[Tensor, "B G"]
    valid: Bool[Tensor, "B G"]
    crowd: Bool[Tensor, "B G"]

    @classmethod
    def pad(
        cls, boxes: Sequence[Tensor], labels: Sequence[Tensor], crowd: Sequence[Tensor] | None = None
    ) -> GroundTruth:
        """Stack per-image boxes (n,4), labels (n,) and crowd flags (n,) into one padded record."""
        crowd = crowd if crowd is not None else [torch.zeros(len(b), dtype=torch.bool, device=b.device) for b in boxes]
        most = max((len(b) for b in boxes), default=0)
        device = boxes[0].device if boxes else None
        padded = cls(
            boxes=torch.zeros(len(boxes), most, 4, device=device),
            labels=torch.zeros(len(boxes), most, dtype=torch.long, device=device),
            valid=torch.zeros(len(boxes), most, dtype=torch.bool, device=device),
            crowd=torch.zeros(len(boxes), most, dtype=torch.bool, device=device),
        )
        for row, (b, names, c) in enumerate(zip(boxes, labels, crowd, strict=True)):
            padded.boxes[row, : len(b)] = b
            padded.labels[row, : len(b)] = names
            padded.valid[row, : len(b)] = True
            padded.crowd[row, : len(b)] = c
        return padded

    @property
    def learnable(self) -> Bool[Tensor, "B G"]:
        """The objects a prior may learn: real ones that are no crowd."""
        return self.valid & ~self.crowd

    def at(self, index: Int[Tensor, "B P"]) -> tuple[Float[Tensor, "B P 4"], Int[Tensor, "B P"]]:
        """Boxes and labels of the objects that ``index`` names; zeros in a batch that holds none."""
        if not self.labels.shape[1]:
            return self.boxes.new_zeros(*index.shape, 4), torch.zeros_like(index)
        return self.boxes.gather(1, index.unsqueeze(-1).expand(-1, -1, 4)), self.labels.gather(1, index)


class Grid(NamedTuple):
    """How the priors of a level stand: ``each`` of them centered at ``((column + offset), (row + offset)) * stride``.

    The ``each`` are of the same sizes at every location.
    """

    height: int
    width: int
    stride: float
    offset: float
    each: int = 1


class Pyramid(NamedTuple):
    """What a detector's feature maps are like, finest first: how many channels, and how many pixels a cell spans."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Priors(Record):
    """The places at which a detector predicts, level by level (finest first), row by row inside a level.

    ``valid`` is False where a prior lies in the padding of its image; such priors are left out of every loss.
    ``counts`` says how many priors each level has: it is static, so that per-level work needs no device round trip.
    ``grids`` says where they stand if every level is a regular grid whose valid priors fill a rectangle at its top
    left; assigners then look up the priors near an object instead of searching all. None where priors stand freely.
    ``is_ground_truth`` marks ground-truth boxes that were appended to proposals for training; None where there are
    none.
    """

    boxes: Float[Tensor, "#B P 4"]
    stride: Float[Tensor, " P"]
    level: Int[Tensor, " P"]
    valid: Bool[Tensor, "#B P"]
    counts: tuple[int, ...]
    grids: tuple[Grid, ...] | None = None
    is_ground_truth: Bool[Tensor, " P"] | None = None

    @property
    def centers(self) -> Float[Tensor, "#B P 2"]:
        """The middle of every prior, ``x y`` in pixels."""
        return (self.boxes[..., :2] + self.boxes[..., 2:]) / 2


@dataclass(frozen=True)
class Predictions(Record):
    """What a detector says at its priors.

    ``boxes`` are decoded. ``quality`` are logits of the localization quality (IoU or centerness branch), ``edges`` the
    logits of box-edge distributions; None where the detector has no such branch. ``center_prior`` is what AutoAssign
    learns about each class: the middle x, y and the spread x, y of its priors around an object's center, in strides.
    ``class_boxes`` is a box for every class, of a head that refines each on its own; ``boxes`` then holds that of the
    likeliest one.

    Classes are each on their own (sigmoid), unless they are ``exclusive``: then they share one softmax with background,
    whose logit is 0.
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
        return cls(boxes.new_zeros(batch, boxes.shape[1], classes), boxes, exclusive=True)

    @property
    def log_odds(self) -> Float[Tensor, "B P C"]:
        """The logits of the class probabilities, in float32; those that are not ``exclusive`` are that already."""
        logits = at_least_float32(self.logits)
        if not self.exclusive:
            return logits
        log_chance = logits - F.pad(logits, (0, 1)).logsumexp(-1, keepdim=True)
        # Below 1 by what float32 can tell, so that a class that is certain stays finite.
        return log_chance - (-torch.expm1(log_chance.clamp(max=-1e-7))).log()

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
    """A sparse transport plan from priors to objects.

    Prior p learns object ``objects[b,p,m]`` with strength ``affinity[b,p,m]`` and counts as background with weight
    ``background[b,p]``. Where both are zero the prior is ignored. Hard assigners have M = 1; where their affinity is
    zero ``objects`` is 0 and means nothing.

    For the class of an object it learns a prior is no background at all; ``negative_weight``, if given, says how much
    it is nevertheless (AutoAssign).
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
            objects=torch.where(positive, index, 0).unsqueeze(-1),
            affinity=positive.unsqueeze(-1).float(),
            background=(background & ~positive).float(),
        )

    @classmethod
    def empty(cls, background: Bool[Tensor, "B P"]) -> Assignment:
        """Build the plan in which no prior learns an object."""
        return cls.hard(torch.zeros_like(background, dtype=torch.long), torch.zeros_like(background), background)

    @property
    def positive(self) -> Bool[Tensor, "B P"]:
        """The priors that learn at least one object."""
        return (self.affinity > 0).any(-1)

    @property
    def index(self) -> Int[Tensor, "B P"]:
        """The one object each prior of a hard plan learns; 0 where it learns none."""
        if self.objects.shape[-1] != 1:
            raise ValueError(f"this plan gives each prior {self.objects.shape[-1]} objects; ask for .dense(G) instead")
        return self.objects[..., 0]

    @property
    def weight(self) -> Float[Tensor, "B P"]:
        """How strongly each prior counts as an object, over all its objects."""
        return self.affinity.sum(-1)

    def dense(self, objects: int) -> Float[Tensor, "B P G"]:
        """The plan as a matrix over ``objects`` columns."""
        batch, priors, _ = self.objects.shape
        # One column more keeps the scatter legal in a batch without any object, where index 0 names nobody.
        plan = self.affinity.new_zeros(batch, priors, max(objects, 1))
        return plan.scatter_add(2, self.objects, self.affinity)[..., :objects]


@dataclass(frozen=True)
class Output(Record):
    """What one stage of a detector hands on: its predictions, the priors they were made at, and its features.

    ``sizes`` is the height and width that each image fills of the padded input; None where nothing is padded.
    ``towers`` are, level by level, the maps inside the head's class tower and box tower, where somebody asked for them.
    """

    predictions: Predictions
    priors: Priors
    features: tuple[Float[Tensor, "B _C _H _W"], ...]
    sizes: Int[Tensor, "B 2"] | None = None
    towers: tuple[tuple[Float[Tensor, "B _C _H _W"], Float[Tensor, "B _C _H _W"]], ...] | None = None


@dataclass(frozen=True)
class Batch(Record):
    """A batch of images with their objects, ready for a detector.

    ``images`` are RGB bytes (uint8) or floats in [0, 1]. ``sizes`` is the height and width that the image fills of
    the padded tensor, ``originals`` those of the image on disk; the image is resized without an offset, so a box
    goes back by ``originals / sizes`` alone. ``ids`` are the data set's own.
    """

    images: Tensor
    truth: GroundTruth
    sizes: Int[Tensor, "B 2"]
    originals: Int[Tensor, "B 2"]
    ids: tuple[int | str, ...]


class Term(NamedTuple):
    """A loss before it is normalized: ``total / max(count, floor)``, each summed over images, ranks and nothing else.

    Kept apart so that normalizing happens in one place, after the counts of all ranks are known. ``floor`` keeps a
    batch of empty images from dividing by zero; it adds up over images like the rest.
    """

    total: Float[Tensor, ""]
    count: Float[Tensor, ""]  # type: ignore[assignment]  # tuple.count is of no use on a loss
    floor: Float[Tensor, ""]


@dataclass(frozen=True)
class Detections(Record):
    """The objects found in one image, best first, boxes in that image's own pixels."""

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, " N"]
    labels: Int[Tensor, " N"]
