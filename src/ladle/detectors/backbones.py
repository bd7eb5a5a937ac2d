"""Backbones: networks that turn an image into feature maps of stride 8, 16 and 32, and of stride 4 if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from ladle.detectors.csp import CSP_NETWORKS
from ladle.detectors.layers import group_norm
from ladle.errors import UserError
from ladle.limits import Length
from ladle.untrusted import read_weights

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "RESNETS",
    "SMALL",
    "Backbone",
    "BackboneSpec",
    "Color",
    "color_statistics",
]

Color = tuple[float, float, float]
"""A number for red, green and blue, in [0, 1]."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RESNETS = {"r18": "resnet18", "r34": "resnet34", "r50": "resnet50", "r101": "resnet101"}
"""Short names of torchvision's residual networks."""
SMALL = {"tiny": (16, 24, 48, 64, 96), "mini": (20, 28, 56, 96, 144), "small": (24, 32, 64, 128, 192)}
"""Widths of Ladle's small networks, which train on a CPU, at stride 2, 4, 8, 16 and 32."""

Norm = Literal["batch", "group", "frozen"]


@dataclass(frozen=True)
class BackboneSpec:
    """Which backbone to build, and where its first weights come from.

    Args:
        name: ``tiny``, ``mini``, ``small``, ``r18`` ... ``r101`` (torchvision), ``cspnext_n`` ... ``cspdarknet_m``
            (:data:`~ladle.detectors.csp.CSP_NETWORKS`), or a timm model with ``features_only``.
        norm: ``batch`` and ``group`` train; ``frozen`` keeps the statistics and scales that came with the weights.
        pretrained: fetch ImageNet weights from the model's hub.
        weights: a file of weights to start from instead (.safetensors, or a .pth of tensors).
        finest: stride of the finest map: 8, or 4 for detectors in two stages on large images.
    """

    name: Annotated[str, Length(1, 100)]
    norm: Norm = "batch"
    pretrained: bool = False
    weights: str | None = None
    finest: Literal[4, 8] = 8

    def build(self) -> Backbone:
        """Build the network; raises UserError if weights are asked for and cannot be loaded."""
        net = self._net()
        if self.weights is not None:
            _load(net, Path(self.weights))
        if self.norm == "frozen":
            from timm.layers.norm_act import freeze_batch_norm_2d

            net.body = freeze_batch_norm_2d(net.body)
            if self.name in RESNETS:
                _fold(net.body)
        return net

    @property
    def from_scratch(self) -> bool:
        """Whether the first weights are random."""
        return not self.pretrained and self.weights is None

    @property
    def can_group(self) -> bool:
        """Whether it can be built with group normalization."""
        return self.name in SMALL or self.name in RESNETS or self.name in CSP_NETWORKS

    def _net(self) -> Backbone:
        levels = len(_strides(self.finest))
        if self.pretrained and (self.name in SMALL or self.name in CSP_NETWORKS):
            raise UserError(f"{self.name} has no published weights on a hub: leave out --pretrained")
        if self.name in CSP_NETWORKS:
            network = CSP_NETWORKS[self.name]
            norm: Literal["batch", "group"] = "group" if self.norm == "group" else "batch"
            return Backbone(network.build(norm, levels), network.channels[-levels:])
        if self.name in SMALL:
            return Backbone(SmallResNet(SMALL[self.name], self.norm, levels), SMALL[self.name][-levels:])
        if self.name in RESNETS:
            return _resnet(RESNETS[self.name], self.norm, self.pretrained, self.finest)
        return _timm(self.name, self.norm, self.pretrained, self.finest)


