"""Teachers that are made of the student: its running average, and an auxiliary head on its feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ladle.averaging import move_average
from ladle.detectors import DenseSpec, Detector, DetectorSpec
from ladle.distillers import Head
from ladle.errors import UserError
from ladle.families import network_info
from ladle.networks import NetworkInfo
from ladle.teachers.frozen import FrozenDetector, FrozenHead, Observed
from ladle.teachers.uri import TeacherURI
from ladle.types import Batch, Output, Predictions, Priors, Pyramid

__all__ = ["AuxiliaryTeacher", "AverageTeacher", "StudentTeacher", "auxiliary_info", "teacher_of_student"]

_DECAY, _TAU = 0.999, 2000.0
_DEPTH = 4
_DETACH = 10.0
"""The epochs after which NanoDet-Plus detaches the maps that its auxiliary head is given."""


@runtime_checkable
class StudentTeacher(Protocol):
    """A teacher that is made of the student and changes with it.

    Its ``network`` is registered by the objective, so that it is stored for a resume, and trained unless it is frozen;
    it is not saved with the student. ``learns`` tells whether it has the student's losses under the same assignment.
    """

    network: nn.Module
    learns: bool

    def follow(self, student: nn.Module, epoch: float, step: int) -> None:
        """Called before each step, with the epochs, fractions included, and the steps done so far."""
        ...

    def observe_student(self, batch: Batch, features: Sequence[Tensor]) -> Observed:
        """What it observes in a batch, given the student's feature maps."""
        ...


class AverageTeacher:
    """The exponential moving average of the student as its teacher.

    Before each step it moves towards the student; see :func:`~ladle.averaging.move_average`. It starts as the student.

    Examples:
        >>> from ladle.families import detector_spec
        >>> from ladle.teachers import AverageTeacher, Teacher
        >>> student = detector_spec("paa-tiny", ["cat"]).build()
        >>> teacher = AverageTeacher(student)
        >>> isinstance(teacher, Teacher), teacher.info.name
        (True, 'paa-tiny')
    """

    learns = False

    def __init__(self, student: Detector, decay: float = _DECAY, tau: float = _TAU) -> None:
        self.frozen = FrozenDetector(deepcopy(student), student.spec.classes)
        self.network: nn.Module = _Still(self.frozen.detector)
        self.decay, self.tau, self._step = decay, tau, 1

    @property
    def info(self) -> NetworkInfo:
        """The student's description."""
        return self.frozen.info

    @property
    def pyramid(self) -> Pyramid:
        """Channels and strides of its feature maps."""
        return self.frozen.pyramid

    @property
    def head(self) -> FrozenHead | None:
        """Its last head, for CrossKD."""
        return self.frozen.head

    def to(self, device: torch.device | str) -> AverageTeacher:
        """Move the average to ``device``, in place."""
        self.frozen.to(device)
        return self

    def follow(self, student: nn.Module, epoch: float, step: int) -> None:
        """Move towards the student as it is after ``step - 1`` steps."""
        if step != self._step:
            move_average(self.frozen.detector, student, self.decay, step - 1, self.tau)
            self._step = step

    def observe(self, batch: Batch) -> Observed:
        """Its feature maps of a batch."""
        return self.frozen.observe(batch)

    def observe_student(self, batch: Batch, features: Sequence[Tensor]) -> Observed:
        """Its own feature maps of a batch; the student's are not used."""
        return self.observe(batch)

    def predict_at(
        self,
        seen: Observed,
        priors: Priors,
        stage: int = 0,
        class_agnostic: bool = False,
        tower_depth: int | None = None,
    ) -> Output:
        """The predictions of its stage ``stage`` at ``priors``."""
        return self.frozen.predict_at(seen, priors, stage, class_agnostic, tower_depth)


