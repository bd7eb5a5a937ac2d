"""AutoAssign once more, from the paper: dense float64 formulas in loops over images and objects, for autograd."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from ladle.testing import example_scene


def overlaps(boxes, target):
    """IoU and GIoU of every box with one other."""
    low, high = boxes[:, :2].maximum(target[:2]), boxes[:, 2:].minimum(target[2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (target[2:] - target[:2]).prod() - shared
    hull = (boxes[:, 2:].maximum(target[2:]) - boxes[:, :2].minimum(target[:2])).prod(1)
    return shared / union, shared / union - (hull - union) / hull


def bags(predictions, priors, truth, row):
    """Number and class of every learnable object, which priors it holds, their confidences and center prior."""
    centers = priors.centers.expand(len(truth.labels), -1, -1)[row].double()
    valid = priors.valid.expand(len(truth.labels), -1)[row]
    learnt = predictions.center_prior
    for number in truth.learnable[row].nonzero().flatten().tolist():
        box, label = truth.boxes[row, number].double(), int(truth.labels[row, number])
        inside = valid & (torch.cat([centers - box[:2], box[2:] - centers], 1).min(1).values > 0)
        middle, spread = (0.0, 1.0) if learnt is None else (learnt[row, label, :2], learnt[row, label, 2:])
        away = (centers - (box[:2] + box[2:]) / 2) / priors.stride.double()[:, None] - middle
        central = torch.where(inside, (-(away**2) / (2 * spread**2)).exp().prod(1), 0.0)
        objectness = 1.0 if predictions.quality is None else predictions.quality[row].sigmoid()
        _, giou = overlaps(predictions.boxes[row], box)
        prob = predictions.logits[row, :, label].sigmoid() * objectness * (-5 * (1 - giou)).exp()
        yield number, label, inside, prob, central


def naive_weights(predictions, priors, truth, tau=1 / 3):
    """The positive weights (B, P, G)."""
    batch, objects = truth.labels.shape
    rows = []
    for row in range(batch):
        columns = [torch.zeros_like(predictions.logits[row, :, 0])] * objects
        for number, _, _, prob, central in bags(predictions, priors, truth, row):
            weight = (prob / tau).exp() * central
            columns[number] = weight / weight.sum().clamp(min=1e-12)
        rows.append(torch.stack(columns, 1))
    return torch.stack(rows)


def naive_background(predictions, priors, truth):
    """How much every prior is background for every class (B, P, C), where there is no crowd."""
    batch, count, classes = predictions.logits.shape
    weight = torch.ones(batch, count, classes, dtype=torch.double)
    for row in range(batch):
        found = list(bags(predictions, priors, truth, row))
        if not found:
            continue
        fits = [overlaps(predictions.boxes[row].detach(), truth.boxes[row, number].double())[0] for number, *_ in found]
        fit = 1 / (1 - torch.stack(fits).max(0).values).clamp(min=1e-12)
        for _, label, inside, _, _ in found:
            if inside.any():
                inner = fit[inside]
                weight[row, inside, label] = 1 - (inner - inner.min() + 1e-12) / (inner.max() - inner.min() + 1e-12)
    return torch.where(priors.valid.unsqueeze(-1), weight, 0.0)


def naive_losses(predictions, priors, truth, weights=None):
    """Positive, negative and center loss, normalized; ``weights`` are the student's unless others are given."""
    weights = naive_weights(predictions, priors, truth) if weights is None else weights
    positive, mass, centering = 0.0, 0.0, 0.0
    for row in range(len(truth.labels)):
        in_image, anyone = 0.0, False
        for number, _, inside, prob, central in bags(predictions, priors, truth, row):
            found = (weights[row, :, number] * prob).sum().clamp(max=1)
            positive = positive + F.binary_cross_entropy(found, torch.ones_like(found))
            in_image, anyone = in_image + central.sum(), anyone or bool(inside.any())
        if anyone:
            centering = centering + truth.learnable[row].sum() / in_image
            mass = mass + in_image.detach()
    objectness = 1.0 if predictions.quality is None else predictions.quality.sigmoid().unsqueeze(-1)
    joint = naive_background(predictions, priors, truth) * predictions.logits.sigmoid() * objectness
    negative = (joint**2 * F.binary_cross_entropy(joint, torch.zeros_like(joint), reduction="none")).sum()
    return {
        "positive": 0.25 * positive / max(int(truth.learnable.sum()), 1),
        "negative": 0.75 * negative / max(float(mass), 1.0),
        "center": 0.75 * centering / len(truth.labels),
    }


def naive_scene(seed=0, classes=3, objects=7, branches=True):
    """Random predictions and objects, some of a class at one place, with padding in objects and in priors."""
    generator = torch.Generator().manual_seed(seed + 100)
    predictions, priors, truth = example_scene(objects=objects, seed=seed, size=(96, 128), classes=classes)
    center_prior = torch.randn(2, classes, 4, generator=generator) * 0.4 + torch.tensor([0.0, 0.0, 1.5, 1.5])
    predictions = replace(predictions, center_prior=center_prior) if branches else replace(predictions, quality=None)
    valid, real = priors.valid.repeat(2, 1), truth.valid.clone()
    valid[0, ::11], real[1, -2:] = False, False
    boxes = truth.boxes.clone()
    boxes[1, -1] = torch.nan
    return predictions, replace(priors, valid=valid, grids=None), replace(truth, valid=real, boxes=boxes)
