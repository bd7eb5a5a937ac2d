"""Label assignment: which prediction learns which object.

An assigner is a pure function ``(predictions, priors, truth) -> Assignment``. It can be called with the predictions of
any network. Called with the teacher's predictions, it distills the teacher's label assignment into the student.
"""

from ladle.assigners.atss import ATSS
from ladle.assigners.auto_assign import AutoAssign
from ladle.assigners.cost_selector import CostSelector, Selection
from ladle.assigners.dynamic_soft_label import DynamicSoftLabel
from ladle.assigners.fcos import FCOS
from ladle.assigners.hungarian import Hungarian
from ladle.assigners.max_iou import MaxIoU
from ladle.assigners.ota import OTA
from ladle.assigners.paa import PAA
from ladle.assigners.protocol import (
    Assigner,
    Evidence,
    EvidenceAssigner,
    OverlapAssigner,
    PointAssigner,
    SoftAssigner,
    uses_predictions,
)
from ladle.assigners.pseudo_iou import PseudoIoU
from ladle.assigners.sampling import RandomSampler, keep_sampled
from ladle.assigners.sim_ota import SimOTA
from ladle.assigners.task_aligned import TaskAligned
from ladle.similarity import SimD

__all__ = [
    "ATSS",
    "FCOS",
    "OTA",
    "PAA",
    "Assigner",
    "AutoAssign",
    "CostSelector",
    "DynamicSoftLabel",
    "Evidence",
    "EvidenceAssigner",
    "Hungarian",
    "MaxIoU",
    "OverlapAssigner",
    "PointAssigner",
    "PseudoIoU",
    "RandomSampler",
    "Selection",
    "SimD",
    "SimOTA",
    "SoftAssigner",
    "TaskAligned",
    "keep_sampled",
    "uses_predictions",
]
