"""Descriptions of networks in plain values, from which methods are planned: Ladle's networks or any other."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ladle.types import Pyramid

__all__ = ["NetworkInfo", "StageInfo", "prior_mismatches"]


@dataclass(frozen=True)
class StageInfo:
    """One stage of a detector: its priors and its predictions.

    Args:
        classes: number of class scores; 1 for a proposal network.
        priors: the layout of its priors, compared by ``==``; None if it predicts at any given boxes.
        bins: number of bins of the distribution of a box edge; 0 if it predicts none.
        quality: what its quality branch predicts, such as ``"iou"`` or ``"centerness"``; None if there is no branch.
        tower_depth: number of convolutions in each tower of a dense head; 0 if it cannot return its towers' maps.
        tower_width: number of channels of the towers.
    """

    classes: int
    priors: Hashable | None = None
    bins: int = 0
    quality: str | None = None
    tower_depth: int = 0
    tower_width: int = 0


@dataclass(frozen=True)
class NetworkInfo:
    """A network in plain values: enough to decide which methods work for a student and a teacher.

    Args:
        name: its name in messages.
        classes: names of its classes in label order.
        pyramid: channels and strides of its feature maps, finest first.
        stages: its stages in order; empty for a network that only has features.

    Examples:
        >>> from ladle.networks import NetworkInfo, StageInfo
        >>> from ladle.types import Pyramid
        >>> stage = StageInfo(classes=2, priors="points")
        >>> info = NetworkInfo("mine", ("cat", "dog"), Pyramid((64, 64), (8, 16)), (stage,))
        >>> info.stage(3) is info.stages[0]
        True
    """

    name: str
    classes: tuple[str, ...]
    pyramid: Pyramid
    stages: tuple[StageInfo, ...] = ()

    def stage(self, number: int) -> StageInfo:
        """Stage ``number``, or the last one if there are fewer; raises ValueError if there is none."""
        if not self.stages:
            raise ValueError(f"{self.name} has feature maps only, but its predictions are needed")
        return self.stages[min(number, len(self.stages) - 1)]


def prior_mismatches(
    student: NetworkInfo, teacher: NetworkInfo, student_name: str = "the student", teacher_name: str = "the teacher"
) -> list[str]:
    """Why a teacher cannot predict at the priors of a student's first stage: one sentence for each reason.

    The names are those in the sentences.

    Examples:
        >>> from ladle.families import detector_spec, network_info
        >>> from ladle.networks import prior_mismatches
        >>> atss, fcos = (network_info(detector_spec(name, ["cat"])) for name in ("atss-tiny", "fcos-tiny"))
        >>> len(prior_mismatches(atss, atss)), len(prior_mismatches(atss, fcos))
        (0, 1)
    """
    found, ours, theirs = [], student.pyramid.strides, teacher.pyramid.strides
    if ours != theirs:
        found.append(f"{teacher_name} predicts at strides {theirs}, {student_name} at {ours}")
    own, other = student.stage(0), teacher.stage(0)
    if own.priors != other.priors:
        found.append(f"{teacher_name}'s priors are {other.priors}, {student_name}'s {own.priors}")
    elif len(teacher.stages) > len(student.stages) == 1:
        found.append(f"{teacher_name} predicts classes at proposals only")
    return found
