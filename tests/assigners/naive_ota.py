"""OTA as slow loops in float64, written from the paper: the cost of every pair, every iteration in logarithms."""

import numpy as np
import torch

from tests.assigners.naive import overlap_matrix


def naive_ota(scene, radius=2.5, box_weight=1.5, topk=20, epsilon=0.1, iterations=50):
    """Object numbers as in the golden files, and the labels each object has to give, image by image."""
    answers, supplies = [], []
    for row, objects in enumerate(scene.gt_boxes):
        labels, logits, boxes = scene.gt_labels[row], scene.logits[row].astype(float), scene.boxes[row].astype(float)
        cost, ok = [], []
        overlap = overlap_matrix(boxes, objects.astype(float)).astype(float)
        for number, box in enumerate(objects.astype(float)):
            ok.append(np.array([admissible(p, s, box, radius) for p, s in zip(scene.P.astype(float), scene.S)]))
            one_hot = np.arange(scene.C) == labels[number]
            box_cost = -np.log(np.maximum(overlap[:, number], np.finfo(np.float32).eps))
            cost.append(np.where(ok[-1], focal(logits, one_hot) + box_weight * box_cost, np.inf))
        supply = [
            float(max(1, int(np.sort(overlap[ok[n], n])[::-1][:topk].sum()))) if ok[n].any() else 0.0
            for n in range(len(objects))
        ]
        answer = np.zeros(scene.A, np.int64)
        if sum(supply):
            cost.append(focal(logits, np.zeros(scene.C, bool)))
            plan = transport(np.array(cost), [*supply, scene.A - sum(supply)], epsilon, iterations)
            best = (plan / np.maximum(plan.max(1, keepdims=True), 1e-300)).argmax(0)
            answer = np.where(best == len(objects), 0, best + 1)
        answers.append(answer)
        supplies.append(supply)
    return torch.from_numpy(np.stack(answers)), supplies


def admissible(point, stride, box, radius):
    middle, reach = (box[:2] + box[2:]) / 2, radius * stride
    low, high = np.maximum(middle - reach, box[:2]), np.minimum(middle + reach, box[2:])
    inside = min((point - box[:2]).min(), (box[2:] - point).min()) > 0.01
    return inside and min((point - low).min(), (high - point).min()) > 0


def focal(logits, target):
    score = 1 / (1 + np.exp(-logits))
    mine, other = -0.25 * (1 - score) ** 2 * np.log(score), -0.75 * score**2 * np.log(1 - score)
    return np.where(target, mine, other).sum(1)


def transport(cost, supply, epsilon, iterations):
    """The plan of dense costs (objects + 1, priors), inf for pairs without flow; each prior demands 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        kernel, amount = -cost / epsilon, np.log(np.array(supply))[:, None]
        u = np.where(np.isfinite(amount), 0.0, -np.inf)
        for _ in range(iterations):
            v = -np.logaddexp.reduce(kernel + u, axis=0)
            u = np.where(np.isfinite(amount), amount - np.logaddexp.reduce(kernel + v, axis=1)[:, None], -np.inf)
        return np.exp(kernel + u + v)
