"""A detector of any origin as a teacher."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int

from ladle.distillers import Head
from ladle.networks import NetworkInfo, StageInfo
from ladle.teachers.classes import ClassTable
from ladle.teachers.detections import LEAST_LOGIT, TeacherDetections
from ladle.teachers.placing import place
from ladle.teachers.resampling import resample
from ladle.types import Batch, Output, Predictions, Priors, Pyramid

__all__ = ["Foreign", "ForeignTeacher", "predictions_at"]


@runtime_checkable
class Foreign(Protocol):
    """A detector of any origin: all that it takes to be a teacher.

    Examples:
        >>> import torch
        >>> from ladle.teachers import Foreign, TeacherDetections
        >>> class Mine:
        ...     name = "mine"
        ...     classes = ("cat", "dog")
        ...     about = ("finds a cat in every image",)
        ...     bins = 0
        ...
        ...     def find(self, batch):
        ...         boxes = torch.tensor([[4.0, 4.0, 20.0, 20.0]]).expand(len(batch.images), 1, 4)
        ...         return TeacherDetections.final(boxes, torch.tensor([0.9, 0.0]).expand(len(boxes), 1, 2))
        ...
        ...     def to(self, device):
        ...         return self
        >>> isinstance(Mine(), Foreign)
        True
    """

    @property
    def name(self) -> str:
        """Its name in messages."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes, in the order of its scores."""
        ...

    @property
    def about(self) -> tuple[str, ...]:
        """Lines about how it takes images and what it gives."""
        ...

    @property
    def bins(self) -> int:
        """The number of bins of its distributions of box edges; 0 if it gives none."""
        ...

    def find(self, batch: Batch) -> TeacherDetections:
        """What it finds in a batch of images, bytes or floats in [0, 1]; without gradient."""
        ...

    def to(self, device: torch.device | str) -> Foreign:
        """Move to a device, in place."""
        ...


class ForeignTeacher:
    """A detector of any origin as a teacher: what it finds is moved to the student's priors.

    Dense predictions at its own places are re-sampled, see :func:`~ladle.teachers.resample`; final boxes are placed,
    see :func:`~ladle.teachers.place`, and so are dense predictions where the student's priors have no grid, such as
    proposals. It has no feature maps.

    Examples:
        >>> from ladle.teachers import ForeignTeacher, Teacher, match_classes
        >>> class Mine:
        ...     name, classes, about, bins = "mine", ("cat", "dog"), (), 0
        >>> teacher = ForeignTeacher(Mine(), match_classes(Mine.classes, ["dog"]))
        >>> isinstance(teacher, Teacher), teacher.info.classes
        (True, ('dog',))
    """

    head: Head | None = None
    pyramid = Pyramid((), ())

    def __init__(self, detector: Foreign, table: ClassTable) -> None:
        """Take a detector and the table that matches its classes with the student's."""
        self.detector, self.table = detector, table
        stage = StageInfo(len(table.classes), None, detector.bins)
        # Boxes can be placed at proposals too, so it serves students with region heads: as if it had two stages.
        self.info = NetworkInfo(detector.name, table.classes, self.pyramid, (stage, stage))

    def to(self, device: torch.device | str) -> ForeignTeacher:
        """Move the detector to ``device``, in place."""
        self.detector.to(device)
        return self

    @torch.no_grad()
    def observe(self, batch: Batch) -> tuple[TeacherDetections, torch.Tensor]:
        """What it finds in a batch, with the student's classes, and the sizes of the images; always in float32."""
        with torch.autocast(batch.images.device.type, enabled=False):
            found = self.detector.find(batch)
        return found.replaced(logits=self.table.columns_of(found.logits, LEAST_LOGIT)), batch.sizes

    @torch.no_grad()
    def predict_at(
        self,
        seen: tuple[TeacherDetections, torch.Tensor],
        priors: Priors,
        stage: int = 0,
        class_agnostic: bool = False,
        tower_depth: int | None = None,
    ) -> Output:
        """What it finds as predictions at ``priors``, the same for every stage."""
        found, sizes = seen
        return Output(predictions_at(found, priors, sizes, class_agnostic), priors, (), sizes)


def predictions_at(
    found: TeacherDetections, priors: Priors, sizes: Int[torch.Tensor, "B 2"], class_agnostic: bool = False
) -> Predictions:
    """Re-sample dense predictions to a student's grids; place final boxes at its priors.

    Where these have no grid, dense predictions are first reduced to final boxes in images of ``sizes``.
    """
    if class_agnostic:
        found = found.replaced(logits=found.logits.amax(-1, keepdim=True))
    if found.grids is not None and priors.grids is not None:
        return resample(found, priors)
    return place(found if found.grids is None else found.suppressed(sizes), priors)
