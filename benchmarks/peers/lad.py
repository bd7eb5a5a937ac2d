"""mmdetection's LAD: student, teacher and step, on the networks that Ladle's have the names of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from peers.mmdetection import BCE, FOCAL, TOWER, _instances, _mmdet

DEPTHS = {"r18": (18, [64, 128, 256, 512]), "r34": (34, [64, 128, 256, 512])}
DEPTHS |= {"r50": (50, [256, 512, 1024, 2048]), "r101": (101, [256, 512, 1024, 2048])}


def lad_step(student: str, teacher: str, images: torch.Tensor, objects: list[Any], classes: int) -> Callable[[], float]:
    """One training step of ``student`` under ``teacher``, the names of backbones; returns its loss."""
    models, _ = _mmdet()
    from mmdet.structures import DetDataSample
    from mmengine.config import ConfigDict

    config = {"type": "LAD", **_network(student, classes, "")}
    config |= _network(teacher, classes, "teacher_")
    config["train_cfg"] = _train()
    torch.manual_seed(0)
    detector = models.build(ConfigDict(config)).to(images.device)
    detector.train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-4, momentum=0.9)
    size = tuple(images.shape[-2:])
    meta = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), size)
    samples = []
    for boxes, labels in objects:
        sample = DetDataSample(metainfo=meta | {"scale_factor": (1.0, 1.0)})
        sample.gt_instances = _instances(bboxes=boxes, labels=labels)
        samples.append(sample)

    def step() -> float:
        losses = detector.loss(images, samples)
        total = sum(sum(part) if isinstance(part, list) else part for part in losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return float(total.detach())

    return step


def _network(name: str, classes: int, prefix: str) -> dict[str, Any]:
    depth, widths = DEPTHS[name]
    backbone = {"type": "ResNet", "depth": depth, "num_stages": 4, "out_indices": (0, 1, 2, 3), "frozen_stages": -1}
    # Ladle's frozen normalization trains neither statistics nor scales.
    backbone |= {"norm_cfg": {"type": "BN", "requires_grad": False}, "norm_eval": True, "style": "pytorch"}
    neck = {"type": "FPN", "in_channels": widths, "out_channels": 256, "start_level": 1, "num_outs": 5}
    neck |= {"add_extra_convs": "on_output"}
    anchors = {"type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 8, "scales_per_octave": 1}
    head = {
        "type": "LADHead", "reg_decoded_bbox": True, "score_voting": True, "topk": 9, "num_classes": classes, **TOWER,
        "anchor_generator": anchors | {"strides": [8, 16, 32, 64, 128]},
        "bbox_coder": {
            "type": "DeltaXYWHBBoxCoder", "target_means": [0.0] * 4, "target_stds": [0.1, 0.1, 0.2, 0.2],
        },
        "loss_cls": FOCAL, "loss_bbox": {"type": "GIoULoss", "loss_weight": 1.3},
        "loss_centerness": BCE | {"loss_weight": 0.5},
    }  # fmt: skip
    return {f"{prefix}backbone": backbone, f"{prefix}neck": neck, f"{prefix}bbox_head": head}


def _train() -> dict[str, Any]:
    pool = {"type": "MaxIoUAssigner", "pos_iou_thr": 0.1, "neg_iou_thr": 0.1, "min_pos_iou": 0, "ignore_iof_thr": -1}
    return {"assigner": pool, "allowed_border": -1, "pos_weight": -1, "debug": False}
