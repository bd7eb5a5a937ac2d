"""What every training run is told: each field is a flag of ``ladle train`` and ``ladle distill``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ladle.data.transforms import Augmentation
from ladle.detectors import Start
from ladle.detectors.backbones import NeckNorm, Norm
from ladle.engine import SGD, AdamW, Cosine, OneCycle, OptimizerSpec, Schedule, Settings, Step
from ladle.errors import UserError

__all__ = ["Run"]

_LEAST_SIDE = 32
"""Pictures of fewer pixels leave nothing to see at stride 32."""


@dataclass(frozen=True)
class Run:
    """How to train, on what device, and where to keep it.

    Args:
        epochs: passes over the training pictures.
        batch: pictures per step and device.
        imgsz: long side of the pictures in pixels; by default the detector's own.
        optimizer: ``adamw``, or ``sgd`` with momentum as in the papers; by default ``sgd`` for a pretrained backbone.
        lr: learning rate; by default 0.003 (adamw) or 0.01 per 16 pictures (sgd).
        weight_decay: by default 0.05 (adamw) or 0.0001 (sgd).
        backbone_lr: factor on the backbone's learning rate.
        schedule: ``cosine``, ``step`` (a tenth after 2/3 and 11/12 of the run) or ``onecycle``.
        warmup: steps over which the learning rate rises from near zero.
        clip: largest norm of all gradients together; 0 does not clip.
        accumulate: batches per optimizer step.
        precision: ``fp32``, or ``bf16`` for the network (assignment and losses stay float32).
        ema: decay of the running average of the weights that is evaluated and saved; 0 is none.
        multiscale: largest relative change of ``imgsz`` from step to step, such as 0.3.
        flip: rate of mirrored pictures.
        jitter: strength of colour changes, 0 to 1.
        crop: rate of random resized crops.
        mosaic: rate of mosaics of four pictures.
        pretrained: start the backbone from its hub's ImageNet weights.
        backbone_weights: start the backbone from this file instead.
        norm: ``batch`` and ``group`` train, ``frozen`` does not; by default ``frozen`` with given weights.
        neck_norm: normalisation behind the convolutions of the feature pyramid: ``none``, ``batch`` or ``group``.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: how many of them; each takes ``batch`` pictures a step.
        workers: processes that load pictures; by default none on the CPU, else up to 8.
        cache: keep decoded pictures in memory.
        on_defect: what to do about defects of the data: ``repair`` them, ``skip`` the picture, or ``raise``.
        seed: of the first weights, the order and the views of the pictures.
        patience: stop after so many epochs without a better AP.
        eval_every: epochs between evaluations.
        log_every: steps between lines of ``metrics.jsonl``.
        name: the run's folder below ``project/<verb>``; by default the detector's name, numbered.
        project: where runs are kept.
        quiet: print nothing but errors.
    """

    epochs: int = 12
    batch: int = 16
    imgsz: int | None = None
    optimizer: Literal["sgd", "adamw"] | None = None
    lr: float | None = None
    weight_decay: float | None = None
    backbone_lr: float = 1.0
    schedule: Literal["cosine", "step", "onecycle"] = "cosine"
    warmup: int = 100
    clip: float = 10.0
    accumulate: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    ema: float = 0.0
    multiscale: float = 0.0
    flip: float = 0.5
    jitter: float = 0.2
    crop: float = 0.3
    mosaic: float = 0.0
    pretrained: bool = False
    backbone_weights: str | None = None
    norm: Norm | None = None
    neck_norm: NeckNorm = "none"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    workers: int | None = None
    cache: bool = False
    on_defect: Literal["repair", "skip", "raise"] = "repair"
    seed: int = 0
    patience: int | None = None
    eval_every: int = 1
    log_every: int = 20
    name: str | None = None
    project: str = "runs"
    quiet: bool = False

    def __post_init__(self) -> None:
        """Refuse what makes no sense; what the training loop is told is checked there too."""
        _at_least(1, batch=self.batch, devices=self.devices)
        _at_least(0, workers=self.workers, warmup=self.warmup, weight_decay=self.weight_decay, clip=self.clip)
        _at_least(_LEAST_SIDE, imgsz=self.imgsz)
        if self.lr is not None and not self.lr > 0:
            raise UserError(f"--lr {self.lr}: a learning rate is above 0; leave it out for the optimizer's own")
        if not 0 <= self.multiscale < 1:
            raise UserError(f"--multiscale {self.multiscale}: expected a share of --imgsz in [0, 1), such as 0.3")
        self.settings()

    @property
    def start(self) -> Start:
        """What the backbone starts from, and how it and the neck are normalised."""
        return Start(self.pretrained, self.backbone_weights, self.norm, self.neck_norm)

    @property
    def augmentation(self) -> Augmentation:
        """How training views differ from the pictures."""
        return Augmentation(self.flip, self.jitter, self.crop, self.mosaic)

    def settings(self) -> Settings:
        """What the training loop is told."""
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
        )

    def scales(self, imgsz: int) -> tuple[int, ...] | None:
        """The sizes that multi-scale training draws from, multiples of 32; None where it is off."""
        if not self.multiscale:
            return None
        low, high = imgsz * (1 - self.multiscale), imgsz * (1 + self.multiscale)
        return tuple(range(max(32, round(low / 32) * 32), round(high / 32) * 32 + 1, 32))

    def _optimizer(self) -> OptimizerSpec:
        given = self.pretrained or self.backbone_weights is not None
        if (self.optimizer or ("sgd" if given else "adamw")) == "adamw":
            decay = 0.05 if self.weight_decay is None else self.weight_decay
            return AdamW(0.003 if self.lr is None else self.lr, decay, backbone_lr=self.backbone_lr)
        per_step = self.batch * self.devices * self.accumulate
        decay = 1e-4 if self.weight_decay is None else self.weight_decay
        lr = 0.01 * per_step / 16 if self.lr is None else self.lr
        return SGD(lr, weight_decay=decay, backbone_lr=self.backbone_lr)

    def _schedule(self) -> Schedule:
        if self.schedule == "cosine":
            return Cosine(final=0.01, warmup=self.warmup)
        if self.schedule == "step":
            return Step(warmup=self.warmup)
        return OneCycle()


def _at_least(least: int, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: expected {least} or more")
