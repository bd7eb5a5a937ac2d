"""Distillers: losses between what the student says and what the teacher says."""

from ladle.distillers.cross import CrossKD
from ladle.distillers.cwd import CWD
from ladle.distillers.defeat import DeFeat
from ladle.distillers.fgd import FGD
from ladle.distillers.fine_grained import FineGrained
from ladle.distillers.fitnet import FitNet
from ladle.distillers.general_instance import GeneralInstance
from ladle.distillers.localization import LocalizationDistillation
from ladle.distillers.mgd import MGD
from ladle.distillers.pkd import PKD
from ladle.distillers.protocol import (
    Distiller,
    DistillerSpec,
    Head,
    Network,
    Outline,
    Outlined,
    TowerDistiller,
    Voice,
)
from ladle.distillers.soft_labels import SoftLabels

__all__ = [
    "CWD",
    "FGD",
    "MGD",
    "PKD",
    "CrossKD",
    "DeFeat",
    "Distiller",
    "DistillerSpec",
    "FineGrained",
    "FitNet",
    "GeneralInstance",
    "Head",
    "LocalizationDistillation",
    "Network",
    "Outline",
    "Outlined",
    "SoftLabels",
    "TowerDistiller",
    "Voice",
]
