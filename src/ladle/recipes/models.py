"""List the detectors, methods and assigners."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial

import torch

from ladle.data.loader import padded_side
from ladle.detectors import DenseSpec
from ladle.detectors.backbones import RESNETS, SMALL
from ladle.errors import UserError
from ladle.exporting import Cost, latency_of, network_cost, planned_cost, processor
from ladle.families import HEADS, NETWORKS, Family, detector_spec, families, ready_made
from ladle.methods import WORDS
from ladle.recipes.console import say, table
from ladle.recipes.parts import ASSIGNERS
from ladle.values import first_sentence

__all__ = ["models"]

_HEADS = {
    "dist": "predicts box edges as distributions, which ld compares",
    "cop": "multiplies class scores by a conditional objectness",
    "io": "multiplies class scores by an implicit objectness",
    "lite": "has a light neck and head, of depthwise convolutions",
    "p2": "has a level of stride 4 in addition",
    "p6": "has a level of stride 64 in addition",
    "o2o": "has a one-to-one head in addition, to detect without NMS",
}
"""What each option adds to a family."""
_CLASSES = tuple(f"class {number}" for number in range(80))
"""As many classes as COCO has, for which parameters and operations are published."""


_CALLS = 10
"""Timed calls of a network."""


def models(timm: str | None = None, measure: str | None = None) -> list[str]:
    """List detectors, heads, methods and assigners, or the timm backbones that match a pattern; or time a network.

    Returns the names of the ready-made detectors, of those backbones, or of the network.

    Args:
        timm: a pattern such as ``mobilenetv3*``; a backbone is used as ``paa-NAME``.
        measure: a detector whose network is timed on the processor of this machine, with random weights.
    """
    if measure is not None:
        if timm is not None:
            raise UserError(f"--measure and --timm {timm}: expected one of them; give a detector such as paa-NAME")
        return [_measured(measure)]
    if timm is not None:
        from timm import list_models

        names: list[str] = list_models(timm)
        say("\n".join(names) or f"no timm model matches {timm!r}")
        return names
    say(
        table(
            "Detectors: <family>-<backbone>, such as paa-tiny or fcos-r50",
            [_row(family) for family in families().values()],
        )
    )
    say(f"Backbones: {_listed(SMALL)} train on a CPU, at 160 pixels;")
    say(f"{_listed(RESNETS)} take 640 pixels; so does any timm model with")
    say("feature maps of stride 8, 16 and 32.\n")
    say(table("Complete networks: <family>-<size>, such as rtmdet-s", _sizes()))
    heads = [{"option": f"+{name}", "what the detector does": _HEADS[name]} for name in (*HEADS, *NETWORKS)]
    say(table("Options: <family>+<option>-<backbone or size>, such as atss+dist-r50", heads))
    methods = [{"name": name, "what the teacher does": word.meaning} for name, word in WORDS.items() if name != "plain"]
    say(table("Methods (--method; several are joined, such as lad+ld+pkd)", methods))
    rules = [
        {"name": name, "which prior learns which object": first_sentence(type(rule))}
        for name, rule in ASSIGNERS.items()
    ]
    say(table("Assigners (--assigner; by default the detector's own)", rules))
    return list(ready_made())


def _measured(name: str) -> str:
    """Print what a network costs for one image, from bytes to the boxes and scores of all priors."""
    spec = detector_spec(name, _CLASSES)
    detector, side = spec.build().deployed().eval(), padded_side(spec.imgsz)
    images, sizes = torch.zeros(1, 3, side, side, dtype=torch.uint8), torch.tensor([[side, side]])
    cost = network_cost(detector, side)
    with torch.no_grad():
        latency = latency_of(partial(detector, images, sizes), _CALLS)
    times = {"ms": f"{latency.median:.1f}", "p90": f"{latency.slow:.1f}"}
    threads = torch.get_num_threads()
    head = f"One image, {processor()}, {threads} threads, median of {_CALLS} calls"
    say(table(head, [{"detector": spec.name, "pixels": spec.imgsz, **_in_words(cost), **times}]))
    say("Random weights, PyTorch, without NMS; `ladle bench WEIGHTS` measures trained detectors.")
    return spec.name


def _row(family: Family) -> dict[str, object]:
    """The row of a family: properties shared by its detectors."""
    head = family.spec("r18", ("object",)).head
    return {
        "family": family.name,
        "anchors": head.anchors.per_location,
        "boxes as": head.box if isinstance(head, DenseSpec) else "deltas, in stages",
        "quality branch": "yes" if isinstance(head, DenseSpec) and head.quality else "no",
        "assigner": type(family.assigner).__name__,
    }


@cache
def _sizes() -> list[dict[str, object]]:
    """A row for each detector of a published size, with its cost for 80 classes."""
    rows: list[dict[str, object]] = []
    for family in families().values():
        for size in family.sizes:
            spec = family.spec(size, _CLASSES)
            cost = planned_cost(spec)
            rows.append(
                {
                    "family": family.name,
                    "size": size,
                    "pixels": spec.imgsz,
                    **_in_words(cost),
                }
            )
    return rows


def _in_words(cost: Cost) -> dict[str, object]:
    return {
        "parameters": f"{cost.parameters / 1e6:.1f} million",
        "operations": f"{cost.flops / 1e9:.1f} billion",
    }


def _listed(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}"
