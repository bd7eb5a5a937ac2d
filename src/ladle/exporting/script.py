"""The program that is written beside an ONNX file: it needs onnxruntime, numpy and Pillow."""

from __future__ import annotations

__all__ = ["FIRST_LINE", "SCRIPT"]

FIRST_LINE = '"""Find objects in an image: python infer.py MODEL.onnx IMAGE [LEAST SCORE]'
"""By this line a script of an earlier export is known."""

SCRIPT = (
    FIRST_LINE
    + r'''

Written by `ladle export`. It needs onnxruntime, numpy and Pillow.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def detect(model, file):
    """Boxes (N,4) in pixels of the image, scores (N) and labels (N), best first; and what the model says of itself."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    meta = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    image = open_image(file, meta["value_range"])
    width, height = (max(1, round(side * (meta["imgsz"] / max(image.size)))) for side in image.size)
    rows, columns = meta["input_size"] or (-(-side // 32) * 32 for side in (height, width))
    canvas = np.full((meta["batch"] or 1, rows, columns, 3), meta["pad_value"], np.uint8)
    canvas[0, :height, :width] = image.resize((width, height), Image.Resampling.BILINEAR)
    inputs = {"images": as_input(canvas, meta), "sizes": np.array([[height, width]] * len(canvas))}
    found = [output[0] for output in session.run(None, inputs)]
    boxes, scores, labels = found if meta["nms"] else suppress(*found, (rows, columns), meta)
    real = scores > 0
    return boxes[real] * ([image.width / width, image.height / height] * 2), scores[real], labels[real], meta


def open_image(file, value_range):
    """RGB as displayed: transparency on white, 16 bits of grey to 8 by the range of values the model knows."""
    # From memory: of a file on disk Pillow does not turn the pixels of a TIFF with 16 bits.
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(Path(file).read_bytes())))
    if image.mode in ("I", "F"):
        sys.exit(f"{file}: expected 8 or 16 bits a channel without a sign, found 32 bits or a sign")
    if image.mode.startswith("I;16"):
        values = (np.asarray(image) - float(value_range[0])) * 255 / (value_range[1] - value_range[0])
        image = Image.fromarray(np.rint(values.clip(0, 255)).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("RGB")


def as_input(canvas, meta):
    """Bytes, numbers from 0 to 1, or normalized numbers, as the model takes them."""
    if meta["images"] == "float":
        canvas = canvas.astype(np.float32) / 255
    elif meta["images"] == "normalized":
        canvas = (canvas.astype(np.float32) / 255 - np.float32(meta["mean"])) / np.float32(meta["std"])
    return np.ascontiguousarray(canvas.transpose(0, 3, 1, 2))


def suppress(boxes, scores, size, meta):
    """From boxes and scores of all priors to detections: only for a model that was exported with --nms false."""
    each, counts = meta["priors_per_location"], [len(scores)]
    if each:
        counts = [-(-size[0] // stride) * -(-size[1] // stride) * each for stride in meta["strides"]]
    ends = np.cumsum(counts)
    order = [np.argsort(-scores[end - count : end].max(1), kind="stable") for count, end in zip(counts, ends)]
    places = [best[: meta["candidates"]] + end - count for best, count, end in zip(order, counts, ends)]
    boxes, scores = boxes[np.concatenate(places)], scores[np.concatenate(places)]
    found = []
    for label in range(scores.shape[1]):
        own = boxes if boxes.ndim == 2 else boxes[:, label]
        likely = (scores[:, label] > meta["score_threshold"]) & (own[:, 2:] - own[:, :2] >= meta["least_side"]).all(1)
        mine, score = own[likely], scores[likely, label]
        left = np.argsort(-score, kind="stable")
        while len(left):
            overlap = iou(mine[left[0]], mine)
            box = mine[left[0]]
            if meta["voting"]:
                weight = np.where(overlap > 0.01, np.exp(-((1 - overlap) ** 2) / 0.025) * score, 0)
                box = weight @ mine / max(weight.sum(), 1e-12)
            found.append((box, score[left[0]], label))
            left = left[1:] if meta["iou_threshold"] is None else left[1:][overlap[left[1:]] <= meta["iou_threshold"]]
    found = sorted(found, key=lambda one: -one[1])[: meta["keep"]]
    boxes, scores, labels = zip(*found) if found else ((), (), ())
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, np.int64)


def iou(box, boxes):
    """Intersection over union of a box with many."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = sides.clip(0).prod(1)
    areas = [(one[..., 2:] - one[..., :2]).clip(0).prod(-1) for one in (box, boxes)]
    return shared / (areas[0] + areas[1] - shared).clip(1e-6)


if __name__ == "__main__":
    least = float(sys.argv[3]) if len(sys.argv) > 3 else 0.3
    boxes, scores, labels, meta = detect(sys.argv[1], sys.argv[2])
    for box, score, label in zip(boxes, scores, labels):
        if score >= least:
            print(meta["classes"][label], f"{score:.3f}", *(f"{side:.1f}" for side in box))
'''
)
"""The program; its first function is all there is to a model that suppresses overlapping boxes itself."""
