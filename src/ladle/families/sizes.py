"""The sizes of detectors: what a name says behind its family, and the words between them that change a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ladle.detectors import FPN, PAN, ConvSpec, DenseSpec, LightSpec, ProposalSpec
from ladle.errors import UserError

__all__ = ["HEADS", "NETWORKS", "SIZES", "Network", "Size", "with_options"]


class Size(NamedTuple):
    """The size of the parts of a detector.

    ``width`` is the number of channels of neck and head, ``depth`` the number of convolutions in a tower, ``scale`` the
    side of a square anchor in strides, ``extra`` the number of pyramid levels above stride 32, ``imgsz`` the long side
    of the images in pixels.
    """

    width: int = 256
    depth: int = 4
    scale: float = 8.0
    extra: int = 2
    imgsz: int = 640


SIZES = {
    "tiny": Size(48, 1, 4.0, 0, 160),
    "mini": Size(64, 2, 4.0, 0, 160),
    "small": Size(96, 2, 4.0, 0, 160),
}
"""The sizes of detectors with Ladle's small backbones, which train on a CPU; others have the published size."""


@dataclass(frozen=True)
class Network:
    """The parts of a detector whose sizes belong together.

    Args:
        backbone: its name, as in :class:`~ladle.detectors.BackboneSpec`.
        head: the dense head or proposal network.
        neck: the feature pyramid or path aggregation network.
        extra: number of pyramid levels above stride 32.
        imgsz: long side of the images in pixels.
        finest: stride of the finest level, 4 or 8.
        one_to_one: whether there is a one-to-one head beside the dense head.
    """

    backbone: str
    head: DenseSpec | ProposalSpec
    neck: FPN | PAN = field(default_factory=FPN)
    extra: int = 0
    imgsz: int = 640
    finest: int = 8
    one_to_one: bool = False


HEADS: dict[str, dict[str, Any]] = {
    "dist": {"box": "distribution"},
    "cop": {"objectness": "conditional"},
    "io": {"objectness": "implicit"},
}
"""The options of a dense head, by the word after the family's name: ``paa+dist-r18``."""


def _common(head: DenseSpec) -> DenseSpec:
    """The common head in place of a task-aligned one, which has no towers, distributions or objectness to change."""
    return replace(head, depth=Size().depth, distance="softplus", aligned=False) if head.aligned else head


_LITE_WIDTH, _LITE_DEPTH = 96, 2
_LITE = ConvSpec(depthwise=True)


def _lite(network: Network, head: DenseSpec) -> Network:
    """Neck and head in the style of NanoDet-Plus: depthwise convolutions of 96 channels, one tower for each level."""
    light = LightSpec(_LITE, kernel=5, shared=False, joint=True)
    head = replace(_common(head), width=min(head.width, _LITE_WIDTH), depth=min(head.depth, _LITE_DEPTH), light=light)
    neck = PAN("cspnext", conv=_LITE, inside="output", last=0)
    return replace(network, head=head, neck=neck)


def _p2(network: Network, head: DenseSpec) -> Network:
    """A level of stride 4 below the others, for small objects."""
    return replace(network, finest=4)


def _p6(network: Network, head: DenseSpec) -> Network:
    """A level of stride 64 on top, for large objects."""
    if network.extra:
        raise UserError(f"+p6: this network has levels up to stride {32 * 2**network.extra} already; leave it out")
    return replace(network, extra=1)


def _o2o(network: Network, head: DenseSpec) -> Network:
    """A one-to-one head beside the dense head, for detection without suppression."""
    return replace(network, one_to_one=True)


NETWORKS: Mapping[str, Callable[[Network, DenseSpec], Network]] = {"lite": _lite, "p2": _p2, "p6": _p6, "o2o": _o2o}
"""The options of a network with a dense head, by the same word: ``gfl+lite-mobilenetv3_small_100``."""


def with_options(family: str, network: Network, options: tuple[str, ...]) -> Network:
    """The network with the options after the family's name; raises :class:`UserError` for one that does not fit."""
    for option in options:
        head = _dense(family, network, option)
        if option in NETWORKS:
            network = NETWORKS[option](network, head)
        else:
            network = replace(network, head=replace(_common(head), **HEADS[option]))
    return network


def _dense(family: str, network: Network, option: str) -> DenseSpec:
    """The dense head that an option changes."""
    head = network.head
    if option not in HEADS and option not in NETWORKS:
        known = ", ".join((*HEADS, *NETWORKS))
        raise UserError(f"{family}+{option}: no head is called {option!r}; expected one of {known}")
    if not isinstance(head, DenseSpec):
        raise UserError(f"{family}+{option}: {option} is for dense heads, and {family} has none; leave it out")
    if "objectness" in HEADS.get(option, {}) and head.anchors.per_location > 1:
        raise UserError(
            f"{family}+{option}: {option} makes one score of a location and its neighbors, but this family "
            f"has {head.anchors.per_location} anchors at each; take another, such as paa+{option}"
        )
    return head
