"""A trained detector as a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ladle.detectors import DenseStage, Detector
from ladle.errors import UserError
from ladle.families import network_info
from ladle.networks import NetworkInfo
from ladle.types import Batch, Output, Predictions, Priors, Pyramid

__all__ = ["FrozenDetector", "FrozenHead", "without_predictions"]


class FrozenDetector:
    """A trained detector as a teacher: frozen and in evaluation mode.

    It is not an ``nn.Module``, so an objective that holds it does not train or save it, pass it to an optimizer or a
    data-parallel wrapper, or change it by ``train()``. Its classes are matched to the student's by name.

    With ``classes=None`` it returns feature maps and no predictions: such a teacher may have other classes, strides and
    anchors than its student.

    Examples:
        >>> from ladle.families import detector_spec
        >>> from ladle.teachers import FrozenDetector
        >>> detector = detector_spec("paa-tiny", ["dog", "cat"]).build()
        >>> FrozenDetector(detector, ["cat", "dog"]).info.classes
        ('cat', 'dog')
    """

    def __init__(self, detector: Detector, classes: Sequence[str] | None) -> None:
        """Freeze ``detector`` and reorder its classes to ``classes``; raises UserError if one is missing."""
        known = detector.spec.classes
        lacking = [name for name in classes or () if name not in known]
        if lacking:
            raise UserError(
                f"the teacher does not know {', '.join(map(repr, lacking))}: it knows {', '.join(known)}; train a "
                "teacher on the student's classes"
            )
        self.detector = detector.requires_grad_(False).eval()
        self.features_only = classes is None
        self.order = torch.tensor([known.index(name) for name in classes or known])
        self._same_order = self.order.tolist() == list(range(len(known)))
        info = network_info(detector.spec)
        self.info: NetworkInfo = info if classes is None else replace(info, classes=tuple(classes))

    def to(self, device: torch.device | str) -> FrozenDetector:
        """Move the detector to ``device``, in place."""
        self.detector.to(device)
        self.order = self.order.to(device)
        return self

    @property
    def pyramid(self) -> Pyramid:
        """Channels and strides of its feature maps."""
        return self.detector.pyramid

    @property
    def head(self) -> FrozenHead | None:
        """Its last head, for CrossKD; None if it is not dense, or if the teacher has features only."""
        head = self.detector.head
        return None if self.features_only or head is None else FrozenHead(self, head)

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observed:
        """Its feature maps of a batch, and the sizes of the images."""
        return Observed(self.detector.extract_features(batch.images), batch.sizes)

    @torch.no_grad()
    def predict_at(
        self,
        seen: Observed,
        priors: Priors,
        stage: int = 0,
        class_agnostic: bool = False,
        tower_depth: int | None = None,
    ) -> Output:
        """The predictions of its stage ``stage``, or its last one if it has fewer, at ``priors``.

        With ``class_agnostic``, for a student's proposal network, the one score is the highest class score.
        """
        features, sizes = seen
        if self.features_only:
            return without_predictions(features, sizes, 1 if class_agnostic else len(self.order))
        chain = self.detector.chain
        predictions, towers = chain[min(stage, len(chain) - 1)](features, priors, tower_depth)
        if class_agnostic:
            predictions = replace(predictions, logits=predictions.logits.amax(-1, keepdim=True))
        else:
            predictions = self.reorder(predictions)
        return Output(predictions, priors, features, sizes, towers)

    def reorder(self, predictions: Predictions) -> Predictions:
        """The predictions with classes in the student's order; other exclusive classes are added to background."""
        if self._same_order:
            return predictions
        logits = predictions.logits.index_select(-1, self.order)
        if predictions.exclusive:
            others = torch.ones(predictions.logits.shape[-1], dtype=torch.bool, device=logits.device)
            others[self.order] = False
            rest = predictions.logits.masked_fill(~others, -torch.inf)
            logits = logits - F.pad(rest, (0, 1)).logsumexp(-1, keepdim=True)
        prior, boxes = predictions.center_prior, predictions.class_boxes
        prior = prior.index_select(1, self.order) if prior is not None else None
        boxes = boxes.index_select(2, self.order) if boxes is not None else None
        return replace(predictions, logits=logits, center_prior=prior, class_boxes=boxes)


class Observed(NamedTuple):
    """The observation of a frozen detector: feature maps, and the height and width of each image (B,2)."""

    features: tuple[Tensor, ...]
    sizes: Tensor | None


class FrozenHead:
    """The last head of a frozen detector, with classes in the student's order."""

    def __init__(self, teacher: FrozenDetector, head: DenseStage) -> None:
        self._teacher, self._head = teacher, head
        self.depth, self.width = head.depth, head.width

    def predict_from(self, towers: Sequence[tuple[Tensor, Tensor]], depth: int, priors: Priors) -> Predictions:
        """Predictions from the towers' maps after ``depth`` convolutions, with gradient for the maps."""
        return self._teacher.reorder(self._head.predict_from(towers, depth, priors))


def without_predictions(features: tuple[Tensor, ...], sizes: Tensor | None, classes: int) -> Output:
    """The output of a teacher with features only: it has no priors and no predictions."""
    batch, device = len(features[0]), features[0].device
    boxes = torch.zeros(batch, 0, 4, device=device)
    none = torch.zeros(0, device=device)
    priors = Priors(boxes[:1], none, none.long(), boxes[:1, :, 0].bool(), (0,) * len(features))
    return Output(Predictions(torch.zeros(batch, 0, classes, device=device), boxes), priors, features, sizes)
