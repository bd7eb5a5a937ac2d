"""Networks of public implementations with weights drawn from their names, and what they answered on one image.

``network__NAME__SOURCE.npz`` holds the names and shapes of a public network's tensors in the order of its state, and
its output with the weights of :func:`state_of` on :func:`image`: every prior's boxes, the logits of a few classes, and
the quality branch. ``make_networks.py`` makes these files.
"""

import re
import zlib
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent
CLASSES = 4
"""How many of the 80 classes are kept."""
_SHARED = re.compile(r"(cls|reg)_convs\.\d+\.(\d+)\.conv\.")
"""RTMDet's convolutions, which its state holds once for each level."""


def golden(name, source):
    """The recorded arrays of a network."""
    with np.load(FOLDER / f"network__{name}__{source}.npz") as file:
        return dict(file)


def shapes_of(record):
    """The shapes of a recorded network's tensors by name."""
    names = record["names"].tobytes().decode().split("\n")
    shapes = [tuple(int(side) for side in row if side >= 0) for row in record["shapes"]]
    return dict(zip(names, shapes, strict=True))


def state_of(shapes, gain):
    """Weights for tensors of these names and shapes; the same name and shape always has the same values.

    ``gain`` keeps the values from growing or vanishing with the depth of a network.
    """
    return {name: _values(_SHARED.sub(r"\1_convs.0.\2.conv.", name), shape, gain) for name, shape in shapes.items()}


def image(most=255.0):
    """An image of 64 x 96 pixels with values from 0 to ``most``, as float32 (1,3,64,96)."""
    return np.random.RandomState(0).uniform(0, most, (1, 3, 64, 96)).astype(np.float32)


_NORMAL = np.random.RandomState(1).normal(size=65_537)
"""Values that tensors repeat from different places on; drawing millions would take seconds."""


def _values(name, shape, gain):
    kind, place, count = name.rpartition(".")[2], zlib.crc32(name.encode()) % len(_NORMAL), int(np.prod(shape))
    normal = np.resize(np.roll(_NORMAL, place), count).reshape(shape).astype(np.float32)
    if kind == "num_batches_tracked":
        return np.array(1)
    if kind == "project":
        return np.arange(count, dtype=np.float32)  # the bins of GFL
    if kind == "running_var":
        return 0.5 + np.abs(normal)
    if kind == "weight" and len(shape) == 4:
        # Without a mean, so that positive activations do not add up.
        return (normal - normal.mean((1, 2, 3), keepdims=True)) * np.float32(gain / np.sqrt(np.prod(shape[1:])))
    return np.asarray(normal * np.float32(0.1) + np.float32(kind in ("weight", "scale")))
