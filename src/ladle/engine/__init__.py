"""The training loop on Lightning Fabric.

Settings, optimizers and schedules are imported at once; the loop needs Fabric and is imported on first access.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ladle.engine.objective import Objective
from ladle.engine.optimizer import SGD, AdamW, OptimizerSpec
from ladle.engine.schedule import Cosine, OneCycle, Schedule, Step
from ladle.engine.settings import Balance, Settings

if TYPE_CHECKING:
    from ladle.engine.loop import Evaluate, Result, fit
    from ladle.engine.nodes import Nodes, this_node
    from ladle.engine.normalizing import normalize
    from ladle.engine.processes import launch, launch_on_nodes, one_process
    from ladle.engine.run import Loader, SaveStudent, prefix

__all__ = [
    "SGD",
    "AdamW",
    "Balance",
    "Cosine",
    "Evaluate",
    "Loader",
    "Nodes",
    "Objective",
    "OneCycle",
    "OptimizerSpec",
    "Result",
    "SaveStudent",
    "Schedule",
    "Settings",
    "Step",
    "fit",
    "launch",
    "launch_on_nodes",
    "normalize",
    "one_process",
    "prefix",
    "this_node",
]

_LATE = {
    "Evaluate": "loop",
    "Loader": "run",
    "Result": "loop",
    "SaveStudent": "run",
    "fit": "loop",
    "Nodes": "nodes",
    "launch": "processes",
    "launch_on_nodes": "processes",
    "this_node": "nodes",
    "normalize": "normalizing",
    "one_process": "processes",
    "prefix": "run",
}


def __getattr__(name: str) -> object:
    if name in _LATE:
        return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