def color_statistics(name: str) -> tuple[Color, Color]:
    """Mean and standard deviation for normalizing images: those with which the backbone's weights were trained.

    They are ImageNet's unless timm states others for a model, such as 0.5 for ``tf_efficientnet_lite0``. CSPDarknet
    takes values from 0 to 255, as YOLOX's.
    """
    if name in CSP_NETWORKS and CSP_NETWORKS[name].block == "darknet":
        return (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
    if name in SMALL or name in RESNETS or name in CSP_NETWORKS:
        return IMAGENET_MEAN, IMAGENET_STD
    from timm.models import get_pretrained_cfg, is_model

    known = get_pretrained_cfg(name) if is_model(name) else None
    if known is None or len(known.mean) != 3 or len(known.std) != 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return known.mean, known.std


class Backbone(nn.Module):
    """A network with the numbers of channels of its maps, at strides 8, 16 and 32 or from 4 on."""

    def __init__(self, body: nn.Module, channels: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.channels = tuple(channels)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Normalized images (B,3,H,W) to maps (B,C,H/s,W/s), finest first."""
        maps = self.body(images)
        return tuple(maps.values()) if isinstance(maps, dict) else tuple(maps)


class SmallResNet(nn.Module):
    """A residual network narrow enough to train on a CPU: a stem, then one basic block per stride."""

    def __init__(self, widths: Sequence[int], norm: Norm, levels: int = 3) -> None:
        super().__init__()
        self.levels = levels
        self.stem = _conv(3, widths[0], 2, norm)
        pairs = zip(widths[:-1], widths[1:], strict=True)
        self.blocks = nn.ModuleList(_Block(narrow, wide, norm) for narrow, wide in pairs)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = torch.relu(self.stem(images)), []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps[-self.levels :]


class _Block(nn.Module):
    """Two 3x3 convolutions that halve the resolution, around a shortcut."""

    def __init__(self, narrow: int, wide: int, norm: Norm) -> None:
        super().__init__()
        self.down = _conv(narrow, wide, 2, norm)
        self.refine = _conv(wide, wide, 1, norm)
        self.refine2 = _conv(wide, wide, 1, norm)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.down(x))
        return torch.relu(x + self.refine2(torch.relu(self.refine(x))))


def _conv(narrow: int, wide: int, stride: int, norm: Norm) -> nn.Sequential:
    layer = nn.Conv2d(narrow, wide, 3, stride, 1, bias=False)
    return nn.Sequential(layer, group_norm(wide) if norm == "group" else nn.BatchNorm2d(wide))


def _strides(finest: int) -> tuple[int, ...]:
    return tuple(stride for stride in (4, 8, 16, 32) if stride >= finest)


def _resnet(name: str, norm: Norm, pretrained: bool, finest: int) -> Backbone:
    from torchvision.models import get_model
    from torchvision.models._utils import IntermediateLayerGetter

    with _fetching(name):
        layer = group_norm if norm == "group" else nn.BatchNorm2d
        net = get_model(name, weights="IMAGENET1K_V1" if pretrained else None, norm_layer=layer)
    layers = range(5 - len(_strides(finest)), 5)
    body = IntermediateLayerGetter(net, {f"layer{n}": f"c{n + 1}" for n in layers})
    return Backbone(body, tuple(net.fc.in_features // 2 ** (4 - n) for n in layers))


def _fold(body: nn.Module) -> None:
    """Fold the frozen normalizations of a residual network into the weights of the convolutions before them.

    That saves two passes over the maps, which are far larger than the weights. Names and state do not change.
    """
    for block in list(body.modules()):
        children = dict(block.named_children())
        pairs = [(name, f"bn{name[4:]}") for name in children if name.startswith("conv")]
        # The shortcut of a block is a sequence of both.
        pairs += [("0", "1")] if isinstance(block, nn.Sequential) and len(block) == 2 else []
        for before, behind in pairs:
            conv, norm = children.get(before), children.get(behind)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d):
                applied = _Applied(norm)
                setattr(block, behind, applied)
                setattr(block, before, _FoldedConv(conv, applied))


class _Applied(FrozenBatchNorm2d):  # type: ignore[misc]  # torchvision is untyped
    """A frozen normalization that the convolution before it has applied; it keeps the parameters."""

    def __init__(self, norm: FrozenBatchNorm2d) -> None:
        super().__init__(len(norm.weight), norm.eps)
        self.load_state_dict(norm.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return x

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


class _FoldedConv(nn.Conv2d):
    """A convolution without a bias that applies the normalization behind it."""

    def __init__(self, conv: nn.Conv2d, norm: _Applied) -> None:
        sides = conv.kernel_size, conv.stride, conv.padding, conv.dilation
        super().__init__(conv.in_channels, conv.out_channels, *sides, conv.groups, bias=False)  # type: ignore[arg-type]
        self.weight = conv.weight
        # In a tuple, so that it is not registered here and keeps its place in the network's state.
        self._norm = (norm,)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self._norm[0].scale_and_shift()
        folded: Tensor = self._conv_forward(x, self.weight * scale.view(-1, 1, 1, 1), shift)
        return folded


def _timm(name: str, norm: Norm, pretrained: bool, finest: int) -> Backbone:
    import timm

    if norm == "group":
        raise UserError(f"--norm group is for our own and torchvision's backbones; use --norm batch with {name}")
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name}*")[:5]) or "see `ladle models --timm PATTERN`"
        raise UserError(
            f"no backbone is called {name!r}: expected tiny, mini, small, r18, r34, r50, r101 or a timm model ({close})"
        )
    try:
        maps = timm.create_model(name, features_only=True).feature_info
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"timm cannot build {name} as a backbone ({error}): `ladle models --timm PATTERN` lists others"
        ) from error
    strides = [int(reduction) for reduction in maps.reduction()]  # type: ignore[union-attr, operator]
    missing = [stride for stride in _strides(finest) if stride not in strides]
    if missing:
        every = ", ".join(map(str, _strides(finest)))
        raise UserError(f"backbone {name} has no map of stride {missing[0]}: choose one with strides {every}")
    wanted = tuple(strides.index(stride) for stride in _strides(finest))
    with _fetching(name):
        net = timm.create_model(name, features_only=True, pretrained=pretrained, out_indices=wanted)
    return Backbone(net, net.feature_info.channels())  # type: ignore[union-attr, operator]


class _fetching:  # noqa: N801 - reads as a verb: `with _fetching(name)`
    """Turn a failed download into one sentence."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, RuntimeError)) and not isinstance(error, UserError):
            raise UserError(
                f"the pretrained weights of {self.name} could not be fetched ({error}): give --backbone-weights FILE, "
                "or leave out --pretrained to start from random weights"
            ) from error


def _load(net: Backbone, file: Path) -> None:
    """Load every weight of the body; the classifier's weights may be left over, no other may be missing."""
    state = _read(file)
    found = net.body.load_state_dict(state, strict=False)
    expected = set(net.body.state_dict())
    wrong = [key for key in expected & set(state) if net.body.state_dict()[key].shape != state[key].shape]
    missing = [key for key in found.missing_keys if not key.endswith("num_batches_tracked")]
    if missing or wrong:
        raise UserError(
            f"{file} does not fit the backbone: {len(missing)} of its {len(expected)} tensors are missing "
            f"(first: {(missing or wrong)[0]}); give weights of the same network with --backbone-weights"
        )


def _read(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise UserError(f"--backbone-weights {file}: there is no such file")
    try:
        state = read_weights(file)
    except Exception as error:
        raise UserError(f"--backbone-weights {file} cannot be read as tensors: {error}") from error
    return dict(state if file.suffix == ".safetensors" else state.get("state_dict", state.get("model", state)))
