"""A detector: a backbone, a neck and a chain of stages; and everything needed to build it again, as plain values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ladle.detectors.backbones import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Backbone,
    BackboneSpec,
)
from ladle.detectors.dense import DenseSpec, DenseStage
from ladle.detectors.necks import FPN, PAN, Neck, NeckNorm, PanNeck
from ladle.detectors.postprocess import Inference
from ladle.detectors.proposals import ProposalSpec
from ladle.detectors.protocol import Stage
from ladle.detectors.regions import RegionSpec, RegionStage
from ladle.errors import UserError
from ladle.limits import Length, Range
from ladle.types import Batch, Detections, GroundTruth, Output, Priors, Pyramid
from ladle.untrusted import parse_json, read_record

__all__ = ["Detector", "DetectorSpec", "as_floats"]

_USUAL_MOST = 100
"""Detections kept per image by default, as in COCO's evaluation."""

_Names = Annotated[tuple[str, ...], Length(1, 20_000)]
_Ids = Annotated[tuple[Annotated[int, Range(-(2**63), 2**63 - 1)], ...], Length(1, 20_000)]
_Mean = Annotated[float, Range(-1000, 1000)]
_Std = Annotated[float, Range(1e-6, 1000)]
_Value = Annotated[int, Range(0, 65535)]


def _check_classes(names: tuple[str, ...], ids: tuple[int, ...]) -> None:
    """Raise ValueError unless every class has a name and an id that no other class has."""
    if len(ids) != len(names):
        raise ValueError(f"{len(ids)} category_ids for {len(names)} classes")
    for what, values in (("classes", names), ("category_ids", ids)):
        if len(set(values)) < len(values):
            raise ValueError(f"{what} of which two are the same")
    if not all(name.strip() for name in names):
        raise ValueError("a class without a name")


