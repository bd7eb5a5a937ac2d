"""Teachers of features from timm's models: convolutional networks, and vision transformers such as DINOv2's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ladle.detectors import as_floats
from ladle.detectors.backbones import color_statistics
from ladle.distillers import Head
from ladle.errors import one_line
from ladle.networks import NetworkInfo
from ladle.teachers.frozen import Observed, without_predictions
from ladle.teachers.hub import cached_file
from ladle.teachers.uri import TeacherURI
from ladle.types import Batch, GroundTruth, Output, Priors, Pyramid
from ladle.untrusted import read_weights

__all__ = ["TimmTeacher", "open_timm"]

_STRIDES = (8, 16, 32)
"""Strides of the maps that are given, as far as a network has them."""


class _Maps(NamedTuple):
    """Which maps a network gives: the numbers of its blocks, and of the maps their channels and strides.

    ``scale`` is that of the images. A vision transformer has one map, which is resized to every stride.
    """

    blocks: tuple[int, ...]
    pyramid: Pyramid
    scale: float = 1.0


class TimmTeacher:
    """A model of timm as a teacher that gives feature maps and no predictions; see ``Teacher``.

    Its images have its own mean and standard deviation, at the student's size.
    """

    head: Head | None = None

    def __init__(self, name: str, model: nn.Module, unused: int = 0) -> None:
        """Freeze a model without its classifier; raises ValueError if it has no maps of a stride from 8 to 32."""
        self.model: Any = model.requires_grad_(False).eval()
        self.maps = _maps_of(self.model)
        self.colors = tuple(torch.tensor(each).view(1, 3, 1, 1) for each in color_statistics(name))
        self.info = NetworkInfo(name, (), self.maps.pyramid)
        self.unused = unused

    @property
    def pyramid(self) -> Pyramid:
        """Channels and strides of its feature maps."""
        return self.maps.pyramid

    @property
    def about(self) -> tuple[str, ...]:
        """How it takes images and what it gives, in words."""
        mean, std = (", ".join(f"{value:g}" for value in each.flatten().tolist()) for each in self.colors)
        strides, blocks = self.pyramid.strides, self.maps.blocks
        gives = f"gives feature maps of strides {', '.join(map(str, strides))}"
        if len(blocks) < len(strides):
            gives += f", which are one map of its last block, resized; images are scaled by {self.maps.scale:g}"
        left = [f"{self.unused} tensors of the weights belong to no part of it"] if self.unused else []
        return (f"takes images with mean {mean} and standard deviation {std}", gives, *left)

    def to(self, device: torch.device | str) -> TimmTeacher:
        """Move the model to ``device``, in place."""
        self.model.to(device)
        self.colors = tuple(each.to(device) for each in self.colors)
        return self

    @torch.no_grad()
    def observe(self, batch: Batch) -> Observed:
        """Its feature maps of a batch, and the sizes of the images."""
        images = as_floats(batch.images)
        mean, std = self.colors
        values = (images - mean) / std
        if self.maps.scale != 1:
            height, width = (round(side * self.maps.scale) for side in values.shape[2:])
            values = F.interpolate(values, (height, width), mode="bilinear", antialias=True)
        maps = self.model.forward_intermediates(
            values, indices=list(self.maps.blocks), norm=True, output_fmt="NCHW", intermediates_only=True
        )
        if len(maps) < len(self.pyramid.strides):
            maps = [_resized(maps[0], batch.images, stride) for stride in self.pyramid.strides]
        return Observed(tuple(maps), batch.sizes)

    def predict_at(
        self,
        seen: Observed,
        priors: Priors,
        stage: int = 0,
        class_agnostic: bool = False,
        tower_depth: int | None = None,
    ) -> Output:
        """Its feature maps, without predictions."""
        return without_predictions(seen.features, seen.sizes, 1)


def _resized(maps: Tensor, images: Tensor, stride: int) -> Tensor:
    """A map at another stride of the images, bilinearly."""
    size = tuple(-(-side // stride) for side in images.shape[2:])
    return maps if maps.shape[2:] == size else F.interpolate(maps, size, mode="bilinear", antialias=True)


def _maps_of(model: Any) -> _Maps:
    """The maps of a model; raises ValueError if it has none."""
    if not hasattr(model, "forward_intermediates"):
        raise ValueError("timm has no feature maps of it")
    levels = [(int(one["reduction"]), int(one["num_chs"])) for one in model.feature_info]
    strides = [stride for stride, _ in levels]
    if len(set(strides)) == 1:
        # Images are scaled so that a patch covers 8, 16 or 32 pixels of them.
        stride = min(_STRIDES, key=lambda one: abs(math.log2(one / strides[0])))
        return _Maps((len(levels) - 1,), Pyramid((levels[-1][1],) * len(_STRIDES), _STRIDES), strides[0] / stride)
    # The last block of each stride.
    blocks = tuple(len(strides) - 1 - strides[::-1].index(one) for one in _STRIDES if one in strides)
    if not blocks:
        raise ValueError(f"it has no feature maps of strides 8, 16 and 32, only of {', '.join(map(str, strides))}")
    return _Maps(blocks, Pyramid(tuple(levels[one][1] for one in blocks), tuple(strides[one] for one in blocks)))


def open_timm(uri: TeacherURI) -> TimmTeacher:
    """A model of timm with trained weights, from ``?weights=`` or from the local cache of the hub.

    Raises:
        UserError: for an unknown name, without weights, or for weights that do not fit.
    """
    import timm

    uri.check(("weights",))
    if not timm.is_model(uri.path):
        close = ", ".join(timm.list_models(f"*{uri.path}*")[:5]) or "see `ladle models --timm PATTERN`"
        raise uri.fail(f"timm has no model {uri.path!r} ({close})")
    file = _weights(uri)
    try:
        model = _built(uri.path)
        unused = _load(model, file)
        teacher = TimmTeacher(uri.path, model, unused)
        _try(teacher)
    except Exception as error:  # timm's models raise errors of many kinds
        raise uri.fail(f"it cannot be a teacher with the weights {file} ({one_line(error)})") from None
    return teacher


def _weights(uri: TeacherURI) -> Path:
    import timm

    if "weights" in uri.options:
        file = Path(uri.options["weights"])
        if not file.is_file():
            raise uri.fail(f"?weights={file}: there is no such file")
        return file
    known = timm.get_pretrained_cfg(uri.path)
    name = known.hf_hub_id if known is not None else None
    found = cached_file(name, "model.safetensors", "pytorch_model.bin") if name else None
    if found is None:
        where = f"{name} is not in the hub's cache on this machine" if name else "timm knows no weights of it"
        raise uri.fail(f"it has random weights, since {where}: name a file by ?weights=")
    return found


def _built(name: str) -> Any:
    """A model without its classifier, for images of any size if it has such a form."""
    import timm

    try:
        return timm.create_model(name, num_classes=0, dynamic_img_size=True)
    except TypeError:
        return timm.create_model(name, num_classes=0)


def _load(model: nn.Module, file: Path) -> int:
    """Load every tensor of a model; returns how many others there are; raises ValueError if one is missing."""
    state = read_weights(file)
    state = state if file.suffix == ".safetensors" else state.get("state_dict", state.get("model", state))
    found = model.load_state_dict(state, strict=False)
    missing = [key for key in found.missing_keys if not key.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(f"{len(missing)} of its {len(model.state_dict())} tensors are missing, such as {missing[0]}")
    classifier = model.default_cfg.get("classifier") or ()  # type: ignore[union-attr, operator]
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return sum(not key.startswith(heads) for key in found.unexpected_keys) if heads else len(found.unexpected_keys)


def _try(teacher: TimmTeacher) -> None:
    """Run it on a black image; raises ValueError unless its maps are as described."""
    sizes, none = torch.tensor([[64, 96]]), GroundTruth.pad([torch.zeros(0, 4)], [torch.zeros(0).long()])
    maps = teacher.observe(Batch(torch.zeros(1, 3, 64, 96), none, sizes, sizes, (0,))).features
    found = [tuple(one.shape[1:]) for one in maps]
    pyramid = zip(teacher.pyramid.channels, teacher.pyramid.strides, strict=True)
    if found != [(channels, 64 // stride, 96 // stride) for channels, stride in pyramid]:
        raise ValueError(f"its maps of an image of 96x64 pixels have the shapes {found}")
