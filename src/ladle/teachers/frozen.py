"""A trained detector that teaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ladle.detectors import Detector, DetectorSpec
from ladle.errors import UserError
from ladle.types import Output, Priors

__all__ = ["FrozenDetector", "Teacher", "differences"]


@runtime_checkable
class Teacher(Protocol):
    """Anything that can say what it would predict at the student's priors."""

    def __call__(self, images: Tensor, sizes: Tensor | None, priors: Sequence[Priors]) -> list[Output]:
        """One output per stage of the student, without gradient, classes in the student's order."""
        ...

    def to(self, device: torch.device | str) -> Teacher:
        """Move to a device."""
        ...


class FrozenDetector:
    """A detector that no longer learns.

    Deliberately no ``nn.Module``: an objective that holds it neither trains it, nor saves it, nor hands it to an
    optimizer or to data-parallel wrappers, and ``train()`` never reaches it. Its classes are matched to the student's
    by name.
    """

    def __init__(self, detector: Detector, classes: Sequence[str]) -> None:
        """Freeze ``detector`` and order its classes as ``classes``; raises UserError where it lacks one."""
        lacking = [name for name in classes if name not in detector.spec.classes]
        if lacking:
            raise UserError(
                f"the teacher does not know {', '.join(map(repr, lacking))}: it knows "
                f"{', '.join(detector.spec.classes)}; train a teacher on the student's classes"
            )
        self.detector = detector.requires_grad_(False).eval()
        self.order = torch.tensor([detector.spec.classes.index(name) for name in classes])
        self._same_order = self.order.tolist() == list(range(len(detector.spec.classes)))

    def to(self, device: torch.device | str) -> FrozenDetector:
        """Move the detector to ``device``, in place."""
        self.detector.to(device)
        self.order = self.order.to(device)
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor, sizes: Tensor | None, priors: Sequence[Priors]) -> list[Output]:
        """What the detector says at ``priors``."""
        outputs: list[Output] = self.detector(images, sizes, priors=priors)
        return outputs if self._same_order else [self._reorder(output) for output in outputs]

    def _reorder(self, output: Output) -> Output:
        said = output.predictions
        prior = said.center_prior.index_select(1, self.order) if said.center_prior is not None else None
        said = replace(said, logits=said.logits.index_select(-1, self.order), center_prior=prior)
        return replace(output, predictions=said)


def differences(student: DetectorSpec, teacher: DetectorSpec) -> list[str]:
    """What keeps a teacher's predictions from lining up with the student's priors, a sentence each; ideally none."""
    found = []
    if student.strides != teacher.strides:
        found.append(f"the teacher predicts at strides {teacher.strides}, the student at {student.strides}")
    if student.head.anchors != teacher.head.anchors:
        found.append(f"the teacher's priors are {teacher.head.anchors}, the student's {student.head.anchors}")
    return found
