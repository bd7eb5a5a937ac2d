"""Detectors: a backbone, a neck and a chain of stages, chosen by name or put together by hand."""

from ladle.detectors.backbones import BackboneSpec
from ladle.detectors.dense import DenseSpec, DenseStage
from ladle.detectors.detector import Detector, DetectorSpec
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors
from ladle.detectors.proposals import PLAIN_STDS, ProposalSpec, ProposalStage
from ladle.detectors.ready_made import READY_MADE, Start, detector_spec
from ladle.detectors.regions import RegionSpec, RegionStage
from ladle.detectors.torchvision_models import from_torchvision
from ladle.detectors.weights import load_detector, read_spec, save_detector, state_in_order

__all__ = [
    "PLAIN_STDS",
    "READY_MADE",
    "Anchors",
    "BackboneSpec",
    "DenseSpec",
    "DenseStage",
    "Detector",
    "DetectorSpec",
    "Inference",
    "ProposalSpec",
    "ProposalStage",
    "RegionSpec",
    "RegionStage",
    "Start",
    "detector_spec",
    "from_torchvision",
    "load_detector",
    "read_spec",
    "save_detector",
    "state_in_order",
]
