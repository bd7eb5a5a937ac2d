"""The criteria of the published detectors, as their papers or the code that reproduces them weigh the losses."""

from __future__ import annotations

from dataclasses import replace

from ladle.criteria.dense import DenseCriterion

__all__ = ["ATSS", "CRITERIA", "FCOS", "GFL", "OTA", "PAA", "RETINANET", "RTMDET", "TOOD", "YOLOX", "with_edges"]

RETINANET = DenseCriterion(box="l1", box_weight=1.0, share="count", quality=None, floor="image")
"""Focal loss and L1 on deltas, each by the number of positives (Lin et al. 2017; mmdetection)."""

FCOS = DenseCriterion(box_weight=1.0, quality="centerness", quality_weight=1.0)
"""Focal loss, GIoU weighed by centerness, and centerness (Tian et al. 2019; GIoU as in the authors' later code)."""

ATSS = DenseCriterion(box_weight=2.0, quality="centerness", quality_weight=1.0, floor="image")
"""FCOS's losses with twice the weight on boxes (Zhang et al. 2020)."""

PAA = DenseCriterion()
"""Focal loss, 1.3 x GIoU weighed by IoU, and 0.5 x IoU (Kim & Lee 2020)."""

OTA = DenseCriterion(box_weight=2.0, share="count")
"""Focal loss, 2 x GIoU and 0.5 x IoU, each by the number of positives (Ge et al. 2021, released configuration)."""

GFL = DenseCriterion(classes="quality", box_weight=2.0, share="score", edges_weight=0.25, quality=None, floor="image")
"""Quality focal loss, 2 x GIoU and 0.25 x distribution focal loss, both weighed by score (Li et al. 2020)."""

TOOD = DenseCriterion(classes="aligned", box_weight=2.0, share="count", quality=None)
"""Task-aligned loss and 2 x GIoU, both by the sum of the soft targets (Feng et al. 2021)."""

YOLOX = DenseCriterion(
    classes="overlap", box="iou2", box_weight=5.0, share="count", quality="objectness", quality_weight=1.0
)
"""Cross entropy with IoU, 5 x (1 - IoU^2) and objectness, each by the number of positives (Ge et al. 2021).

The L1 term of the last 15 epochs is left out.
"""

RTMDET = DenseCriterion(classes="quality", class_count="overlaps", box_weight=2.0, share="quality", quality=None)
"""Quality focal loss and 2 x GIoU weighed by IoU, both by the sum of IoUs (Lyu et al. 2022; mmdetection)."""

CRITERIA: dict[str, DenseCriterion] = {
    "retinanet": RETINANET,
    "fcos": FCOS,
    "atss": ATSS,
    "paa": PAA,
    "ota": OTA,
    "gfl": GFL,
    "tood": TOOD,
    "yolox": YOLOX,
    "rtmdet": RTMDET,
}
"""What each family pays in plain training. AutoAssign is absent: its losses are :class:`BagCriterion`."""


WITHOUT_EDGE_LOSS = ("retinanet", "fcos", "atss")
"""Families whose heads of distributions were published without a loss on these (Zheng et al., CVPR 2022)."""


def with_edges(family: str, criterion: DenseCriterion) -> DenseCriterion:
    """The losses of a family whose head says its boxes as distributions.

    RetinaNet, FCOS and ATSS learn their distributions by the loss of the boxes that are their means, as in the
    generalised heads of Zheng et al. (CVPR 2022), teachers and students alike; there RetinaNet's L1 loss on deltas
    becomes 2 x GIoU. Families for which no such head was published take GFL's loss on distributions as well.
    """
    weight = 0.0 if family in WITHOUT_EDGE_LOSS else criterion.edges_weight or GFL.edges_weight
    edges = replace(criterion, edges_weight=weight)
    return replace(edges, box="giou", box_weight=GFL.box_weight) if criterion.box == "l1" else edges