@dataclass(frozen=True)
class DetectorSpec:
    """A detector in plain values, as stored beside its weights.

    ``classes`` are in label order, ``category_ids`` are the data set's own ids of these classes, for results files.
    ``head`` is the first stage, dense or a proposal network; ``regions`` are the stages after a proposal network.
    ``extra`` counts the pyramid levels above stride 32: 0, 1 (torchvision's pooled one) or 2. ``neck_norm`` is the
    normalization behind each convolution of a feature pyramid, ``neck``; a path aggregation network in its place has
    its own. ``imgsz`` is the long side it was trained at. With ``one_to_one`` there is a second dense head beside the
    first, which is trained with one prior for each object and alone used for detection.
    Images are normalized by ``mean`` and ``std``, those of the backbone's initial weights; ``value_range`` are the
    values of 16-bit channels that are mapped to 0 and 1.
    """

    name: str
    family: str
    classes: _Names
    category_ids: _Ids
    backbone: BackboneSpec
    head: DenseSpec | ProposalSpec
    inference: Inference = field(default_factory=Inference)
    extra: Annotated[int, Range(0, 2)] = 2
    imgsz: Annotated[int, Range(1, 8192)] = 640
    regions: Annotated[tuple[RegionSpec, ...], Length(0, 16)] = ()
    neck_norm: NeckNorm = "none"
    mean: tuple[_Mean, _Mean, _Mean] = IMAGENET_MEAN
    std: tuple[_Std, _Std, _Std] = IMAGENET_STD
    value_range: tuple[_Value, _Value] = (0, 65535)
    neck: FPN | PAN = field(default_factory=FPN)
    one_to_one: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError where the parts do not fit together."""
        _check_classes(self.classes, self.category_ids)
        if self.value_range[0] >= self.value_range[1]:
            raise ValueError(f"a value_range from {self.value_range[0]} to {self.value_range[1]}")
        if self.inference.rule != "class" and not (isinstance(self.head, DenseSpec) and self.head.quality):
            raise ValueError(f"the score rule {self.inference.rule} and a head without a quality branch")
        if self.one_to_one and not isinstance(self.head, DenseSpec):
            raise ValueError(f"a one-to-one head beside a {type(self.head).__name__}")
        if isinstance(self.head, ProposalSpec) != bool(self.regions):
            raise ValueError(f"{len(self.regions)} region heads behind a {type(self.head).__name__}")
        for number, region in enumerate(self.regions):
            if (region.proposals is None) != (number > 0):
                raise ValueError(f"region head {number} {'has' if number else 'lacks'} a choice of proposals")
            if region.width != self.head.width or region.levels > len(self.strides):
                raise ValueError(
                    f"region head {number} for {region.levels} maps of width {region.width}, where "
                    f"{len(self.strides)} of width {self.head.width} are"
                )

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the pyramid's levels."""
        first = self.backbone.finest
        levels = (3 if first == 8 else 4) + self.extra
        return tuple(first * 2**level for level in range(levels))

    @property
    def pyramid(self) -> Pyramid:
        """Channels and strides of the feature maps."""
        return Pyramid((self.head.width,) * len(self.strides), self.strides)

    @property
    def deployed(self) -> DetectorSpec:
        """The detector that is used after training: of two heads only the one-to-one head."""
        if not self.one_to_one or not isinstance(self.head, DenseSpec):
            return self
        # Center priors are for the losses of bags, which need several priors for an object.
        return replace(self, head=replace(self.head, center_prior=False), one_to_one=False)

    def keeping(self, most: int) -> DetectorSpec:
        """The same detector with at most ``most`` detections per image.

        If that is more than now and more than 100, the candidates before suppression grow by the same factor and, in
        inference, so do the proposals of a two-stage detector.
        """
        inference = self.inference
        times = max(1.0, most / max(_USUAL_MOST, inference.keep))
        regions = tuple(region.proposing(times) for region in self.regions)
        candidates = ceil(times * inference.candidates)
        return replace(self, inference=replace(inference, keep=most, candidates=candidates), regions=regions)

    def build(self) -> Detector:
        """Build the detector; the backbone has the initial weights that the spec names, the rest random ones."""
        backbone = self.backbone.build()
        neck = self._neck(backbone)
        stages = [part.build(len(self.classes), self.strides) for part in (self.head, *self.regions)]
        one_to_one = self.deployed.head.build(len(self.classes), self.strides) if self.one_to_one else None
        detector = Detector(self, backbone, neck, stages, one_to_one)
        # Channels last: a fifth faster on the CPU for small networks, and for half precision on a GPU.
        return detector.to(memory_format=torch.channels_last)

    def _neck(self, backbone: Backbone) -> Neck | PanNeck:
        if isinstance(self.neck, PAN):
            return self.neck.build(backbone.channels, self.head.width, self.extra)
        return self.neck.build(backbone.channels, self.head.width, self.extra, self.neck_norm)

    def to_json(self) -> str:
        """The spec as one line of JSON; without the source of the initial weights, which are stored beside it."""
        values = asdict(self)
        values["backbone"] |= {"pretrained": False, "weights": None}
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str, where: str = "the spec") -> DetectorSpec:
        """The spec that :meth:`to_json` wrote, read from ``where``; raises :class:`UserError` for anything else."""
        values = parse_json(text, where)
        if isinstance(values, dict) and isinstance(values.get("neck_norm"), bool):
            # Earlier files have true for batch normalization and false for none.
            values["neck_norm"] = "batch" if values["neck_norm"] else "none"
        spec = read_record(cls, values, where, _MEND)
        if not spec.backbone.from_scratch:
            # An untrusted file must not make us open another file or use the network.
            raise UserError(f"{where}: expected no source of first weights at backbone, found one; {_MEND}")
        return spec


_MEND = "the file was changed or is of another version, train the detector again"


