"""Checkpoints of public releases as Ladle's detectors: mmdetection's, and YOLOX's own.

Names of tensors are translated, nothing else: a checkpoint fits completely or is an error. Only tensors are read from
its file. Published networks that take blue, green and red get their first convolution turned around.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ladle.boxes import STDS
from ladle.detectors import FPN, DenseSpec, Detector, DetectorSpec
from ladle.errors import UserError, first_line
from ladle.families.family import Start
from ladle.families.names import detector_spec
from ladle.untrusted import read_weights

__all__ = ["from_published", "published_spec", "read_tensors"]

_COUNTER = "num_batches_tracked"
_Rule = tuple[str, str | Callable[[re.Match[str]], str]]

_OF_YOLOX: tuple[_Rule, ...] = (
    (r"(dark[234]\.1|dark5\.2|C3_\w\d)\.conv1\.", r"\1.main_conv."),
    (r"(dark[234]\.1|dark5\.2|C3_\w\d)\.conv2\.", r"\1.short_conv."),
    (r"(dark[234]\.1|dark5\.2|C3_\w\d)\.conv3\.", r"\1.final_conv."),
    (r"\.m\.(\d)\.", r".blocks.\1."),
    (r"\.dconv\.", ".depthwise_conv."),
    (r"\.pconv\.", ".pointwise_conv."),
    (r"^backbone\.backbone\.stem\.", "backbone.stem."),
    (r"^backbone\.backbone\.dark(\d)\.", lambda found: f"backbone.stage{int(found[1]) - 1}."),
    (r"^backbone\.lateral_conv0\.", "neck.reduce_layers.0."),
    (r"^backbone\.C3_p4\.", "neck.top_down_blocks.0."),
    (r"^backbone\.reduce_conv1\.", "neck.reduce_layers.1."),
    (r"^backbone\.C3_p3\.", "neck.top_down_blocks.1."),
    (r"^backbone\.bu_conv2\.", "neck.downsamples.0."),
    (r"^backbone\.C3_n3\.", "neck.bottom_up_blocks.0."),
    (r"^backbone\.bu_conv1\.", "neck.downsamples.1."),
    (r"^backbone\.C3_n4\.", "neck.bottom_up_blocks.1."),
    (r"^head\.stems\.", "neck.out_convs."),
    (r"^head\.(cls|reg)_convs\.", r"bbox_head.multi_level_\1_convs."),
    (r"^head\.(cls|reg|obj)_preds\.", r"bbox_head.multi_level_conv_\1."),
)
"""From the names of YOLOX's own release to mmdetection's."""

_OF_LIGHT: tuple[_Rule, ...] = (
    # A convolution and its normalization are layers 0 and 1; of a factored one the 1x1 convolution has 3 and 4.
    (r"^backbone\.stem\.conv\.", "backbone.stem.focus."),
    (r"\.depthwise_conv\.(conv|bn)\.", lambda found: f".@{['conv', 'bn'].index(found[1])}."),
    (r"\.pointwise_conv\.(conv|bn)\.", lambda found: f".@{3 + ['conv', 'bn'].index(found[1])}."),
    (r"\.(conv|bn)\.", lambda found: f".@{['conv', 'bn'].index(found[1])}."),
    (r"^backbone\.stem\.focus\.", "backbone.body.stem.conv."),
    (r"^backbone\.stem\.", "backbone.body.stem."),
    (r"^backbone\.stage(\d)\.", lambda found: f"backbone.body.stages.{int(found[1]) - 1}."),
    (r"\.(main|short|final)_conv\.", r".\1."),
    (r"\.attention\.fc\.", ".attention.conv."),
    (r"\.blocks\.(\d+)\.conv1\.@(\d)", r".blocks.\1.layers.\2"),
    (r"\.blocks\.(\d+)\.conv2\.@(\d)", lambda found: f".blocks.{found[1]}.layers.{3 + int(found[2])}"),
    (r"(stages\.3\.1)\.conv1\.", r"\1.first."),
    (r"(stages\.3\.1)\.conv2\.", r"\1.last."),
    (r"^neck\.reduce_layers\.(\d)", lambda found: f"neck.reduce.{1 - int(found[1])}"),
    (r"^neck\.top_down_blocks\.(\d)", lambda found: f"neck.down.{1 - int(found[1])}"),
    (r"^neck\.downsamples\.", "neck.shrink."),
    (r"^neck\.bottom_up_blocks\.", "neck.up."),
    (r"^neck\.out_convs\.", "neck.last."),
    (r"^bbox_head\.(?:rtm_|multi_level_conv_)cls\.", "stages.0.class_conv."),
    (r"^bbox_head\.(?:rtm_|multi_level_conv_)reg\.", "stages.0.box_conv."),
    (r"^bbox_head\.multi_level_conv_obj\.", "stages.0.quality_conv."),
    (r"^bbox_head\.(?:multi_level_)?cls_convs\.", "stages.0.class_tower."),
    (r"^bbox_head\.(?:multi_level_)?reg_convs\.", "stages.0.box_tower."),
)
"""From mmdetection's names of RTMDet and YOLOX to Ladle's; towers and layers marked with @ are numbered afterwards."""

_OF_COMMON: tuple[_Rule, ...] = (
    (r"^backbone\.", "backbone.body."),
    (r"^neck\.lateral_convs\.(\d)\.conv\.", r"neck.fpn.inner_blocks.\1.0."),
    (r"^neck\.fpn_convs\.3\.conv\.", "neck.fpn.extra_blocks.p6."),
    (r"^neck\.fpn_convs\.4\.conv\.", "neck.fpn.extra_blocks.p7."),
    (r"^neck\.fpn_convs\.(\d)\.conv\.", r"neck.fpn.layer_blocks.\1.0."),
    (r"^bbox_head\.(?:atss|gfl|retina)_cls\.", "stages.0.class_conv."),
    (r"^bbox_head\.(?:atss|gfl|retina)_reg\.", "stages.0.box_conv."),
    (r"^bbox_head\.atss_centerness\.", "stages.0.quality_conv."),
    (r"^bbox_head\.cls_convs\.", "stages.0.class_tower."),
    (r"^bbox_head\.reg_convs\.", "stages.0.box_tower."),
)
"""From mmdetection's names of RetinaNet, ATSS, PAA and GFL to Ladle's; layers of towers are numbered afterwards."""


def published_spec(name: str, classes: Sequence[str]) -> DetectorSpec:
    """The spec of ``name`` as its checkpoint was published; raises :class:`UserError` for one without a checkpoint.

    Names are the sizes of RTMDet and YOLOX, and ``r50`` and ``r101`` of RetinaNet, ATSS, PAA and GFL.
    """
    spec = detector_spec(name, classes)
    head = spec.head
    if isinstance(head, DenseSpec) and head.light is not None:
        return spec
    if not isinstance(head, DenseSpec) or head.box not in ("deltas", "distribution") or "+" in name:
        raise UserError(f"{name}: no public checkpoint is known; expected such as rtmdet-s, yolox-s, atss-r50, paa-r50")
    # RetinaNet, which has several anchors, makes its coarser levels of the backbone's map.
    source = FPN("backbone", rectified=False) if head.anchors.per_location > 1 else FPN("output", rectified=False)
    return replace(detector_spec(name, classes, start=Start(norm="frozen")), neck=source)


def from_published(state: Mapping[str, Tensor], name: str, classes: Sequence[str]) -> Detector:
    """A public checkpoint's tensors as the detector ``name``, which then predicts the same.

    Args:
        state: the tensors by the names of mmdetection 2 or 3, or of YOLOX's release; see :func:`read_tensors`.
        name: one of the detectors of :func:`published_spec`.
        classes: names of the checkpoint's classes, in its order.

    Raises:
        UserError: where a tensor is missing, left over or of another shape.
    """
    spec = published_spec(name, classes)
    detector = spec.build()
    expected = detector.state_dict()
    found = _translated(state, spec)
    needed = {key for key in expected if not key.endswith(_COUNTER)}
    wrong = sorted(needed - set(found)) + sorted(set(found) - set(expected))
    wrong += sorted(key for key in needed & set(found) if found[key].shape != expected[key].shape)
    if wrong:
        raise UserError(
            f"these tensors are not those of a published {name} with {len(spec.classes)} classes: {len(wrong)} do not "
            f"fit (first: {wrong[0]}); give the model that the checkpoint is of, and all of its classes"
        )
    detector.load_state_dict({key: value.float() for key, value in found.items()}, strict=False)
    return detector.eval()


def read_tensors(file: Path | str) -> dict[str, Tensor]:
    """The tensors of a checkpoint (.pth, .safetensors); of two sets the running average, as the release evaluates it.

    In files of mmdetection the average lies under ``state_dict`` and the weights before averaging beside it: in those
    of version 3 under ``ema_state_dict``, in those of version 2 among the others, with ``ema_`` before their names.

    Raises :class:`UserError` for a file that holds anything but plain data and tensors.
    """
    file = Path(file)
    if not file.is_file():
        found = "a folder" if file.is_dir() else "no file"
        raise UserError(f"{file}: expected a checkpoint with tensors, found {found}")
    try:
        content = read_weights(file)
    except Exception as error:
        reason = first_line(error)
        about = "" if "weights_only" in reason else f" ({reason})"  # PyTorch advises to run its code
        raise UserError(
            f"{file}: expected tensors and plain data, found what cannot be read as such{about}; keep its state_dict "
            "alone, with the program that wrote it"
        ) from error
    if file.suffix == ".safetensors":
        return dict(content)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict) and content[key]:
            content = content[key]
    tensors = content.items() if isinstance(content, dict) else ()
    weights = {key.removeprefix("module."): value for key, value in tensors if isinstance(value, Tensor)}
    before = {f"ema_{key.replace('.', '_')}" for key in weights}
    return {key: value for key, value in weights.items() if key not in before}


def _translated(state: Mapping[str, Tensor], spec: DetectorSpec) -> dict[str, Tensor]:
    """The tensors by Ladle's names."""
    head = spec.head
    assert isinstance(head, DenseSpec)
    if head.light is None:
        return _of_common(state, head)
    if any(key.startswith("head.") for key in state):
        state = {_renamed(key, _OF_YOLOX): value for key, value in state.items()}
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.endswith(_COUNTER):
            continue
        name = _numbered(_renamed(key, _OF_LIGHT), head)
        if name in found and head.light.shared and not torch.equal(found[name], value):
            raise UserError(f"{key}: expected the convolution that all levels share, found another one")
        found[key if name in found and not head.light.shared else name] = value
    first = next((key for key in found if key.startswith("backbone.body.stem.")), None)
    if first is not None and found[first].dim() == 4 and found[first].shape[1] % 3 == 0:
        # Blue, green, red; a focus has them four times.
        found[first] = found[first].unflatten(1, (-1, 3)).flip(2).flatten(1, 2)
    return found


