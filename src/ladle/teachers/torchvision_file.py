"""Teachers from torchvision's detectors, with weights from a file or from torch's cache of downloads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ladle.detectors import as_floats
from ladle.teachers.classes import NO_CLASS
from ladle.teachers.detections import TeacherDetections
from ladle.teachers.torchvision_dense import COARSEST, find_densely, is_dense
from ladle.teachers.uri import TeacherURI
from ladle.types import Batch, Detections
from ladle.untrusted import read_weights

__all__ = ["TorchvisionTeacher", "open_torchvision"]

_OPTIONS = ("weights", "classes", "class_map", "imgsz", "score", "dense")


class TorchvisionTeacher(NamedTuple):
    """A detector of torchvision with its own resizing, normalization and suppression; see ``Foreign``.

    Attributes:
        name: the name of the detector.
        labels: the name of each label, from 0 on; ``__background__`` and ``N/A`` are no class.
        model: the detector.
        dense: whether it gives its predictions at all places, without its suppression.
        bins: 0, since it gives no distributions.
    """

    name: str
    labels: tuple[str, ...]
    model: nn.Module
    dense: bool = False
    bins: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes."""
        return tuple(name for name in self.labels if name not in NO_CLASS)

    @property
    def about(self) -> tuple[str, ...]:
        """How it takes images and what it gives, in words."""
        made: Any = self.model.transform
        sides = f"short side to {made.min_size[-1]} px, at most {made.max_size}"
        if made.fixed_size is not None:
            sides = "stretched to {}x{} px".format(*made.fixed_size)
        gives = "predictions at its anchors" if self.dense else "final boxes"
        return (f"takes images as torchvision resizes and normalizes them ({sides})", f"gives {gives}")

    def to(self, device: torch.device | str) -> TorchvisionTeacher:
        """Move the detector to ``device``, in place."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def find(self, batch: Batch) -> TeacherDetections:
        """The final boxes of each image, without its padding; or all predictions."""
        images = as_floats(batch.images)
        sizes = batch.sizes.tolist()
        each = [image[:, :height, :width] for image, (height, width) in zip(images, sizes, strict=True)]
        if self.dense:
            return find_densely(self.model, each, [at for at, name in enumerate(self.labels) if name not in NO_CLASS])
        found = self.model(each)
        column = torch.tensor([-1 if name in NO_CLASS else self.classes.index(name) for name in self.labels])
        return TeacherDetections.of_each([_known(one, column.to(images.device)) for one in found], len(self.classes))


def _known(found: dict[str, Tensor], column: Tensor) -> Detections:
    """The detections of labels that are classes."""
    labels = column[found["labels"]]
    kept = labels >= 0
    return Detections(found["boxes"][kept], found["scores"][kept], labels[kept])


def open_torchvision(uri: TeacherURI) -> TorchvisionTeacher:
    """Build a detector of torchvision with trained weights.

    Raises:
        UserError: for an unknown name, without weights, or for weights that do not fit.
    """
    from torchvision.models import detection, get_model_builder, list_models

    uri.check(_OPTIONS)
    known = list_models(detection)
    if uri.path not in known:
        raise uri.fail(f"torchvision has no detector {uri.path!r}; expected one of {', '.join(known)}")
    builder = get_model_builder(uri.path)
    usual: Any = next(iter(_weights_of(builder)))
    labels = tuple(usual.meta["categories"])
    if "classes" in uri.options:
        labels = (NO_CLASS[0], *uri.lines("classes"))
    model = _from_file(uri, builder, len(labels)) if "weights" in uri.options else _from_cache(uri, builder, usual)
    _set(uri, model)
    dense = _densely(uri, model)
    return TorchvisionTeacher(uri.path, labels, model.requires_grad_(False).eval(), dense)


def _weights_of(builder: Callable[..., nn.Module]) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(builder)


def _from_file(uri: TeacherURI, builder: Callable[..., nn.Module], labels: int) -> nn.Module:
    file = Path(uri.options["weights"])
    if not file.is_file():
        raise uri.fail(f"?weights={file}: there is no such file; expected the state dict of a {uri.path}")
    model = builder(weights=None, weights_backbone=None, num_classes=labels)
    try:
        model.load_state_dict(read_weights(file))
    except Exception as error:  # each format raises errors of its own
        reason = " ".join(str(error).split())[:200]
        raise uri.fail(f"?weights={file} does not fit a {uri.path} of {labels} labels ({reason})") from None
    return model


def _from_cache(uri: TeacherURI, builder: Callable[..., nn.Module], usual: Any) -> nn.Module:
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(usual.url).name
    if not file.is_file():
        raise uri.fail(
            f"it has random weights: expected {file.name} in {file.parent}, from {usual.url}, or a file by ?weights="
        )
    return builder(weights=usual)


def _densely(uri: TeacherURI, model: Any) -> bool:
    """Whether ``?dense=1`` asks for predictions at all places, for which the padding of the images is then set."""
    if uri.choice("dense", ("0", "1"), "0") == "0":
        return False
    if not is_dense(model):
        raise uri.fail("?dense=1: only RetinaNet and FCOS have predictions at all places; leave it out")
    if "score" in uri.options:
        raise uri.fail("?score= is for final boxes and has no effect with ?dense=1; leave one of them out")
    model.transform.size_divisible = COARSEST
    return True


def _set(uri: TeacherURI, model: Any) -> None:
    """Set the size of images and the least score of the options."""
    side = uri.wholes("imgsz")
    if side is not None and model.transform.fixed_size is not None:
        width, height = model.transform.fixed_size
        raise uri.fail(f"?imgsz={uri.options['imgsz']}: it takes images of {width}x{height} pixels only; leave it out")
    if side is not None:
        model.transform.min_size, model.transform.max_size = (min(side),), max(side)
    (score,) = uri.numbers("score", 1, (0.05,))
    if not 0 <= score < 1:
        raise uri.fail(f"?score={uri.options['score']}: expected a number from 0 to below 1")
    part = model.roi_heads if hasattr(model, "roi_heads") else model
    part.score_thresh = score
