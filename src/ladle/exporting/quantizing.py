"""ONNX files whose layers compute in 8 bits."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ladle.exporting.onnx_detector import OnnxDetector
from ladle.types import Batch

__all__ = ["quantized"]

_LAYERS = ("Conv", "Gemm")


def quantized(model: bytes, batches: Iterable[Batch]) -> bytes:
    """The file with weights and activations of 8 bits, by onnxruntime's static quantization.

    Convolutions and linear layers are quantized, except those that no other one follows: what they compute are scores
    and boxes. Weights have a scale for each output channel and use 7 of the 8 bits, because processors without VNNI
    add two products in 16 bits, which 8-bit weights would overflow. Activations use the range between the smallest
    and the largest value that they have on ``batches``.

    Args:
        model: a file written by ``ladle export``, with weights of 32 bits.
        batches: images as the detector is trained on; some dozens are enough.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    detector, plain = OnnxDetector(model), onnx.load_from_string(model)
    metadata = {one.key: one.value for one in plain.metadata_props}  # which quantization leaves out
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = Path(folder) / "quantized.onnx"
        quantize_static(
            plain,
            file,
            _Feeds(detector, batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_LAYERS),
            nodes_to_exclude=_last_layers(plain),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        made = onnx.load(file)
    onnx.helper.set_model_props(made, metadata)
    written: bytes = made.SerializeToString()
    return written


class _Feeds:
    """The inputs of a file one after the other, as onnxruntime reads them: None after the last."""

    def __init__(self, detector: OnnxDetector, batches: Iterable[Batch]) -> None:
        self._inputs = (pair for batch in batches for pair in detector.inputs(batch))

    def get_next(self) -> dict[str, Any] | None:
        pair = next(self._inputs, None)
        return None if pair is None else {"images": pair[0].numpy(), "sizes": pair[1].numpy()}


def _last_layers(model: Any) -> list[str]:
    """The names of the layers whose results reach no other layer, except as the boxes of regions to cut out."""
    wanted, last = set[str](), []
    for node in reversed(model.graph.node):  # what follows a node stands behind it
        reaches = any(name in wanted for name in node.output)
        if node.op_type in _LAYERS and not reaches:
            last.append(node.name)
        if reaches or node.op_type in _LAYERS:
            wanted.update(node.input[:1] if node.op_type == "RoiAlign" else node.input)
    return last


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep advice to the caller of onnxruntime off the console."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
