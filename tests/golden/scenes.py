"""Fixed scenes on which the reference implementations' answers were recorded.

Pure numpy (PCG64), so they do not depend on the torch version. The random draws must keep their order: the golden
files hold what public implementations answered on exactly these numbers. Anchors sit at (i*s, j*s) with side 8*s.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ladle.boxes import decode_deltas
from ladle.types import Grid, GroundTruth, Predictions, Priors

FOLDER = Path(__file__).parent
S3 = (8, 16, 32)
S5 = (8, 16, 32, 64, 128)

# name: H, W, strides, classes, list of GT counts (one per image), kind
CASES = {
    "tiny": (256, 320, S3, 10, (7, 3), "normal"),
    "edge": (256, 320, S5, 10, None, "edge"),
    "s640_n20": (640, 640, S3, 80, (20,) * 4, "normal"),
    "s640_n150": (640, 640, S3, 80, (150,) * 4, "crowd"),
    "s1333_n20": (800, 1344, S5, 80, (20,) * 4, "normal"),
    "s1333_n150": (800, 1344, S5, 80, (150,) * 4, "crowd"),
}


def feat_sizes(H, W, strides):
    return [(-(-H // s), -(-W // s)) for s in strides]


def _gts(rng, H, W, n, kind):
    m = min(H, W)
    if kind == "crowd":
        k = 12
        cl = rng.uniform(0.1, 0.9, (k, 2)) * [W, H]
        c = cl[rng.integers(0, k, n)] + rng.normal(0, 0.06, (n, 2)) * m
        side = np.exp(rng.normal(np.log(0.06 * m), 0.6, n))
    else:
        c = rng.uniform(0.05, 0.95, (n, 2)) * [W, H]
        side = np.exp(rng.normal(np.log(0.12 * m), 0.9, n))
    side = np.clip(side, 5, 0.9 * m)
    ar = np.exp(rng.normal(0, 0.4, n))
    w, h = side * np.sqrt(ar), side / np.sqrt(ar)
    b = np.stack([c[:, 0] - w / 2, c[:, 1] - h / 2, c[:, 0] + w / 2, c[:, 1] + h / 2], 1)
    b[:, 0::2] = b[:, 0::2].clip(0, W)
    b[:, 1::2] = b[:, 1::2].clip(0, H)
    # keep at least 3 px a side after clipping
    for a, M in ((0, W), (1, H)):
        bad = b[:, a + 2] - b[:, a] < 3
        b[bad, a] = np.minimum(b[bad, a], M - 3)
        b[bad, a + 2] = b[bad, a] + 3
    return b.astype(np.float32)


def _edge_gts(rng, H, W):
    e0 = np.zeros((0, 4), np.float32)  # no object
    e1 = np.array([[101.3, 77.2, 103.1, 79.0]], np.float32)  # 2 px, between points
    e2 = np.array(
        [
            [0, 0, W, H],
            [40, 40, 120, 140],
            [40, 40, 120, 140],  # whole image, duplicates
            [60, 60, 100, 120],
        ],
        np.float32,
    )
    e3 = np.concatenate(
        [_gts(rng, H, W, 24, "crowd"), np.array([[-30, -20, 25, 30], [W - 20, H - 15, W + 40, H + 30]], np.float32)]
    )
    return [e0, e1, e2, e3]


def points_np(H, W, strides, offset=0.5):
    out = []
    for (h, w), s in zip(feat_sizes(H, W, strides), strides):
        ys, xs = np.meshgrid((np.arange(h) + offset) * s, (np.arange(w) + offset) * s, indexing="ij")
        out.append(np.stack([xs.ravel(), ys.ravel()], 1).astype(np.float32))
    return out


def anchors_np(H, W, strides, scale=8):
    return [
        np.concatenate([p - scale * s / 2, p + scale * s / 2], 1).astype(np.float32)
        for p, s in zip(points_np(H, W, strides, 0.0), strides)
    ]


class Scene:
    """Ground truths and mid-training-like predictions for one batch."""

    def __init__(self, case, seed=0):
        H, W, strides, C, counts, kind = CASES[case]
        self.case, self.H, self.W, self.strides, self.C = case, H, W, strides, C
        rng = np.random.Generator(np.random.PCG64([seed, sum(map(ord, case))]))
        self.sizes = feat_sizes(H, W, strides)
        self.num_lvl = [h * w for h, w in self.sizes]
        self.points = points_np(H, W, strides, 0.5)
        self.anchors = anchors_np(H, W, strides)
        P = np.concatenate(self.points)
        S = np.concatenate([np.full(n, s, np.float32) for n, s in zip(self.num_lvl, strides)])
        self.P, self.S = P, S
        A = len(P)
        gts = _edge_gts(rng, H, W) if kind == "edge" else [_gts(rng, H, W, n, kind) for n in counts]
        self.gt_boxes = gts
        self.gt_labels = [rng.integers(0, C, len(g)).astype(np.int64) for g in gts]
        self.B, self.A = len(gts), A
        boxes = np.empty((self.B, A, 4), np.float32)
        logits = np.empty((self.B, A, C), np.float32)
        for b, (g, lab) in enumerate(zip(gts, self.gt_labels)):
            side = S * 8 * np.exp(rng.normal(0, 0.4, A))
            base = np.stack([P[:, 0] - side / 2, P[:, 1] - side / 2, P[:, 0] + side / 2, P[:, 1] + side / 2], 1)
            lg = rng.normal(-4.5, 1.0, (A, C))
            if len(g):
                area = (g[:, 2] - g[:, 0]) * (g[:, 3] - g[:, 1])
                ins = (
                    np.minimum.reduce(
                        [
                            P[:, None, 0] - g[None, :, 0],
                            P[:, None, 1] - g[None, :, 1],
                            g[None, :, 2] - P[:, None, 0],
                            g[None, :, 3] - P[:, None, 1],
                        ]
                    )
                    > 0
                )
                a = np.where(ins, area[None], np.inf)
                t, hit = a.argmin(1), ins.any(1)
                wh = np.stack([g[:, 2] - g[:, 0], g[:, 3] - g[:, 1]], 1)[t]
                ctr = ((g[:, :2] + g[:, 2:]) / 2)[t]
                off = np.abs((P - ctr) / (wh / 2 + 1e-6)).max(1)
                lvl_bad = np.abs(np.log2(np.sqrt(wh.prod(1)) / (8 * S)))
                q = (0.03 + 0.10 * off**2 + 0.04 * lvl_bad) * rng.exponential(1.0, A)
                noisy = g[t] + rng.normal(0, 1, (A, 4)) * q[:, None] * np.tile(wh, 2)
                x1, x2 = np.minimum(noisy[:, 0], noisy[:, 2]), np.maximum(noisy[:, 0], noisy[:, 2])
                y1, y2 = np.minimum(noisy[:, 1], noisy[:, 3]), np.maximum(noisy[:, 1], noisy[:, 3])
                noisy = np.stack([x1, y1, np.maximum(x2, x1 + 1), np.maximum(y2, y1 + 1)], 1)
                base = np.where(hit[:, None], noisy, base)
                lg[np.arange(A)[hit], lab[t][hit]] += 5.0 - 10 * q[hit] + rng.normal(0, 1, hit.sum())
            boxes[b], logits[b] = base, lg
        self.boxes, self.logits = boxes, logits
        self.aux = rng.normal(0, 1, (self.B, A, 1)).astype(np.float32)  # iou / centerness / objectness logits
        self._rng = rng

    def priors(self):
        """The anchors as a record."""
        return Priors(
            boxes=torch.from_numpy(np.concatenate(self.anchors))[None],
            stride=torch.from_numpy(self.S),
            level=torch.arange(len(self.num_lvl)).repeat_interleave(torch.tensor(self.num_lvl)),
            valid=torch.ones(1, self.A, dtype=torch.bool),
            counts=tuple(self.num_lvl),
            grids=tuple(Grid(h, w, float(s), 0.0) for (h, w), s in zip(self.sizes, self.strides)),
        )

    def point_priors(self, side=1.0):
        """The points, centre (i + .5) * s, as squares of ``side`` strides."""
        half = torch.from_numpy(self.S)[:, None] * side / 2
        points = torch.from_numpy(self.P)
        return replace(
            self.priors(),
            boxes=torch.cat([points - half, points + half], 1)[None],
            grids=tuple(Grid(h, w, float(s), 0.5) for (h, w), s in zip(self.sizes, self.strides)),
        )

    def raw_predictions(self):
        """What the scene's detector says, its boxes taken as they are."""
        return Predictions(
            torch.from_numpy(self.logits), torch.from_numpy(self.boxes), torch.from_numpy(self.aux)[..., 0]
        )

    def truth(self):
        """The objects as a padded record."""
        return GroundTruth.pad(
            [torch.from_numpy(b) for b in self.gt_boxes], [torch.from_numpy(n) for n in self.gt_labels]
        )

    def deltas(self):
        """The predicted boxes as R-CNN deltas of the anchors, (B, A, 4)."""
        a, b = np.concatenate(self.anchors), self.boxes
        size, size_b = a[:, 2:] - a[:, :2], b[..., 2:] - b[..., :2]
        shift = ((b[..., :2] + b[..., 2:]) / 2 - (a[:, :2] + a[:, 2:]) / 2) / size
        return torch.from_numpy(
            (np.concatenate([shift, np.log(size_b / size)], -1) / np.array((0.1, 0.1, 0.2, 0.2))).astype(np.float32)
        )

    def edges(self, sharp=1.5, seed=1):
        """Logits (B,P,4,17) of distributions around the scene's boxes, seen from the anchors' centres."""
        rng = np.random.Generator(np.random.PCG64([seed, 77]))
        points = np.concatenate(points_np(self.H, self.W, self.strides, 0.0))
        distances = np.concatenate([points[None] - self.boxes[..., :2], self.boxes[..., 2:] - points[None]], -1)
        middle = (distances.astype(np.float32) / self.S[None, :, None]).clip(0, 16 - 0.01)[..., None]
        noise = rng.normal(0, 0.3, (*middle.shape[:-1], 17))
        logits = -np.abs(np.arange(17, dtype=np.float32) - middle) * sharp + noise
        return torch.from_numpy(logits.astype(np.float32))

    def predictions(self):
        """What the scene's detector says: boxes decoded from the anchors' deltas."""
        return Predictions(
            logits=torch.from_numpy(self.logits),
            boxes=decode_deltas(torch.from_numpy(np.concatenate(self.anchors))[None], self.deltas()),
            quality=torch.from_numpy(self.aux)[..., 0],
        )


def golden(name):
    """The recorded answer of one implementation, as tensors."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def object_numbers(assignment):
    """The convention of the golden files: -1 ignored, 0 background, k > 0 = object k-1."""
    state = torch.where(assignment.background > 0, 0, -1)
    return torch.where(assignment.positive, assignment.index + 1, state)
