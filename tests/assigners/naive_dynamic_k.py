"""SimOTA and the dynamic soft label once more, as slow loops over images and objects, written from the papers."""

import torch
import torch.nn.functional as F

from ladle.boxes import pairwise_iou


def naive_match(cost, overlap, topk):
    """Object numbers of the candidates, from matrices of candidates by objects; 0 is background."""
    candidates, objects = cost.shape
    claims = torch.zeros(candidates, objects, dtype=torch.bool)
    for g in range(objects):
        total = overlap[:, g].sort(descending=True).values[:topk].sum()
        claims[cost[:, g].argsort(stable=True)[: max(int(total), 1)], g] = True
    answer = torch.zeros(candidates, dtype=torch.long)
    for p in range(candidates):
        if claims[p].any():
            answer[p] = 1 + (cost[p] if claims[p].sum() > 1 else (~claims[p]).float()).argmin()
    return answer


def held(points, low, high):
    return ((points[:, None] > low) & (points[:, None] < high)).all(-1)


def naive_sim_ota(scene, rule, quality=True):
    answers = []
    points, strides = torch.from_numpy(scene.P), torch.from_numpy(scene.S)
    for row, boxes in enumerate(map(torch.from_numpy, scene.gt_boxes)):
        middle, reach = (boxes[:, :2] + boxes[:, 2:]) / 2, rule.radius * strides[:, None, None]
        near, inside = held(points, middle - reach, middle + reach), held(points, boxes[:, :2], boxes[:, 2:])
        if rule.candidates == "center":
            inside = near
        places = (near | inside).any(1).nonzero().squeeze(1)
        score = torch.from_numpy(scene.logits[row])[places].sigmoid()
        if quality:
            score = (score * torch.from_numpy(scene.aux[row])[places].sigmoid()).sqrt()
        overlap = pairwise_iou(torch.from_numpy(scene.boxes[row])[places], boxes)
        cost = -rule.box_weight * (overlap + rule.floor).log()
        cost = cost + rule.penalty * ~(near & inside)[places]
        for g, label in enumerate(scene.gt_labels[row]):
            wanted = torch.zeros_like(score)
            wanted[:, label] = 1
            cost[:, g] += rule.class_weight * F.binary_cross_entropy(score, wanted, reduction="none").sum(-1)
        answer = torch.zeros(scene.A, dtype=torch.long)
        answer[places] = naive_match(cost, overlap, rule.topk)
        answers.append(answer)
    return torch.stack(answers)


def naive_dynamic_soft_label(scene, rule):
    answers = []
    points, strides = torch.from_numpy(scene.P), torch.from_numpy(scene.S)
    for row, boxes in enumerate(map(torch.from_numpy, scene.gt_boxes)):
        places = held(points, boxes[:, :2], boxes[:, 2:]).any(1).nonzero().squeeze(1)
        logits = torch.from_numpy(scene.logits[row])[places]
        overlap = pairwise_iou(torch.from_numpy(scene.boxes[row])[places], boxes)
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        distance = (points[places][:, None] - middle).square().sum(-1).sqrt() / strides[places][:, None]
        cost = 10 ** (distance - rule.soft_center_radius) - rule.iou_weight * (overlap + 1e-7).log()
        for g, label in enumerate(scene.gt_labels[row]):
            wanted = torch.zeros_like(logits)
            wanted[:, label] = overlap[:, g]
            entropy = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            cost[:, g] += (entropy * (wanted - logits.sigmoid()) ** 2).sum(-1)
        answer = torch.zeros(scene.A, dtype=torch.long)
        answer[places] = naive_match(cost, overlap, rule.topk)
        answers.append(answer)
    return torch.stack(answers)
