"""The losses of the releases in NumPy and float64, written from their formulas; nothing of Ladle is called.

Maps are (B, C, H, W), predictions (B, P, ...), boxes ``x1 y1 x2 y2``.
"""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis=-1):
    x = np.exp(x - x.max(axis, keepdims=True))
    return x / x.sum(axis, keepdims=True)


def cross_entropy(logit, target):
    """Of a probability ``target``."""
    return -(target * np.log(sigmoid(logit)) + (1 - target) * np.log(1 - sigmoid(logit)))


def overlaps(a, b):
    """IoU and GIoU of boxes, one by one."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    shared = np.clip(high - low, 0, None).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - shared
    hull = (np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])).prod(-1)
    return shared / union, shared / union - (hull - union) / hull


def centerness(points, boxes):
    left, top = points[..., 0] - boxes[..., 0], points[..., 1] - boxes[..., 1]
    right, bottom = boxes[..., 2] - points[..., 0], boxes[..., 3] - points[..., 1]
    across = np.minimum(left, right) / np.maximum(left, right)
    down = np.minimum(top, bottom) / np.maximum(top, bottom)
    return np.sqrt(np.clip(across, 0, None) * np.clip(down, 0, None))


def cross_kd(family, crossed, teacher, positive, central):
    """CrossKD's terms of a teacher's family, each divided as released.

    ``crossed`` and ``teacher`` hold ``logits``, ``boxes``, ``edges`` and ``quality``; ``positive`` (B,P) marks the
    student's positives, ``central`` is their centerness.
    """
    target = sigmoid(teacher["logits"])
    best = target.max(-1)
    classes = (np.abs(sigmoid(crossed["logits"]) - target) * cross_entropy(crossed["logits"], target)).sum()
    iou, giou = overlaps(crossed["boxes"], teacher["boxes"])
    count = positive.sum()
    if family == "gfl":
        mine, theirs = softmax(crossed["edges"]), softmax(teacher["edges"])
        apart = (theirs * (np.log(theirs) - np.log(mine))).sum(-1)
        return {"class": classes / count, "box": 4 * (best[..., None] * apart).sum() / 4 / best.sum()}
    if family == "fcos":
        total = central[positive].sum()
        return {"class": 0.4 * classes / total, "box": 0.75 * (best * -np.log(iou)).sum() / total}
    terms = {"class": classes / count, "box": (best * (1 - giou)).sum() / count}
    if family == "atss":
        apart = cross_entropy(crossed["quality"], sigmoid(teacher["quality"]))
        terms["quality"] = apart[positive].sum() / count
    return terms


def pkd(student, teacher, weight):
    """mmrazor's PKDLoss, one level after the other."""
    total = 0.0
    for a, b in zip(student, teacher, strict=True):
        flat = [x.transpose(1, 0, 2, 3).reshape(x.shape[1], -1) for x in (a, b)]
        a, b = ((x - x.mean(1, keepdims=True)) / (x.std(1, ddof=1, keepdims=True) + 1e-6) for x in flat)
        total += weight * ((a - b) ** 2).mean() / 2
    return total


def cwd(student, teacher, weight=10.0, temperature=1.0, size=None):
    """mmrazor's ChannelWiseDivergence; with ``size`` both maps are first brought to the teacher's root mean square."""
    total = 0.0
    for a, b in zip(student, teacher, strict=True):
        scale = 1.0 if size is None else size / np.sqrt((b**2).mean())
        p, q = (softmax((scale * x).reshape(*x.shape[:2], -1) / temperature) for x in (b, a))
        batch, channels = a.shape[:2]
        total += weight * temperature**2 * (p * (np.log(p) - np.log(q))).sum() / (channels * batch)
    return total


def attention(maps, temperature, size=1.0):
    """FGD's attentions over cells (B,H,W) and channels (B,C)."""
    batch, channels, height, width = maps.shape
    maps = np.abs(size * maps)
    cells = softmax(maps.mean(1).reshape(batch, -1) / temperature).reshape(batch, height, width) * height * width
    return cells, channels * softmax(maps.mean((2, 3)) / temperature)


def fgd_attention(student, teacher, gamma, temperature, size=None):
    """FGD's third term: the attentions' absolute differences, summed, the mean over images."""
    total = 0.0
    for a, b in zip(student, teacher, strict=True):
        scale = 1.0 if size is None else size / np.sqrt((b**2).mean())
        mine, theirs = attention(a, temperature, scale), attention(b, temperature, scale)
        total += gamma * sum(np.abs(x - y).sum() for x, y in zip(mine, theirs, strict=True)) / len(a)
    return total


def fine_grained(student, teacher, masks, weight=0.01):
    """Wang et al.: squared differences at the marked cells (B,H,W), summed over channels, by twice their number."""
    total = 0.0
    for a, b, mask in zip(student, teacher, masks, strict=True):
        total += weight * (((a - b) ** 2) * mask[:, None]).sum() / max(2 * mask.sum(), 1)
    return total


def defeat_mask(boxes, stride, height, width):
    """DeFeat's cells of objects: corners cut to whole cells, one cell where nothing is left between them."""
    mask = np.zeros((height, width), dtype=bool)
    for box in boxes:
        left, top = int(box[0] / stride), int(box[1] / stride)
        right, bottom = min(int(box[2] / stride), width), min(int(box[3] / stride), height)
        if left == right or top == bottom:
            mask[top, left] = True
        else:
            mask[top:bottom, left:right] = True
    return mask


def divergence(student, teacher, temperature):
    """LD's KL divergence: the mean over the last axis, times the squared temperature."""
    mine, theirs = softmax(student / temperature), softmax(teacher / temperature)
    return temperature**2 * (theirs * (np.log(theirs) - np.log(mine))).mean(-1)


def ld(family, student, teacher, positive, ring, level):
    """Localization distillation of a family for one image on a device, summed over levels, as released.

    ``ring`` (P) is the weight of the region around objects; for FCOS that is 1 inside them and 0 elsewhere, which the
    student's best score then weighs. All are of one image: (P, ...).
    """
    best = sigmoid(student["logits"]).max(-1)
    weight, factor = {"gfl": (0.25, 0.25), "atss": (0.25, 0.15), "fcos": (0.25, 0.25), "retinanet": (5.0, 0.03)}[family]
    heat = 8.0 if family == "retinanet" else 2.0
    if family == "retinanet":
        # One softmax of 4 x 17 entries an anchor, and no positive in the region around.
        flat = [one["edges"].reshape(len(positive), -1) for one in (student, teacher)]
        apart, ring = divergence(*flat, 10.0), ring * ~positive
    else:
        apart = divergence(student["edges"], teacher["edges"], 10.0).sum(-1)
    ring = best * ring * ~positive if family == "fcos" else ring
    classes = divergence(student["logits"], teacher["logits"], heat)
    total = 0.0
    for number in np.unique(level[positive]):
        total += 10.0 * classes[positive & (level == number)].mean()
    return {
        "ld": weight * (best * apart)[positive].sum() / 4,
        "ld_ring": weight * factor * (ring * apart).sum() / 4,
        "ld_class": total,
    }
