"""What a detector costs: parameters, operations, time and memory."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ladle.detectors import Detector, DetectorSpec

__all__ = ["Cost", "Latency", "latency_of", "network_cost", "peak_memory", "planned_cost", "processor"]


class Cost(NamedTuple):
    """Parameters, and floating-point operations for one image, a multiplication and an addition counted as two."""

    parameters: int
    flops: int


class Latency(NamedTuple):
    """Milliseconds of a call: the median, and what 90 % of the calls stay below."""

    median: float
    slow: float


@torch.no_grad()
def network_cost(detector: Detector, side: int) -> Cost:
    """The cost of a detector, as it is used after training, for an image of ``side`` x ``side`` pixels.

    Counted are convolutions and matrix products, by ``torch.utils.flop_counter``.
    """
    from torch.utils.flop_counter import FlopCounterMode

    image = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=detector.mean.device)
    sizes = torch.tensor([[side, side]], device=image.device)
    detector = detector.deployed()
    was_training = detector.training
    detector.eval()  # in training batch normalization takes no single value, and would change
    with FlopCounterMode(display=False) as counter:
        detector(image, sizes)
    detector.train(was_training)
    return Cost(sum(weight.numel() for weight in detector.parameters()), int(counter.get_total_flops()))


@torch.no_grad()
def planned_cost(spec: DetectorSpec) -> Cost:
    """The cost of a one-stage detector that is not built, for a square image of its side; nothing is allocated.

    As it is used after training: of two heads only the one-to-one head counts.

    Examples:
        >>> from ladle.exporting import planned_cost
        >>> from ladle.families import detector_spec
        >>> planned_cost(detector_spec("yolox-n", [str(number) for number in range(80)])).parameters
        912159
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        detector = (
            replace(spec, backbone=replace(spec.backbone, pretrained=False, weights=None)).build().eval().deployed()
        )
    image = torch.zeros(1, 3, spec.imgsz, spec.imgsz, device="meta")
    (head,) = detector.chain
    with FlopCounterMode(display=False) as counter:
        maps = detector.extract_features(image)
        head(maps, head.propose(maps, None, None, None))
    return Cost(sum(weight.numel() for weight in detector.parameters()), int(counter.get_total_flops()))


def latency_of(call: Callable[[], object], calls: int, warm_up: int = 3) -> Latency:
    """How long a call takes, of ``calls`` that are timed one by one after some that are not."""
    for _ in range(warm_up):
        call()
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return Latency(float(np.median(times)), float(np.quantile(times, 0.9)))


def peak_memory(call: Callable[[], object], cuda: bool = False) -> float:
    """MiB that a call takes beyond what was held before, of the process or of the GPU.

    The answer is nan where the system does not tell, that is not on Linux.
    """
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        allocated = torch.cuda.memory_allocated()
        call()
        return float(torch.cuda.max_memory_allocated() - allocated) / 2**20
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew from what is held now
        before = _memory("VmRSS")
        call()
        return max(0.0, _memory("VmHWM") - before)
    return math.nan


def _memory(field: str) -> float:
    """A line of the process's status, in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def processor() -> str:
    """The name of the processor, as far as the system gives it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
