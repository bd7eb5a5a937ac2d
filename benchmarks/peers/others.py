"""Peers from torchvision, YOLOX, Ultralytics (called from outside through its public class) and transformers."""

from __future__ import annotations

import os
from typing import Any

import torch
from peers.case import Case, Ready, center_form


def torchvision_matcher(case: Case) -> Ready:
    """RetinaNet's assignment, image by image; a rescued prior learns the object it overlaps most itself."""
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    rule, anchors = Matcher(0.5, 0.4, allow_low_quality_matches=True), torch.cat(case.anchors)

    def read(matches: list[torch.Tensor]) -> torch.Tensor:
        match = torch.stack(matches)
        return torch.where(match >= 0, match + 1, torch.where(match == -1, 0, -1))

    return Ready(lambda: [rule(box_iou(boxes, anchors)) for boxes, _ in case.objects], read)


def torchvision_fcos(case: Case) -> Ready:
    """The matching inside FCOS's loss, which is cut off after it; priors are one stride wide there."""
    from torchvision.models.detection.fcos import FCOS

    class Matched(torch.nn.Module):
        def compute_loss(self, targets: Any, outputs: Any, anchors: Any, matched: Any) -> Any:
            return matched

    model = FCOS.__new__(FCOS)
    torch.nn.Module.__init__(model)
    model.center_sampling_radius, model.head = 1.5, Matched()
    points, half = torch.cat(case.points), case.stride[:, None] / 2
    priors = [torch.cat([points - half, points + half], dim=1)] * case.images
    objects = [{"boxes": boxes, "labels": labels} for boxes, labels in case.objects]
    return Ready(
        lambda: FCOS.compute_loss(model, objects, {}, priors, case.counts),
        lambda matched: torch.stack(matched) + 1,
    )


def yolox(case: Case) -> Ready:
    """The head's own ``get_assignments``, image by image."""
    from yolox.models.yolo_head import YOLOXHead

    levels = len(case.strides)
    head = YOLOXHead(case.classes, strides=list(case.strides), in_channels=[256] * levels).to(case.device)
    stride, points = case.stride[None], torch.cat(case.points)
    column, line = points[None, :, 0] / stride - 0.5, points[None, :, 1] / stride - 0.5
    said = center_form(case.boxes)
    objects = [(center_form(boxes), labels) for boxes, labels in case.objects]

    def one(row: int) -> Any:
        boxes, labels = objects[row]
        return head.get_assignments(
            row, len(boxes), len(points), boxes, labels, said[row], stride, column, line,
            case.logits, said, case.quality, None, None,
        )  # fmt: skip

    def read(answers: list[Any]) -> torch.Tensor:
        numbers = torch.zeros(case.logits.shape[:2], dtype=torch.long, device=case.device)
        for row, (_, chosen, _, matched, _) in enumerate(answers):
            numbers[row, chosen] = matched + 1
        return numbers

    return Ready(lambda: [one(row) for row in range(case.images)], read)


def ultralytics(case: Case) -> Ready:
    """Its batched task-aligned assigner with TOOD's numbers; it ranks by CIoU. Scores are handed over ready."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    from ultralytics.utils.tal import TaskAlignedAssigner

    rule = TaskAlignedAssigner(topk=13, num_classes=case.classes, alpha=1.0, beta=6.0, stride=list(case.strides))
    truth, points, scores = case.truth, torch.cat(case.points), case.logits.sigmoid()
    labels, mask = truth.labels.unsqueeze(-1), truth.valid.unsqueeze(-1).float()

    def read(answer: Any) -> torch.Tensor:
        _, _, _, chosen, index = answer
        return torch.where(chosen, index + 1, 0)

    return Ready(lambda: rule(scores, case.boxes, points, labels, truth.boxes, mask), read)


def transformers(case: Case) -> Ready:
    """RT-DETR's matcher with the weights of Deformable DETR."""
    from transformers import RTDetrConfig
    from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher

    weights = {"matcher_class_cost": 2.0, "matcher_bbox_cost": 5.0, "matcher_giou_cost": 2.0}
    rule = RTDetrHungarianMatcher(RTDetrConfig(**weights, matcher_alpha=0.25, matcher_gamma=2.0, use_focal_loss=True))
    boxes, logits = case.queries()
    height, width = case.size
    unit = boxes.new_tensor([width, height, width, height])
    said = {"logits": logits, "pred_boxes": center_form(boxes) / unit}
    objects = [{"class_labels": labels, "boxes": center_form(b) / unit} for b, labels in case.objects]

    def read(pairs: list[Any]) -> torch.Tensor:
        numbers = torch.zeros(logits.shape[:2], dtype=torch.long)
        for row, (queries, matched) in enumerate(pairs):
            numbers[row, queries] = matched + 1
        return numbers

    return Ready(lambda: rule(said, objects), read)
