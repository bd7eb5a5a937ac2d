"""Distillers written as slow loops, straight from their papers and releases."""

import math

import torch
import torch.nn.functional as F


def iou(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / max(sum(areas) - shared, 1e-6), shared / max(areas[0], 1e-6)


def ring(boxes, levels, objects, gamma=0.25, topk=9, measure="coverage"):
    """The weight of every prior of one image, from lists of boxes."""
    worth = [0.0] * len(boxes)
    for g in objects:
        middle = ((g[0] + g[2]) / 2, (g[1] + g[3]) / 2)
        apart = [math.dist(((b[0] + b[2]) / 2, (b[1] + b[3]) / 2), middle) for b in boxes]
        near = []
        for level in sorted(set(levels)):
            here = [p for p in range(len(boxes)) if levels[p] == level]
            near += sorted(here, key=lambda p: (apart[p], p))[:topk]
        overlaps = torch.tensor([iou(boxes[p], g)[0] for p in near], dtype=torch.float64)
        high = float(overlaps.mean() + overlaps.std())
        for p, b in enumerate(boxes):
            value, covered = iou(b, g)
            hull = (max(b[2], g[2]) - min(b[0], g[0])) ** 2 + (max(b[3], g[3]) - min(b[1], g[1])) ** 2
            near_miss = (covered if measure == "coverage" else value) - apart[p] ** 2 / hull
            if gamma * high <= near_miss < high:
                worth[p] = max(worth[p], value)
    return worth


def kl(student, teacher, temperature):
    """T^2 times the mean over entries."""
    t = (teacher.double() / temperature).softmax(-1)
    return temperature**2 * F.kl_div((student.double() / temperature).log_softmax(-1), t, reduction="none").mean(-1)


def levels_of(student, teacher, sizes=None, strides=(8, 16, 32)):
    """Both maps of every level in float64, and the rows and columns that each image fills."""
    for student_out, teacher_out, stride in zip(student.features, teacher.features, strides):
        height, width = student_out.shape[-2:]
        filled = [(height, width)] * len(student_out)
        if sizes is not None:
            filled = [(math.ceil(h / stride), math.ceil(w / stride)) for h, w in sizes.tolist()]
        yield student_out.double(), teacher_out.double(), stride, filled


def pieces(maps, filled):
    """The filled part (C,h,w) of each image."""
    return [one[:, :h, :w] for one, (h, w) in zip(maps, filled)]


def fitnet(student, teacher, sizes=None):
    total = 0.0
    for student_out, teacher_out, _, filled in levels_of(student, teacher, sizes):
        for a, b in zip(pieces(student_out, filled), pieces(teacher_out, filled)):
            total += (a - b).square().mean()
    return float(total / len(student.features[0]))


def pkd(student, teacher, sizes=None, finest=4):
    total = 0.0
    for student_out, teacher_out, _, filled in list(levels_of(student, teacher, sizes))[:finest]:
        rows = []
        for maps in (student_out, teacher_out):
            flat = torch.cat([piece.flatten(1) for piece in pieces(maps, filled)], dim=1)
            rows.append((flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-6))
        total += (rows[0] - rows[1]).square().mean() / 2
    return float(total)


def cwd(student, teacher, temperature=1.0, sizes=None):
    total = 0.0
    for student_out, teacher_out, _, filled in levels_of(student, teacher, sizes):
        for a, b in zip(pieces(student_out, filled), pieces(teacher_out, filled)):
            for mine, theirs in zip(a.flatten(1), b.flatten(1)):
                log_own = (mine / temperature).log_softmax(0)
                log_guide = (theirs / temperature).log_softmax(0)
                total += temperature**2 * float((log_guide.exp() * (log_guide - log_own)).sum()) / len(a)
    return total / len(student.features[0])


def object_cells(box, stride, height, width):
    """FGD's cells of an object: rows and columns, ends included."""
    top, bottom = math.floor(box[1] / stride), math.ceil(box[3] / stride)
    left, right = math.floor(box[0] / stride), math.ceil(box[2] / stride)
    rows = [r for r in range(height) if min(max(top, 0), height - 1) <= r <= bottom]
    columns = [c for c in range(width) if min(max(left, 0), width - 1) <= c <= right]
    return rows, columns


def fgd(student, teacher, objects, temperature=0.5):
    """Foreground, background and attention without their weights; sums over cells and channels, as released."""
    front, back, attention = 0.0, 0.0, 0.0
    batch = len(student.features[0])
    for student_out, teacher_out, stride, _ in levels_of(student, teacher):
        for image in range(batch):
            a, b = student_out[image], teacher_out[image]
            channels, height, width = a.shape
            looks = []
            for maps in (a, b):
                cells = height * width * (maps.abs().mean(0).flatten() / temperature).softmax(0).view(height, width)
                looks.append((cells, channels * (maps.abs().mean((1, 2)) / temperature).softmax(0)))
            mask = torch.zeros(height, width, dtype=torch.float64)
            for box in objects[image]:
                rows, columns = object_cells(box, stride, height, width)
                for r in rows:
                    for c in columns:
                        mask[r, c] = max(mask[r, c], 1 / (len(rows) * len(columns)))
            outside = (mask == 0).double()
            outside = outside / max(float(outside.sum()), 1)
            apart = (a - b).square() * looks[1][0] * looks[1][1][:, None, None]
            front += float((apart * mask).sum())
            back += float((apart * outside).sum())
            attention += float((looks[0][0] - looks[1][0]).abs().sum() + (looks[0][1] - looks[1][1]).abs().sum())
    return front / batch, back / batch, attention / batch


def near_best(boxes, objects, share):
    """The priors of one image that overlap an object by more than a share of what any prior does."""
    found = [False] * len(boxes)
    for g in objects:
        overlaps = [iou(b, g)[0] for b in boxes]
        for p, overlap in enumerate(overlaps):
            found[p] = found[p] or (max(overlaps) > 0 and overlap > share * max(overlaps))
    return found


def defeat(student, teacher, objects, strides=(8, 16, 32)):
    """Foreground and background without their weights."""
    front, back = 0.0, 0.0
    for level, (student_out, teacher_out, stride, _) in enumerate(levels_of(student, teacher)):
        _, channels, height, width = student_out.shape
        mask = torch.zeros(len(student_out), 1, height, width, dtype=torch.float64)
        for image, boxes in enumerate(objects):
            for box in boxes:
                side = math.sqrt((box[2] - box[0] + 1) * (box[3] - box[1] + 1))
                home = math.floor(math.log2(side / (14 * strides[0]) + 1e-6))
                if min(max(home, 0), len(strides) - 1) != level:
                    continue
                left, top, right, bottom = (int(side / stride) for side in box)
                if left == right or top == bottom:
                    mask[image, 0, top, left] = 1
                else:
                    mask[image, 0, top:bottom, left:right] = 1
        apart = (student_out - teacher_out).square()
        front += float((mask * apart).sum() / max(1, 2 * float(mask.sum()) * channels))
        back += float(((1 - mask) * apart).sum() / max(1, 2 * float((1 - mask).sum()) * channels))
    return front / len(strides), back / len(strides)


def instances(gap, boxes, levels, count=10, overlap=0.3):
    """The chosen priors of one image, level by level: best first, dropping what overlaps it."""
    chosen = [False] * len(gap)
    for level in sorted(set(levels)):
        left = sorted((p for p in range(len(gap)) if levels[p] == level and gap[p] > 0), key=lambda p: -gap[p])
        for _ in range(count):
            if not left:
                break
            best = left.pop(0)
            chosen[best] = True
            left = [p for p in left if iou(boxes[p], boxes[best])[0] <= overlap]
    return chosen
