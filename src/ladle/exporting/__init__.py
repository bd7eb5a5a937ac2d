"""Detectors as files that run without Ladle, ONNX and PyTorch's ``.pt2``, and whether these answer as they do."""

from ladle.exporting.files import onnx_bytes, program_bytes, rounded, trace
from ladle.exporting.measure import Cost, Latency, latency_of, network_cost, peak_memory, planned_cost, processor
from ladle.exporting.metadata import describe, spelled
from ladle.exporting.module import Dynamic, Exportable, Format, Images, Plan
from ladle.exporting.onnx_detector import OnnxDetector
from ladle.exporting.packages import check_exporter, check_packages, writes_onnx
from ladle.exporting.parity import TOLERANCE, Parity, as_input, check_parity
from ladle.exporting.quantizing import quantized
from ladle.exporting.runtime import onnx_runner, program_runner
from ladle.exporting.script import FIRST_LINE, SCRIPT

__all__ = [
    "FIRST_LINE",
    "SCRIPT",
    "TOLERANCE",
    "Cost",
    "Dynamic",
    "Exportable",
    "Format",
    "Images",
    "Latency",
    "OnnxDetector",
    "Parity",
    "Plan",
    "as_input",
    "check_exporter",
    "check_packages",
    "check_parity",
    "describe",
    "latency_of",
    "network_cost",
    "onnx_bytes",
    "onnx_runner",
    "peak_memory",
    "planned_cost",
    "processor",
    "program_bytes",
    "program_runner",
    "quantized",
    "rounded",
    "spelled",
    "trace",
    "writes_onnx",
]
