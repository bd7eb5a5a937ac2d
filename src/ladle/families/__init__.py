"""Families of detectors: each is one value in one file.

A detector is chosen as ``<family>-<backbone>``, such as ``paa-r18``, with other heads as ``atss+dist-r50``, or by a
size of the family, as ``rtmdet-s``.
"""

from ladle.families.atss import ATSS
from ladle.families.autoassign import AUTOASSIGN
from ladle.families.cascade import CASCADE
from ladle.families.family import Family, Region, Start
from ladle.families.faster_rcnn import FASTER_RCNN
from ladle.families.fcos import FCOS
from ladle.families.gfl import GFL
from ladle.families.names import detector_spec, families, family_of, lessons_of, network_info, ready_made
from ladle.families.ota import OTA
from ladle.families.paa import PAA
from ladle.families.published import from_published, published_spec, read_tensors
from ladle.families.retinanet import RETINANET
from ladle.families.rtmdet import RTMDET
from ladle.families.sizes import HEADS, NETWORKS, Network, Size
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
    "NETWORKS",
    "OTA",
    "PAA",
    "RETINANET",
    "RTMDET",
    "TOOD",
    "YOLOX",
    "Family",
    "Network",
    "Region",
    "Size",
    "Start",
    "detector_spec",
    "families",
    "family_of",
    "from_published",
    "from_torchvision",
    "lessons_of",
    "network_info",
    "published_spec",
    "read_tensors",
    "ready_made",
]
