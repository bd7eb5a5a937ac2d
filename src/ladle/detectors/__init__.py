"""Detectors: a backbone, a neck and a chain of stages, chosen by name or put together by hand."""

from ladle.detectors.backbones import BackboneSpec
from ladle.detectors.dense import DenseSpec, DenseStage
from ladle.detectors.detector import Detector, DetectorSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors
from ladle.detectors.ready_made import READY_MADE, Start, detector_spec
from ladle.detectors.weights import load_detector, read_spec, save_detector

__all__ = [
    "READY_MADE",
    "Anchors",
    "BackboneSpec",
    "DenseSpec",
    "DenseStage",
    "Detector",
    "DetectorSpec",
    "Inference",
    "Start",
    "detector_spec",
    "load_detector",
    "read_spec",
    "save_detector",
]
