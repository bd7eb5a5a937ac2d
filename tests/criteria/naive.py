"""The losses of a dense head, written out prior by prior, class by class, from the papers. Slow on purpose."""

import math

CLASSES = {"quality": {"gfl", "rtmdet"}, "aligned": {"tood"}, "overlap": {"yolox"}}
WEIGHTS = {  # box, quality branch, edges
    "fcos": (1, 1, 0),
    "atss": (2, 1, 0),
    "paa": (1.3, 0.5, 0),
    "ota": (2, 0.5, 0),
    "gfl": (2, 0, 0.25),
    "tood": (2, 0, 0),
    "yolox": (5, 1, 0),
    "rtmdet": (2, 0, 0),
}


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def entropy(x, target):
    return -target * math.log(sigmoid(x)) - (1 - target) * math.log(sigmoid(-x))


def focal(x, target):
    p = sigmoid(x)
    return -0.25 * (1 - p) ** 2 * math.log(p) if target else -0.75 * p**2 * math.log(1 - p)


def quality_focal(x, target):
    return abs(target - sigmoid(x)) ** 2 * entropy(x, target)


def overlaps(a, b):
    """IoU and GIoU of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union, shared / union - (hull - union) / hull


def centerness(x, y, box):
    left, top, right, bottom = x - box[0], y - box[1], box[2] - x, box[3] - y
    return math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))


def edge_cost(logits, x, y, box, stride):
    """The mean over four sides of the cross entropy with the two bins next to the true distance."""
    total = 0.0
    for side, distance in zip(logits, (x - box[0], y - box[1], box[2] - x, box[3] - y), strict=True):
        clamped = min(max(distance / stride, 0), len(side) - 1.1)
        left = int(clamped)
        norm = math.log(sum(math.exp(v) for v in side))
        total += (left + 1 - clamped) * (norm - side[left]) + (clamped - left) * (norm - side[left + 1])
    return total / 4


def one_prior(family, prior, target, learnt):
    """The box, edge and quality losses of a positive prior, its weight in the first two, and its IoU."""
    iou, giou = overlaps(prior["box"], target)
    middle = centerness(*prior["point"], target) if family in ("fcos", "atss") else None
    box = 1 - iou**2 if family == "yolox" else 1 - giou
    edges = edge_cost(prior["edges"], *prior["point"], target, prior["stride"]) if family == "gfl" else 0
    share = {"fcos": middle, "atss": middle, "paa": iou, "rtmdet": iou, "gfl": sigmoid(max(prior["logits"]))}
    quality = {"fcos": middle, "atss": middle, "paa": iou, "ota": iou}.get(family)
    judged = entropy(prior["quality"], quality) if quality is not None else 0
    return box, edges, judged, learnt * share.get(family, 1), iou


def class_cost(family, x, is_its_own, learnt, iou):
    """The loss of one class at one prior that learns an object with affinity ``learnt`` (0: background)."""
    if family in CLASSES["aligned"]:
        return quality_focal(x, learnt * is_its_own)
    if family in CLASSES["quality"]:
        return (learnt or 1) * quality_focal(x, iou * is_its_own)
    if family in CLASSES["overlap"]:
        return learnt * entropy(x, iou * is_its_own)
    return (learnt or 1) * focal(x, is_its_own)


def losses(family, images):
    """The loss of each term; ``images`` hold, per prior, its predictions and its object."""
    box_weight, quality_weight, edges_weight = WEIGHTS[family]
    classes = boxes = edges = quality = shares = weights = counts = 0.0
    for image in images:
        count = 0.0
        for prior in image:
            learnt, iou = prior["learnt"], 0.0
            if learnt == 0 and not prior["background"]:
                continue
            if learnt:
                box, edge, judged, share, iou = one_prior(family, prior, prior["target"], learnt)
                boxes, edges, quality = boxes + share * box, edges + share * edge, quality + learnt * judged
                shares, weights = shares + share, weights + learnt
                count += learnt * iou if family == "rtmdet" else learnt
            if family == "yolox":
                quality += (learnt or 1) * entropy(prior["quality"], float(learnt > 0))
            for number, x in enumerate(prior["logits"]):
                classes += class_cost(family, x, float(learnt > 0 and number == prior["label"]), learnt, iou)
        counts += max(count, 1) if family in ("atss", "gfl") else count
    counts = max(counts, len(images)) if family not in ("atss", "gfl") else counts
    found = {"class": classes / counts, "box": box_weight * boxes / shares}
    if edges_weight:
        found["edges"] = edges_weight * edges / shares
    if quality_weight:
        found["quality"] = quality_weight * quality / (counts if family == "yolox" else weights)
    return found
