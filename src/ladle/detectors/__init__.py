"""Detectors: a backbone, a neck and a chain of stages, built from a spec of plain values."""

from ladle.detectors.aligned import AlignedStage
from ladle.detectors.backbones import BackboneSpec
from ladle.detectors.dense import DenseSpec, DenseStage
from ladle.detectors.detector import Detector, DetectorSpec, as_floats
from ladle.detectors.layers import ConvSpec
from ladle.detectors.necks import FPN, PAN
from ladle.detectors.postprocess import Inference
from ladle.detectors.priors import Anchors
from ladle.detectors.proposals import PLAIN_STDS, ProposalSpec, ProposalStage
from ladle.detectors.protocol import DualStudent, Stage, Student, Towers
from ladle.detectors.regions import RegionSpec, RegionStage
from ladle.detectors.towers import LightSpec
from ladle.detectors.weights import absence, adopt_weights, load_detector, read_spec, save_detector

__all__ = [
    "FPN",
    "PAN",
    "PLAIN_STDS",
    "AlignedStage",
    "Anchors",
    "BackboneSpec",
    "ConvSpec",
    "DenseSpec",
    "DenseStage",
    "Detector",
    "DetectorSpec",
    "DualStudent",
    "Inference",
    "LightSpec",
    "ProposalSpec",
    "ProposalStage",
    "RegionSpec",
    "RegionStage",
    "Stage",
    "Student",
    "Towers",
    "absence",
    "adopt_weights",
    "as_floats",
    "load_detector",
    "read_spec",
    "save_detector",
]