class _Still(nn.Module):
    """A network that stays in evaluation mode."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def train(self, mode: bool = True) -> _Still:
        """Nothing."""
        return self


class AuxiliaryTeacher:
    """A heavier head on the student's feature maps, in training only: the assign guidance module of NanoDet-Plus.

    It learns with the losses of the student under the same assignment. For ``detach`` epochs its gradient also trains
    the backbone and the neck of the student, then its own weights only. NanoDet-Plus gives it a second neck as well.

    Args:
        student: the spec of the student, which has one dense stage.
        width: channels of its towers; by default twice the student's.
        depth: convolutions of a tower.
        detach: epochs after which its gradient does not reach the student any more.

    Examples:
        >>> from ladle.families import detector_spec
        >>> from ladle.teachers import AuxiliaryTeacher
        >>> teacher = AuxiliaryTeacher(detector_spec("paa-tiny", ["cat"]))
        >>> teacher.network.stage.width, teacher.network.stage.depth
        (96, 4)
    """

    learns = True
    head: Head | None = None
    pyramid = Pyramid((), ())

    def __init__(
        self, student: DetectorSpec, width: int | None = None, depth: int = _DEPTH, detach: float = _DETACH
    ) -> None:
        self.info = auxiliary_info(student)
        self.network: nn.Module = _AuxiliaryHead(student, width, depth)
        self.detach, self.detached = detach, False

    def to(self, device: torch.device | str) -> AuxiliaryTeacher:
        """Move the head to ``device``, in place."""
        self.network.to(device)
        return self

    def follow(self, student: nn.Module, epoch: float, step: int) -> None:
        """Detach the student's maps once ``detach`` epochs are over."""
        self.detached = epoch > self.detach

    def observe(self, batch: Batch) -> Observed:
        """It has no feature maps of its own."""
        raise RuntimeError("an auxiliary head predicts from the student's feature maps: call observe_student")

    def observe_student(self, batch: Batch, features: Sequence[Tensor]) -> Observed:
        """The student's feature maps, without gradient once they are detached."""
        return Observed(tuple(one.detach() if self.detached else one for one in features), batch.sizes)

    def predict_at(
        self,
        seen: Observed,
        priors: Priors,
        stage: int = 0,
        class_agnostic: bool = False,
        tower_depth: int | None = None,
    ) -> Output:
        """Its predictions at the student's grid, with gradient."""
        return Output(self.network(seen.features, priors), priors, (), seen.sizes)


class _AuxiliaryHead(nn.Module):
    def __init__(self, student: DetectorSpec, width: int | None, depth: int) -> None:
        super().__init__()
        head = student.head
        assert isinstance(head, DenseSpec)
        heavy = replace(head, width=2 * head.width if width is None else width, depth=depth, light=None)
        self.widen = nn.Conv2d(head.width, heavy.width, 1)
        self.stage = heavy.build(len(student.classes), student.strides)
        self.to(memory_format=torch.channels_last)

    def forward(self, features: Sequence[Tensor], priors: Priors) -> Predictions:
        predictions, _ = self.stage([F.relu(self.widen(one)) for one in features], priors)
        made: Predictions = predictions
        return made


def auxiliary_info(student: DetectorSpec) -> NetworkInfo:
    """The description of an auxiliary head; raises :class:`UserError` for a student with several stages."""
    if student.regions or not isinstance(student.head, DenseSpec):
        raise UserError(
            f"--teacher auxiliary: {student.name} works in stages, and an auxiliary head needs a dense head; take "
            "--teacher ema, or a student of one stage"
        )
    info = network_info(student)
    stages = tuple(replace(stage, tower_depth=0, tower_width=0) for stage in info.stages)
    return NetworkInfo(f"auxiliary head of {student.name}", info.classes, AuxiliaryTeacher.pyramid, stages)


def teacher_of_student(uri: TeacherURI, student: Detector) -> AverageTeacher | AuxiliaryTeacher:
    """The teacher that ``ema`` or ``auxiliary`` names; raises :class:`UserError` for options that it does not have."""
    if uri.kind == "ema":
        uri.check(("decay", "tau"))
        (decay,), (tau,) = uri.numbers("decay", 1, (_DECAY,)), uri.numbers("tau", 1, (_TAU,))
        if not 0 <= decay < 1 or tau <= 0:
            raise uri.fail("expected ?decay= from 0 to below 1 and ?tau= above 0")
        return AverageTeacher(student, decay, tau)
    uri.check(("width", "depth", "detach"))
    width, depth = (uri.wholes(name) for name in ("width", "depth"))
    (detach,) = uri.numbers("detach", 1, (_DETACH,))
    if any(one is not None and len(one) != 1 for one in (width, depth)) or detach < 0:
        raise uri.fail("expected one number for ?width=, ?depth= and ?detach=, which is 0 or more")
    return AuxiliaryTeacher(student.spec, width[0] if width else None, depth[0] if depth else _DEPTH, detach)
