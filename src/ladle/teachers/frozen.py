"""A trained detector that teaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from ladle.detectors import DenseStage, Detector, DetectorSpec
from ladle.errors import UserError
from ladle.types import Output, Predictions, Priors, Pyramid

__all__ = ["FrozenDetector", "FrozenHead", "Teacher", "differences"]


@runtime_checkable
class Teacher(Protocol):
    """Anything that can say what it would predict at the student's priors."""

    def __call__(
        self, images: Tensor, sizes: Tensor | None, priors: Sequence[Priors], inside: int | None = None
    ) -> list[Output]:
        """One output per stage of the student, without gradient, classes in the student's order.

        ``inside`` asks for what the towers of a dense head hold after so many convolutions, see ``CrossKD``.
        """
        ...

    def to(self, device: torch.device | str) -> Teacher:
        """Move to a device."""
        ...


class FrozenDetector:
    """A detector that no longer learns.

    Deliberately no ``nn.Module``: an objective that holds it neither trains it, nor saves it, nor hands it to an
    optimizer or to data-parallel wrappers, and ``train()`` never reaches it. Its classes are matched to the student's
    by name.

    Without ``classes`` it shows its feature maps and says nothing at any prior: such a teacher may have other classes,
    strides and anchors than its student.
    """

    def __init__(self, detector: Detector, classes: Sequence[str] | None) -> None:
        """Freeze ``detector`` and order its classes as ``classes``; raises UserError where it lacks one."""
        known = detector.spec.classes
        lacking = [name for name in classes or () if name not in known]
        if lacking:
            raise UserError(
                f"the teacher does not know {', '.join(map(repr, lacking))}: it knows {', '.join(known)}; train a "
                "teacher on the student's classes"
            )
        self.detector = detector.requires_grad_(False).eval()
        self.silent = classes is None
        self.order = torch.tensor([known.index(name) for name in classes or known])
        self._same_order = self.order.tolist() == list(range(len(known)))

    def to(self, device: torch.device | str) -> FrozenDetector:
        """Move the detector to ``device``, in place."""
        self.detector.to(device)
        self.order = self.order.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self, images: Tensor, sizes: Tensor | None, priors: Sequence[Priors], inside: int | None = None
    ) -> list[Output]:
        """What the detector says at ``priors``."""
        if self.silent:
            features = self.look(images)
            return [_nothing(features, sizes, len(self.order)) for _ in priors]
        outputs: list[Output] = self.detector(images, sizes, priors=priors, inside=inside)
        return [replace(output, predictions=self.reorder(output.predictions)) for output in outputs]

    @torch.no_grad()
    def look(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of images."""
        return self.detector.look(images)

    @torch.no_grad()
    def say(
        self, number: int, features: tuple[Tensor, ...], sizes: Tensor | None, priors: Priors, classes: int
    ) -> Output:
        """What its stage ``number``, or its last if it has fewer, says at ``priors``, to a student of ``classes``.

        To a proposal network, which knows one class, a detector in one stage says how likely any object is.
        """
        if self.silent:
            return _nothing(features, sizes, classes)
        chain = self.detector.chain
        said, _ = chain[min(number, len(chain) - 1)](features, priors)
        if number == 0 and said.logits.shape[-1] != classes:
            said = replace(said, logits=said.logits.amax(-1, keepdim=True))
        return Output(said if number == 0 and classes == 1 else self.reorder(said), priors, features, sizes)

    @property
    def pyramid(self) -> Pyramid:
        """What its feature maps are like."""
        return self.detector.pyramid

    @property
    def head(self) -> FrozenHead | None:
        """Its last head, to be entered half-way; None if it says nothing or has none that is dense."""
        head = self.detector.head
        return None if self.silent or head is None else FrozenHead(self, head)

    def reorder(self, said: Predictions) -> Predictions:
        """Predictions with the classes in the student's order; where they are exclusive, others are background."""
        if self._same_order:
            return said
        logits = said.logits.index_select(-1, self.order)
        if said.exclusive:
            others = torch.ones(said.logits.shape[-1], dtype=torch.bool, device=logits.device)
            others[self.order] = False
            rest = said.logits.masked_fill(~others, -torch.inf)
            logits = logits - F.pad(rest, (0, 1)).logsumexp(-1, keepdim=True)
        prior = said.center_prior.index_select(1, self.order) if said.center_prior is not None else None
        boxes = said.class_boxes.index_select(2, self.order) if said.class_boxes is not None else None
        return replace(said, logits=logits, center_prior=prior, class_boxes=boxes)


class FrozenHead:
    """The last head of a frozen detector, which answers in the student's order of classes."""

    def __init__(self, teacher: FrozenDetector, head: DenseStage) -> None:
        self._teacher, self._head = teacher, head
        self.depth, self.width = head.depth, head.width

    def finish(self, towers: Sequence[tuple[Tensor, Tensor]], depth: int, priors: Priors) -> Predictions:
        """From the towers' maps after ``depth`` convolutions to predictions, with gradient for the maps."""
        return self._teacher.reorder(self._head.finish(towers, depth, priors))


def _nothing(features: tuple[Tensor, ...], sizes: Tensor | None, classes: int) -> Output:
    """The output of a teacher that only shows its features: no prior, hence no prediction."""
    batch, device = len(features[0]), features[0].device
    boxes = torch.zeros(batch, 0, 4, device=device)
    none = torch.zeros(0, device=device)
    priors = Priors(boxes[:1], none, none.long(), boxes[:1, :, 0].bool(), (0,) * len(features))
    return Output(Predictions(torch.zeros(batch, 0, classes, device=device), boxes), priors, features, sizes)


def differences(student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
    """What keeps a teacher's predictions from lining up with the student's priors, a sentence each; ideally none."""
    found = []
    if student.strides != teacher.strides:
        found.append(f"the teacher predicts at strides {teacher.strides}, the student at {student.strides}")
    if student.head.anchors != teacher.head.anchors:
        found.append(f"the teacher's priors are {teacher.head.anchors}, the student's {student.head.anchors}")
    return found
