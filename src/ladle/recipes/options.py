"""The settings of a training run: each field is a flag of ``ladle train``, ``ladle distill`` and ``ladle colearn``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from ladle.data.depth import parse_range
from ladle.data.repairs import OnDefect
from ladle.data.transforms import MOST_ROTATE, MOST_SHEAR, Augmentation
from ladle.detectors.backbones import Norm
from ladle.detectors.necks import NeckNorm
from ladle.engine import SGD, AdamW, Cosine, OneCycle, OptimizerSpec, Schedule, Settings, Step
from ladle.engine.loggers import split_loggers
from ladle.errors import UserError
from ladle.families import Start
from ladle.limits import Range, verify
from ladle.recipes.folders import check_name, check_project

__all__ = ["USUAL_BATCH", "Batch", "Epochs", "MaxDet", "OnDefect", "Run", "Seed", "Share", "Side", "Workers"]

Epochs = Annotated[int, Range(1, 1_000_000)]
Batch = Annotated[int, Range(1, 4096)]
_CELL = 32
"""Sides of images in multi-scale training are multiples of this stride."""
USUAL_BATCH = 16
"""The batch of a run if none is given, and of ``auto`` on a CPU."""
Side = Annotated[int, Range(32, 8192)]
"""Long side of images in pixels; at least one cell at stride 32."""
Workers = Annotated[int, Range(0, 256)]
Share = Annotated[float, Range(0, 1)]
Seed = Annotated[int, Range(0, 4_000_000_000)]
MaxDet = Annotated[int, Range(1, 10_000)]
"""Largest number of detections in an image."""


@dataclass(frozen=True)
class Run:
    """How to train, on what device, and where to store the run.

    Args:
        epochs: passes over the training images.
        batch: images per step and device; ``auto`` tries on a GPU how many its memory holds.
        val_batch: images per step of evaluation; by default twice ``batch`` on a GPU, else ``batch``.
        imgsz: long side of the images in pixels; by default that of the detector.
        optimizer: ``adamw``, or ``sgd`` with momentum as in the papers; by default ``sgd`` for a pretrained backbone.
        lr: learning rate; by default 0.003 (adamw) or 0.01 per 16 images (sgd).
        weight_decay: by default 0.05 (adamw) or 0.0001 (sgd).
        backbone_lr: factor on the backbone's learning rate.
        schedule: ``cosine``, ``step`` (a tenth after 2/3 and 11/12 of the run) or ``onecycle``.
        warmup: steps over which the learning rate rises from near zero.
        clip: largest total norm of the gradients; 0 does not clip.
        accumulate: batches per optimizer step.
        precision: ``fp32``, or ``bf16`` for the network (assignment and losses stay float32).
        compile: compile the layers of the trained networks by ``torch.compile``, but not assignment and losses.
        channels_last: keep the channels of a pixel side by side in memory, as convolutions of GPUs and CPUs prefer it.
        ema: decay of the running average of the weights that is evaluated and saved; 0 is none.
        multiscale: largest relative change of ``imgsz`` from step to step, such as 0.3; sizes are multiples of 32.
        flip: rate of horizontally flipped images.
        jitter: strength of color changes, 0 to 1.
        crop: rate of random resized crops.
        mosaic: rate of mosaics of four images.
        mixup: rate of images that are mixed with another one.
        scale_jitter: largest relative change of the size of each image, such as 0.5.
        rotate: largest angle by which images are turned, in degrees.
        shear: largest angle by which images are sheared along each axis, in degrees.
        close_mosaic: epochs at the end of the run without mosaics and mixed images, and for ``yolox`` with its L1 loss.
        pretrained: start the backbone from its hub's ImageNet weights.
        backbone_weights: start the backbone from this file instead.
        norm: ``batch`` and ``group`` are trained, ``frozen`` is not; by default ``frozen`` with pretrained weights.
        neck_norm: normalization after the convolutions of the feature pyramid: ``none``, ``batch`` or ``group``.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: number of devices of each node; each takes ``batch`` images a step.
        nodes: number of machines, with one command on each that was started by ``srun`` or ``torchrun``.
        workers: processes that load images; by default none on the CPU, else up to 16.
        cache: keep decoded images in a temporary file that all workers share.
        on_defect: how to handle defects of the data: ``repair`` them, ``skip`` the image, or ``raise``.
        value_range: values of 16-bit images that become black and white, such as ``0,4095``; by default the smallest
            bit depth of a sensor that holds all values of training and validation.
        seed: seed of the initial weights, the order and the augmentation of the images.
        max_det: largest number of detections in an image, stored with the detector; COCO's numbers are those of 100.
        patience: stop after this many epochs without a better AP.
        eval_every: epochs between evaluations.
        log_every: steps between lines of ``metrics.jsonl``.
        loggers: services that get the scalars as well: ``tensorboard``, ``wandb``, ``mlflow``, or several with commas.
        name: the run's folder below ``project/<verb>``; by default the detector's name, numbered.
        project: folder of all runs.
        quiet: print nothing but errors.
    """

    epochs: Epochs = 12
    batch: Batch | Literal["auto"] = USUAL_BATCH
    val_batch: Batch | None = None
    imgsz: Side | None = None
    optimizer: Literal["sgd", "adamw"] | None = None
    lr: Annotated[float, Range(0, above=True)] | None = None
    weight_decay: Annotated[float, Range(0)] | None = None
    backbone_lr: Annotated[float, Range(0)] = 1.0
    schedule: Literal["cosine", "step", "onecycle"] = "cosine"
    warmup: Annotated[int, Range(0, 1_000_000_000)] = 100
    clip: Annotated[float, Range(0)] = 10.0
    accumulate: Annotated[int, Range(1, 10_000)] = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    channels_last: bool = True
    ema: Annotated[float, Range(0, 1, below=True)] = 0.0
    multiscale: Annotated[float, Range(0, 1, below=True)] = 0.0
    flip: Share = 0.5
    jitter: Share = 0.2
    crop: Share = 0.3
    mosaic: Share = 0.0
    mixup: Share = 0.0
    scale_jitter: Annotated[float, Range(0, 1, below=True)] = 0.0
    rotate: Annotated[float, Range(0, MOST_ROTATE)] = 0.0
    shear: Annotated[float, Range(0, MOST_SHEAR)] = 0.0
    close_mosaic: Annotated[int, Range(0, 1_000_000)] = 0
    pretrained: bool = False
    backbone_weights: str | None = None
    norm: Norm | None = None
    neck_norm: NeckNorm = "none"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: Annotated[int, Range(1, 64)] = 1
    nodes: Annotated[int, Range(1, 1024)] = 1
    workers: Workers | None = None
    cache: bool = False
    on_defect: OnDefect = "repair"
    value_range: str | None = None
    seed: Seed = 0
    max_det: MaxDet = 100
    patience: Annotated[int, Range(1, 1_000_000)] | None = None
    eval_every: Annotated[int, Range(1, 1_000_000)] = 1
    log_every: Annotated[int, Range(1, 1_000_000_000)] = 20
    loggers: str | None = None
    name: str | None = None
    project: str = "runs"
    quiet: bool = False

    def __post_init__(self) -> None:
        """Raise :class:`UserError` for values outside their limits."""
        verify(self)
        if self.name is not None:
            check_name(self.name)
        check_project(self.project)
        split_loggers(self.loggers)
        if self.close_mosaic and not self.mosaic and not self.mixup:
            raise UserError(
                f"--close-mosaic {self.close_mosaic}: there are neither mosaics nor mixed images; add --mosaic or "
                "--mixup, or leave it out"
            )
        if self.close_mosaic >= self.epochs and (self.mosaic or self.mixup):
            raise UserError(
                f"--close-mosaic {self.close_mosaic}: none of the {self.epochs} epochs would have mosaics or mixed "
                "images: expected fewer, or leave out --mosaic and --mixup"
            )
        if self.value_range is not None:
            parse_range(self.value_range)

    @property
    def start(self) -> Start:
        """The initial weights of the backbone, and the normalization of backbone and neck."""
        return Start(self.pretrained, self.backbone_weights, self.norm, self.neck_norm)

    @property
    def batch_size(self) -> int:
        """Images per step and device; the usual number as long as ``auto`` is not chosen yet."""
        return USUAL_BATCH if self.batch == "auto" else self.batch

    @property
    def world(self) -> int:
        """The number of devices of all nodes."""
        return self.devices * self.nodes

    @property
    def augmentation(self) -> Augmentation:
        """The augmentation of training images."""
        joined = max(0, self.epochs - self.close_mosaic) if self.close_mosaic else None
        rates = self.flip, self.jitter, self.crop, self.mosaic, self.mixup
        return Augmentation(*rates, self.scale_jitter, joined, self.rotate, self.shear)

    def settings(self) -> Settings:
        """The settings of the training loop."""
        return Settings(
            epochs=self.epochs,
            optimizer=self._optimizer(),
            schedule=self._schedule(),
            clip=self.clip or None,
            accumulate=self.accumulate,
            precision=self.precision,
            ema=self.ema or None,
            patience=self.patience,
            eval_every=self.eval_every,
            log_every=self.log_every,
            seed=self.seed,
            quiet=self.quiet,
            loggers=split_loggers(self.loggers),
        )

    def scales(self, imgsz: int) -> tuple[int, ...] | None:
        """The sizes that multi-scale training draws from, multiples of 32; None if it is off."""
        if not self.multiscale:
            return None
        low, high = (round(imgsz * (1 + change), 6) for change in (-self.multiscale, self.multiscale))
        sizes = tuple(range(max(_CELL, math.ceil(low / _CELL) * _CELL), math.floor(high / _CELL) * _CELL + 1, _CELL))
        if len(sizes) < 2:
            near = sorted(abs(imgsz - _CELL * cells) for cells in range(1, imgsz // _CELL + 3))
            raise UserError(
                f"--multiscale {self.multiscale:g}: sizes are multiples of {_CELL} pixels, and within this of --imgsz "
                f"{imgsz} there are not two: expected {math.ceil(100 * near[1] / imgsz) / 100:.2f} or more, or "
                "leave it out"
            )
        return sizes

    def _optimizer(self) -> OptimizerSpec:
        given = self.pretrained or self.backbone_weights is not None
        if (self.optimizer or ("sgd" if given else "adamw")) == "adamw":
            decay = 0.05 if self.weight_decay is None else self.weight_decay
            return AdamW(0.003 if self.lr is None else self.lr, decay, backbone_lr=self.backbone_lr)
        per_step = self.batch_size * self.world * self.accumulate
        decay = 1e-4 if self.weight_decay is None else self.weight_decay
        lr = 0.01 * per_step / 16 if self.lr is None else self.lr
        return SGD(lr, weight_decay=decay, backbone_lr=self.backbone_lr)

    def _schedule(self) -> Schedule:
        if self.schedule == "cosine":
            return Cosine(final=0.01, warmup=self.warmup)
        if self.schedule == "step":
            return Step(warmup=self.warmup)
        return OneCycle()