class Detector(nn.Module):
    """Turns images into one :class:`~ladle.types.Output` per stage.

    A ``one_to_one`` head is no stage: training calls it beside the stages, and :meth:`detect` in place of them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        spec: DetectorSpec,
        backbone: Backbone,
        neck: nn.Module,
        stages: Sequence[nn.Module],
        one_to_one: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.neck = neck
        self.stages = nn.ModuleList(stages)
        self.one_to_one = one_to_one
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1), persistent=False)

    def forward(
        self,
        images: Tensor,
        sizes: Tensor | None = None,
        truth: GroundTruth | None = None,
        priors: Sequence[Priors] | None = None,
        tower_depth: int | None = None,
    ) -> list[Output]:
        """Predict on images (B,3,H,W), bytes or floats in [0,1].

        ``sizes`` (B,2) is the height and width of each image without its padding. With ``priors``, one for each stage,
        the detector predicts at these instead of its own priors. ``tower_depth`` also returns the maps after so many
        convolutions of the heads' towers.
        """
        features = self.extract_features(images)
        outputs: list[Output] = []
        for number, stage in enumerate(self.chain):
            previous = outputs[-1] if outputs else None
            at = priors[number] if priors is not None else stage.propose(features, previous, truth, sizes)
            predictions, towers = stage(features, at, tower_depth)
            outputs.append(Output(predictions, at, features, sizes, towers))
        return outputs

    def extract_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of images (B,3,H,W), bytes or floats in [0,1], finest first."""
        maps: tuple[Tensor, ...] = self.neck(self.backbone((as_floats(images) - self.mean) / self.std))
        return maps

    def keep(self, most: int) -> Detector:
        """From now on find up to ``most`` objects in an image; see :meth:`DetectorSpec.keeping`."""
        self.spec = self.spec.keeping(most)
        for stage, region in zip(self.chain[1:], self.spec.regions, strict=True):
            assert isinstance(stage, RegionStage)
            stage.spec = region
        return self

    @property
    def pyramid(self) -> Pyramid:
        """Channels and strides of the feature maps."""
        return self.spec.pyramid

    @property
    def chain(self) -> list[Stage]:
        """The stages, the first one first."""
        return [cast("Stage", stage) for stage in self.stages]

    @property
    def heads(self) -> list[Stage]:
        """The stages and, if there is one, the one-to-one head."""
        return [*self.chain, *([cast("Stage", self.one_to_one)] if self.one_to_one is not None else [])]

    @property
    def head(self) -> DenseStage | None:
        """The head of the last stage; None if that is not dense."""
        last = self.chain[-1]
        return last if isinstance(last, DenseStage) else None

    def deployed(self) -> Detector:
        """The detector that is used after training: of two heads only the one-to-one head; layers are shared.

        Examples:
            >>> from ladle.families import detector_spec
            >>> detector = detector_spec("tood+o2o-tiny", ["cat", "dog"]).build()
            >>> [sum(weight.numel() for weight in one.parameters()) for one in (detector, detector.deployed())]
            [551090, 506825]
        """
        if self.one_to_one is None:
            return self
        one = Detector(self.spec.deployed, self.backbone, self.neck, [self.one_to_one])
        one.mean, one.std, one.training = self.mean, self.std, self.training
        return one

    @torch.no_grad()
    def detect(self, batch: Batch, inference: Inference | None = None) -> list[Detections]:
        """Find the objects of a batch, in the pixels of the images on disk."""
        outputs = self.deployed()(batch.images, batch.sizes)
        return (inference or self.spec.inference).find(self.joined(outputs), batch.sizes, batch.originals)

    def joined(self, outputs: Sequence[Output]) -> Output:
        """What detections are made of: the last stage's output; of several region heads with their mean scores."""
        regions = len(self.spec.regions)
        return _averaged(outputs[-regions:]) if regions > 1 else outputs[-1]


def as_floats(images: Tensor) -> Tensor:
    """Images of bytes as floats in [0,1]; others as they are.

    >>> import torch
    >>> from ladle.detectors import as_floats
    >>> as_floats(torch.tensor([0, 255], dtype=torch.uint8)), as_floats(torch.tensor([0.5]))
    (tensor([0., 1.]), tensor([0.5000]))
    """
    return images.float() / 255 if images.dtype == torch.uint8 else images


def _averaged(outputs: Sequence[Output]) -> Output:
    """The last region head's output with the mean of all heads' class probabilities (Cascade R-CNN)."""
    probs = torch.stack([F.pad(one.predictions.logits.float(), (0, 1)).softmax(-1) for one in outputs]).mean(0)
    logs = probs.clamp(min=1e-38).log()
    predictions = replace(outputs[-1].predictions, logits=logs[..., :-1] - logs[..., -1:])
    return replace(outputs[-1], predictions=predictions)
