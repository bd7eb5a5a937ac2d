"""mmdetection 3.3 and its heads in their published configurations.

mmdetection asserts an old mmcv and imports its compiled operators although no assigner uses them. Both are stood in
for before the import, nothing on disk is changed, and an operator that is called all the same raises.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any

import torch
from peers.case import Case, Ready

FOCAL = {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0}
TOWER = {"in_channels": 256, "stacked_convs": 4, "feat_channels": 256}
BCE = {"type": "CrossEntropyLoss", "use_sigmoid": True}


class _NoOperators(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def absent(*_: Any, **__: Any) -> None:
            raise RuntimeError(f"mmcv's operator {name} is not built here")

        return absent


def _mmdet() -> tuple[Any, Any]:
    import mmcv

    try:
        import mmcv._ext
    except ImportError:
        operators = _NoOperators("mmcv._ext")
        operators.__spec__ = importlib.machinery.ModuleSpec("mmcv._ext", None)
        sys.modules["mmcv._ext"] = operators
    if mmcv.__version__ >= "2.2":
        mmcv.__version__ = "2.1.0"
    import mmdet.models  # noqa: F401  (fills the registries)
    from mmdet.models.losses import focal_loss

    # On a GPU mmdetection calls mmcv's compiled operator; its own function in PyTorch computes the same.
    focal_loss.sigmoid_focal_loss = _python_focal
    from mmdet.registry import MODELS, TASK_UTILS

    return MODELS, TASK_UTILS


def _python_focal(
    logits: Any, target: Any, weight: Any = None, gamma: float = 2.0, alpha: float = 0.25,
    reduction: str = "mean", avg_factor: Any = None,
) -> Any:  # fmt: skip
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

    classes = logits.size(1)
    hot = torch.nn.functional.one_hot(target, num_classes=classes + 1)[:, :classes]
    return py_sigmoid_focal_loss(logits, hot, weight, gamma, alpha, reduction, avg_factor)


def _head(**config: Any) -> Any:
    models, _ = _mmdet()
    from mmengine.config import ConfigDict

    torch.manual_seed(0)
    return models.build(ConfigDict(config))


def _assigner(**config: Any) -> Any:
    return _mmdet()[1].build(config)


def _instances(**fields: Any) -> Any:
    from mmengine.structures import InstanceData

    return InstanceData(**fields)


def _objects(case: Case) -> list[Any]:
    return [_instances(bboxes=boxes, labels=labels) for boxes, labels in case.objects]


def _metas(case: Case) -> list[dict[str, Any]]:
    shapes = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), case.size)
    return [shapes | {"scale_factor": (1.0, 1.0)} for _ in case.objects]


def _numbers(results: list[Any]) -> torch.Tensor:
    return torch.stack([result.gt_inds for result in results])


def max_iou(case: Case) -> Ready:
    """RetinaNet's thresholds, every object rescued."""
    rule = _assigner(type="MaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)
    priors, objects = _instances(priors=torch.cat(case.anchors)), _objects(case)
    return Ready(lambda: [rule.assign(priors, one) for one in objects], _numbers)


def atss(case: Case) -> Ready:
    """Nine candidates a level."""
    rule = _assigner(type="ATSSAssigner", topk=9)
    priors, objects = _instances(priors=torch.cat(case.anchors)), _objects(case)
    return Ready(lambda: [rule.assign(priors, case.counts, one) for one in objects], _numbers)


def _ranges(case: Case) -> tuple[tuple[float, float], ...]:
    edges = (-1, 64, 128, 256, 512)[: len(case.strides)]
    return tuple(zip(edges, (*edges[1:], 1e8), strict=True))


def fcos(case: Case) -> Ready:
    """Center sampling within 1.5 strides; the number of an object stands for its class, so that the targets name it."""
    nobody = 100_000
    box, center = {"type": "GIoULoss", "loss_weight": 1.0}, BCE | {"loss_weight": 1.0}
    head = _head(
        type="FCOSHead", num_classes=1, **TOWER, strides=list(case.strides), regress_ranges=_ranges(case),
        center_sampling=True, center_sample_radius=1.5, loss_cls=FOCAL, loss_bbox=box, loss_centerness=center,
    )  # fmt: skip
    head.num_classes = nobody
    objects = [_instances(bboxes=b, labels=torch.arange(len(b), device=b.device)) for b, _ in case.objects]

    def read(targets: Any) -> torch.Tensor:
        label = torch.cat([level.view(case.images, -1) for level in targets[0]], dim=1)
        return torch.where(label == nobody, 0, label + 1)

    return Ready(lambda: head.get_targets(case.points, objects), read)


def sim_ota(case: Case) -> Ready:
    """As its YOLOX head calls it: candidates inside an object or its center, scores of class times objectness."""
    rule, objects = _assigner(type="SimOTAAssigner", center_radius=2.5), _objects(case)
    points = torch.cat([torch.cat(case.points), case.stride[:, None].expand(-1, 2)], dim=1)

    def one(row: int) -> Any:
        scores = (case.logits[row].sigmoid() * case.quality[row].sigmoid()).sqrt_()
        said = _instances(bboxes=case.boxes[row], scores=scores, priors=points)
        return rule.assign(said, objects[row])

    return Ready(lambda: [one(row) for row in range(case.images)], _numbers)


def task_aligned(case: Case) -> Ready:
    """TOOD's 13 candidates, exponents 1 and 6; its scores are handed over ready."""
    rule, objects = _assigner(type="TaskAlignedAssigner", topk=13), _objects(case)
    points, half = torch.cat(case.points), case.stride[:, None] * 4
    priors, scores = torch.cat([points - half, points + half], dim=1), case.logits.sigmoid()

    def one(row: int) -> Any:
        said = _instances(bboxes=case.boxes[row], scores=scores[row], priors=priors)
        return rule.assign(said, objects[row], alpha=1, beta=6)

    return Ready(lambda: [one(row) for row in range(case.images)], _numbers)


def dynamic_soft_label(case: Case) -> Ready:
    """RTMDet's 13 candidates."""
    rule, objects = _assigner(type="DynamicSoftLabelAssigner", topk=13), _objects(case)
    points = torch.cat([torch.cat(case.points), case.stride[:, None].expand(-1, 2)], dim=1)

    def one(row: int) -> Any:
        return rule.assign(_instances(bboxes=case.boxes[row], scores=case.logits[row], priors=points), objects[row])

    return Ready(lambda: [one(row) for row in range(case.images)], _numbers)


def hungarian(case: Case) -> Ready:
    """Deformable DETR's costs: focal 2, L1 5, GIoU 2."""
    costs = [
        {"type": "FocalLossCost", "weight": 2.0},
        {"type": "BBoxL1Cost", "weight": 5.0, "box_format": "xywh"},
        {"type": "IoUCost", "iou_mode": "giou", "weight": 2.0},
    ]
    rule, objects, metas = _assigner(type="HungarianAssigner", match_costs=costs), _objects(case), _metas(case)
    boxes, logits = case.queries()

    def one(row: int) -> Any:
        return rule.assign(_instances(bboxes=boxes[row], scores=logits[row]), objects[row], metas[row])

    return Ready(lambda: [one(row) for row in range(case.images)], _numbers)


def _paa_head(case: Case) -> Any:
    anchors = {"type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 8, "scales_per_octave": 1}
    coder = {"type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": [0.1, 0.1, 0.2, 0.2]}
    pool = {"type": "MaxIoUAssigner", "pos_iou_thr": 0.1, "neg_iou_thr": 0.1, "min_pos_iou": 0, "ignore_iof_thr": -1}
    return _head(
        type="PAAHead", reg_decoded_bbox=True, score_voting=True, topk=9, num_classes=case.classes, **TOWER,
        anchor_generator=anchors | {"strides": list(case.strides)}, bbox_coder=coder,
        loss_cls=FOCAL, loss_bbox={"type": "GIoULoss", "loss_weight": 1.3}, loss_centerness=BCE | {"loss_weight": 0.5},
        train_cfg={"assigner": pool, "allowed_border": -1, "pos_weight": -1, "debug": False},
    )  # fmt: skip


def paa(case: Case) -> Ready:
    """The head's assignment alone: the pool, the costs of its candidates, a scikit-learn mixture an object."""
    head, objects, metas, rows = _paa_head(case), _objects(case), _metas(case), range(case.images)
    deltas = case.scene.deltas().to(case.device)
    anchors, flags = head.get_anchors(case.sizes, metas, device=case.device)

    @torch.no_grad()
    def work() -> Any:
        labels, weights, targets, shares, chosen, owners = head.get_targets(
            anchors, flags, objects, metas, batch_gt_instances_ignore=None
        )
        answers = []
        for b in rows:
            (cost,) = head.get_pos_loss(
                anchors[b], case.logits[b], deltas[b], labels[b], weights[b], targets[b], shares[b], chosen[b]
            )
            known = labels[b], weights[b], shares[b], chosen[b], owners[b], anchors[b]
            answers.append((head.paa_reassign(cost, *known)[0], chosen[b], owners[b]))
        return answers

    def read(answers: Any) -> torch.Tensor:
        numbers = torch.zeros(case.logits.shape[:2], dtype=torch.long, device=case.device)
        for row, (label, pool, owner) in enumerate(answers):
            kept = label[pool] < case.classes
            numbers[row, pool[kept]] = owner[kept] + 1
        return numbers

    return Ready(work, read)


def auto_assign(case: Case) -> Ready:
    """Losses and their gradients; read are the gradients of the class logits."""
    head = _head(
        type="AutoAssignHead", num_classes=case.classes, **TOWER, strides=list(case.strides),
        regress_ranges=_ranges(case), loss_bbox={"type": "GIoULoss", "loss_weight": 5.0},
    ).to(case.device)  # fmt: skip
    maps = [_maps(case, values) for values in (case.logits, case.distances(), case.quality)]
    objects, metas = _objects(case), _metas(case)

    def work() -> None:
        head.zero_grad()
        for level in (level for kind in maps for level in kind):
            level.grad = None
        sum(head.loss_by_feat(*maps, objects, metas).values()).backward()

    def read(_: None) -> torch.Tensor:
        return torch.cat([level.grad.flatten(2).transpose(1, 2) for level in maps[0]], dim=1)

    return Ready(work, read)


def _maps(case: Case, values: torch.Tensor) -> list[torch.Tensor]:
    """(B, P, C) as one leaf (B, C, H, W) a level."""
    levels = zip(values.split(case.counts, dim=1), case.sizes, strict=True)
    maps = [level.transpose(1, 2).reshape(case.images, -1, *size) for level, size in levels]
    return [level.clone().requires_grad_() for level in maps]
