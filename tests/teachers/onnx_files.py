"""Tiny ONNX detectors of known behavior, made with the operators that exporters use."""

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE, CELL = 64, 8
PLACES = (SIDE // CELL) ** 2
NAMES = ("red", "green", "blue")


def cells():
    """The 64 cells of a grid of stride 8 as boxes, row by row."""
    y, x = np.mgrid[0:SIDE:CELL, 0:SIDE:CELL].reshape(2, -1).astype(np.float32)
    return np.stack([x, y, x + CELL, y + CELL], -1)[None]


def save(path, nodes, outputs, constants, names=NAMES, batch=1, side=SIDE):
    """Write a model that takes ``images`` and gives outputs by name with their shapes."""
    inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 3, side, side])]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, given, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if names is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = "names", json.dumps(dict(enumerate(names)))
    onnx.save(model, str(path))
    return path


def mean_colors(divisor):
    """Nodes whose ``scores`` (B,64,3) are the mean channels of each cell over ``divisor``."""
    return [
        helper.make_node("AveragePool", ["images"], ["pooled"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Reshape", ["pooled", "flat_shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Div", ["rows", "divisor"], ["scores"]),
    ], {"flat_shape": np.array([0, 3, PLACES], np.int64), "divisor": np.float32(divisor)}


def boxes_and_scores(path, names=NAMES):
    """Each cell is a box, its color the scores of the classes red, green and blue; images from 0 to 255."""
    nodes, constants = mean_colors(255.0)
    nodes.append(helper.make_node("Identity", ["cells"], ["boxes"]))
    shapes = {"boxes": [1, PLACES, 4], "scores": [1, PLACES, 3]}
    return save(path, nodes, shapes, constants | {"cells": cells()}, names)


def yolo(path, objectness=False, names=NAMES):
    """The same in YOLO's layouts: center, width, height, then scores; images from 0 to 1."""
    nodes, constants = mean_colors(1.0)
    corners = cells()
    boxes = np.concatenate([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1)
    parts = ["boxes", "half", "scores"] if objectness else ["boxes", "scores"]
    nodes.append(helper.make_node("Concat", parts, ["joined"], axis=2))
    constants |= {"boxes": boxes, "half": np.full((1, PLACES, 1), 0.5, np.float32)}
    nodes.append(
        helper.make_node("Identity", ["joined"], ["output0"])
        if objectness
        else helper.make_node("Transpose", ["joined"], ["output0"], perm=[0, 2, 1])
    )
    shape = [1, PLACES, 8] if objectness else [1, 7, PLACES]
    return save(path, nodes, {"output0": shape}, constants, names)


def distributions(path, bins=4, names=NAMES):
    """Every edge at a distance of one stride from the place, with certainty; scores as before."""
    nodes, constants = mean_colors(255.0)
    edges = np.full((1, PLACES, 4, bins), -50, np.float32)
    edges[..., 1] = 50
    constants |= {"edges": edges.reshape(1, PLACES, -1)}
    nodes.append(helper.make_node("Identity", ["edges"], ["box_distributions"]))
    shapes = {"scores": [1, PLACES, 3], "box_distributions": [1, PLACES, 4 * bins]}
    return save(path, nodes, shapes, constants, names)


def as_many_as_found(path):
    """The boxes and scores of those cells alone that are bright, as exports with NMS give them."""
    nodes, constants = mean_colors(255.0)
    nodes += [
        helper.make_node("ReduceMax", ["scores"], ["best"], axes=[0, 2], keepdims=0),
        helper.make_node("Greater", ["best", "least"], ["bright"]),
        helper.make_node("Compress", ["cells", "bright"], ["boxes"], axis=1),
        helper.make_node("Compress", ["scores", "bright"], ["kept"], axis=1),
    ]
    constants |= {"cells": cells(), "least": np.float32(0.1)}
    return save(path, nodes, {"boxes": [1, "N", 4], "kept": [1, "N", 3]}, constants)


def detr(path, names=NAMES, logits=("logits", "pred_boxes")):
    """DETR's outputs: class logits, and boxes as center, width and height in fractions of the input."""
    nodes, constants = mean_colors(255.0)
    corners = cells() / SIDE
    boxes = np.concatenate([(corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]], -1)
    scores, places = logits
    nodes += [
        helper.make_node("Clip", ["scores", "low", "high"], ["likely"]),
        helper.make_node("Sub", ["one", "likely"], ["unlikely"]),
        helper.make_node("Div", ["likely", "unlikely"], ["odds"]),
        helper.make_node("Log", ["odds"], [scores]),
        helper.make_node("Identity", ["fractions"], [places]),
    ]
    constants |= {"fractions": boxes, "one": np.float32(1), "low": np.float32(1e-4), "high": np.float32(1 - 1e-4)}
    return save(path, nodes, {scores: [1, PLACES, 3], places: [1, PLACES, 4]}, constants, names)


def detections(path, names=NAMES):
    """End-to-end detections (1,4,6): one of class 2, one of class 0, and two rows of nothing; images are not used."""
    rows = [[8, 16, 40, 48, 0.9, 2], [24, 8, 32, 16, 0.8, 0], [0, 0, 0, 0, 0, 0], [0, 0, 9, 9, 0.7, -1]]
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["most"], keepdims=0),
        helper.make_node("Mul", ["most", "zero"], ["nothing"]),
        helper.make_node("Add", ["rows", "nothing"], ["output0"]),
    ]
    constants = {"rows": np.array([rows], np.float32), "zero": np.float32(0)}
    return save(path, nodes, {"output0": [1, 4, 6]}, constants, names)