def _numbered(name: str, head: DenseSpec) -> str:
    """The name with the number of each layer, and of each convolution and normalization of a tower."""
    tower = re.fullmatch(r"(stages\.0\.\w+_tower)\.(\d+)\.(\d+)\.@(\d)\.(\w+)", name)
    if tower is None or head.light is None:
        return name.replace("@", "")
    part, level, place, layer, kind = tower.groups()
    number = int(place) * (2 if head.light.conv.depthwise else 1) + int(layer) // 3
    if int(layer) % 3:
        return f"{part}.norms.{level}.{number}.{kind}"
    return f"{part}.convs.{0 if head.light.shared else level}.{number}.{kind}"


def _of_common(state: Mapping[str, Tensor], head: DenseSpec) -> dict[str, Tensor]:
    """The tensors of a network with the common head."""
    found: dict[str, Tensor] = {}
    scales = [key for key in state if key.endswith(".scale")]
    for key, value in state.items():
        if key.endswith((_COUNTER, "integral.project")) or key in scales:
            continue
        found[_layer(_renamed(key, _OF_COMMON), 3 if head.norm else 2)] = value
    if scales:
        found["stages.0.scales"] = torch.stack([state[key] for key in scales])
    if head.anchors.per_location > 1:
        # RetinaNet's deltas were published with standard deviations of 1.
        stds = torch.tensor([STDS[0], STDS[0], STDS[1], STDS[1]]).repeat(head.anchors.per_location)
        for kind, sides in (("weight", (-1, 1, 1, 1)), ("bias", (-1,))):
            name = f"stages.0.box_conv.{kind}"
            if name in found:
                found[name] = found[name] / stds.view(sides)
    return found


def _layer(name: str, layers: int) -> str:
    tower = re.fullmatch(r"(stages\.0\.\w+_tower)\.(\d+)\.(conv|gn)\.(\w+)", name)
    if tower is None:
        return name
    return f"{tower[1]}.{int(tower[2]) * layers + (tower[3] == 'gn')}.{tower[4]}"


def _renamed(name: str, rules: Sequence[_Rule]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
