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


def naive_max_iou(scene, positive, negative, rescue):
    answers = []
    for objects in scene.gt_boxes:
        answer = np.zeros(scene.A, np.int64)
        if len(objects):
            overlap = overlap_matrix(np.concatenate(scene.anchors), objects)
            best = overlap.max(1)
            answer[best >= negative] = -1
            answer[best >= positive] = overlap.argmax(1)[best >= positive] + 1
            for g in range(len(objects)):
                peak = overlap[:, g].max()
                if rescue is not None and peak > 0 and peak >= rescue:
                    answer[overlap[:, g] == peak] = g + 1
        answers.append(answer)
    return torch.from_numpy(np.stack(answers))


def naive_atss(scene, topk=9, margin=0.01):
    answers = []
    anchors = np.concatenate(scene.anchors)
    middles = (anchors[:, :2] + anchors[:, 2:]) / 2
    starts = np.cumsum([0, *scene.num_lvl])
    for objects in scene.gt_boxes:
        best, answer = np.full(scene.A, -1.0), np.zeros(scene.A, np.int64)
        overlap = overlap_matrix(anchors, objects)
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
