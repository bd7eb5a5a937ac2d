"""Distillers: losses between the outputs of a student and of its teacher."""

from ladle.distillers.bckd import BCKD
from ladle.distillers.cross import CrossKD
from ladle.distillers.cwd import CWD
from ladle.distillers.defeat import DeFeat
from ladle.distillers.fgd import FGD
from ladle.distillers.fine_grained import FineGrained
from ladle.distillers.fitnet import FitNet
from ladle.distillers.general_instance import GeneralInstance
from ladle.distillers.joining import Joinable, Method
from ladle.distillers.localization import LocalizationDistillation
from ladle.distillers.mgd import MGD
from ladle.distillers.pkd import PKD
from ladle.distillers.protocol import DistillationLoss, Distiller, Head, Network, Summary, TowerLoss
from ladle.distillers.soft_labels import SoftLabels

__all__ = [
    "BCKD",
    "CWD",
    "FGD",
    "MGD",
    "PKD",
    "CrossKD",
    "DeFeat",
    "DistillationLoss",
    "Distiller",
    "FineGrained",
    "FitNet",
    "GeneralInstance",
    "Head",
    "Joinable",
    "LocalizationDistillation",
    "Method",
    "Network",
    "SoftLabels",
    "Summary",
    "TowerLoss",
]
