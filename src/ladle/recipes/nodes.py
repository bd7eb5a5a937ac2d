"""Recipes on several machines: the first node does everything, the others lend their devices to it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from ladle.errors import UserError
from ladle.recipes.options import Run

if TYPE_CHECKING:
    from ladle.engine import Nodes

__all__ = ["connected_nodes", "on_all_nodes"]

P = ParamSpec("P")
R = TypeVar("R")

_NODES: ContextVar[Nodes | None] = ContextVar("nodes", default=None)


def connected_nodes() -> Nodes | None:
    """The nodes of the recipe that is being run; None if this machine is the only one."""
    return _NODES.get()


def on_all_nodes(recipe: Callable[P, R]) -> Callable[P, R]:
    """A recipe with an argument ``run`` that is run on its ``nodes`` together.

    Each node calls it with the same arguments. The first one runs it; the others train on their devices what the first
    one asks for, and return its result.
    """

    @wraps(recipe)
    def together(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature(recipe).bind(*args, **kwargs)
        bound.apply_defaults()
        run = cast("Run", bound.arguments["run"])
        return recipe(*args, **kwargs) if run.nodes == 1 else _joined(run, lambda: recipe(*args, **kwargs))

    return together


def _joined(run: Run, work: Callable[[], R]) -> R:
    from ladle.engine import Nodes, this_node

    nodes = Nodes(this_node(run.nodes))
    if nodes.node.rank > 0:
        return cast("R", nodes.serve(run.devices))
    result: R | UserError = UserError("the run has ended on the first node")
    token = _NODES.set(nodes)
    try:
        result = work()
        return result
    except UserError as error:
        result = error
        raise
    finally:
        _NODES.reset(token)
        nodes.finish(result)
