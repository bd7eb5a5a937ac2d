"""Families of detectors: each is one value in one file.

A detector is chosen as ``<family>-<backbone>``, such as ``paa-r18``, or with other heads as ``atss+dist-r50``.
"""

from ladle.families.atss import ATSS
from ladle.families.autoassign import AUTOASSIGN
from ladle.families.cascade import CASCADE
from ladle.families.family import HEADS, Family, Region, Size, Start
from ladle.families.faster_rcnn import FASTER_RCNN
from ladle.families.fcos import FCOS
from ladle.families.gfl import GFL
from ladle.families.names import detector_spec, families, family_of, lessons_of, network_info, ready_made
from ladle.families.ota import OTA
from ladle.families.paa import PAA
from ladle.families.retinanet import RETINANET
from ladle.families.rtmdet import RTMDET
from ladle.families.tood import TOOD
from ladle.families.torchvision_models import from_torchvision
from ladle.families.yolox import YOLOX

__all__ = [
    "ATSS",
    "AUTOASSIGN",
    "CASCADE",
    "FASTER_RCNN",
    "FCOS",
    "GFL",
    "HEADS",
    "OTA",
    "PAA",
    "RETINANET",
    "RTMDET",
    "TOOD",
    "YOLOX",
    "Family",
    "Region",
    "Size",
    "Start",
    "detector_spec",
    "families",
    "family_of",
    "from_torchvision",
    "lessons_of",
    "network_info",
    "ready_made",
]
