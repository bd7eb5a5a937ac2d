"""The assigners once more, as slow loops over images and objects, written from the papers."""

import numpy as np
import torch


def overlap_matrix(boxes, objects):
    out = np.zeros((len(boxes), len(objects)), np.float32)
    for g, (x1, y1, x2, y2) in enumerate(objects):
        width = (np.minimum(boxes[:, 2], x2) - np.maximum(boxes[:, 0], x1)).clip(0)
        height = (np.minimum(boxes[:, 3], y2) - np.maximum(boxes[:, 1], y1)).clip(0)
        shared = width * height
        union = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) + (x2 - x1) * (y2 - y1) - shared
        out[:, g] = shared / np.maximum(union, np.float32(1e-6))
    return out


def naive_max_iou(scene, positive, negative, rescue, overlaps=None):
    """With ``overlaps``, a matrix for each image, those of a judge."""
    answers = []
    for row, objects in enumerate(scene.gt_boxes):
        answer = np.zeros(scene.A, np.int64)
        if len(objects):
            overlap = overlap_matrix(np.concatenate(scene.anchors), objects) if overlaps is None else overlaps[row]
            best = overlap.max(1)
            answer[best >= negative] = -1
            answer[best >= positive] = overlap.argmax(1)[best >= positive] + 1
            for g in range(len(objects)):
                peak = overlap[:, g].max()
                if rescue is not None and peak > 0 and peak >= rescue:
                    answer[overlap[:, g] == peak] = g + 1
        answers.append(answer)
    return torch.from_numpy(np.stack(answers))


def similarity_matrix(boxes, objects, m, n):
    """SimD in float64, from the formula of the paper."""
    out = np.zeros((len(boxes), len(objects)))
    sides = [(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)) for x1, y1, x2, y2 in boxes.astype(float)]
    for g, (x1, y1, x2, y2) in enumerate(objects.astype(float)):
        xg, yg, wg, hg = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        for p, (xa, ya, wa, ha) in enumerate(sides):
            across, down = (wg + wa) / m, (hg + ha) / n
            location = np.sqrt(((xg - xa) / across) ** 2 + ((yg - ya) / down) ** 2)
            shape = np.sqrt(((wg - wa) / across) ** 2 + ((hg - ha) / down) ** 2)
            out[p, g] = np.exp(-(location + shape))
    return out


def naive_atss(scene, topk=9, margin=0.01, overlaps=None):
    """With ``overlaps``, a matrix for each image, another measure than the IoU."""
    answers = []
    anchors = np.concatenate(scene.anchors)
    middles = (anchors[:, :2] + anchors[:, 2:]) / 2
    starts = np.cumsum([0, *scene.num_lvl])
    for row, objects in enumerate(scene.gt_boxes):
        best, answer = np.full(scene.A, -1.0), np.zeros(scene.A, np.int64)
        overlap = overlap_matrix(anchors, objects) if overlaps is None else overlaps[row]
        for g, box in enumerate(objects):
            middle = (box[:2] + box[2:]) / 2
            distance = np.sqrt(((middles - middle) ** 2).sum(1))
            near = np.concatenate(
                [a + np.argsort(distance[a:b], kind="stable")[:topk] for a, b in zip(starts, starts[1:])]
            )
            threshold = overlap[near, g].mean() + overlap[near, g].std(ddof=1)
            for p in near:
                x, y = middles[p]
                inside = min(x - box[0], y - box[1], box[2] - x, box[3] - y) > margin
                if inside and overlap[p, g] >= threshold and overlap[p, g] > best[p]:
                    best[p], answer[p] = overlap[p, g], g + 1
        answers.append(answer)
    return torch.from_numpy(np.stack(answers))


def naive_paa_cut(costs, cut):
    """Positions (in ascending cost) of the positives among one object's candidates, by scikit-learn's mixture."""
    from sklearn.mixture import GaussianMixture

    if len(costs) < 2:
        return list(range(len(costs))) if cut == "prefix" else []
    x = np.sort(np.asarray(costs, np.float64))[:, None]
    model = GaussianMixture(
        2, weights_init=[0.5, 0.5], means_init=x[[0, -1]], precisions_init=np.ones((2, 1, 1)), covariance_type="full"
    )
    low = model.fit(x).predict(x) == 0
    if not low.any():
        return list(range(len(x))) if cut == "prefix" else []
    last = np.where(low, model.score_samples(x), -np.inf).argmax()
    return [i for i in range(last + 1) if low[i] or cut == "prefix"]


def naive_paa(scene, box_weight=1.3, topk=9, cut="component"):
    """Object numbers as in the golden files, by one loop over images, objects and levels."""
    pools = naive_max_iou(scene, 0.1, 0.1, 0.0).numpy()
    starts = np.cumsum([0, *scene.num_lvl])
    answers = np.zeros_like(pools)
    for row, objects in enumerate(scene.gt_boxes):
        for g, (box, label) in enumerate(zip(objects, scene.gt_labels[row])):
            mine = np.flatnonzero(pools[row] == g + 1)
            costs = {p: _naive_cost(scene.logits[row, p], label, scene.boxes[row, p], box, box_weight) for p in mine}
            kept = []
            for a, b in zip(starts, starts[1:]):
                kept += sorted((p for p in mine if a <= p < b), key=costs.get)[:topk]
            kept.sort(key=costs.get)
            for place in naive_paa_cut([costs[p] for p in kept], cut):
                answers[row, kept[place]] = g + 1
    return torch.from_numpy(answers)


def _naive_cost(logits, label, box, target, box_weight):
    total = 0.0
    for k, z in enumerate(logits.astype(np.float64)):
        p = 1 / (1 + np.exp(-z))
        total += -0.25 * (1 - p) ** 2 * np.log(p) if k == label else -0.75 * p**2 * np.log(1 - p)
    return total + box_weight * (1 - _naive_giou(box.astype(np.float64), target.astype(np.float64)))


def _naive_giou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return width * height / union - (hull - union) / hull
