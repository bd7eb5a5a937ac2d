"""Runs on several machines: one command on each, of which the first does everything and the others lend their devices.

The first node keeps a small store on the network. For each training it puts the task there; the commands on the other
nodes start a process for each of their devices with it. All ends with the command of the first node.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from torch._C._distributed_c10d import TCPStore
from torch.distributed import DistError

from ladle.children import Place, free_port, run_ranks
from ladle.errors import UserError

__all__ = ["Node", "Nodes", "this_node"]

T = TypeVar("T")

_CONNECT = timedelta(minutes=30)
"""How long a node waits for the first one: a cluster may start them one after the other."""
_POLL = timedelta(seconds=1)
_PORT = 29400


@dataclass(frozen=True)
class Node:
    """One of ``count`` machines of a run, and where the store of the first one, of rank 0, is found."""

    rank: int
    count: int
    address: str
    port: int


def this_node(count: int, environment: Mapping[str, str] = os.environ) -> Node:
    """The node that a launcher, SLURM or ``torchrun``, made of this process; or ``NODE_RANK`` and ``MASTER_ADDR``.

    Raises :class:`UserError` if there is no launcher, or one that starts a process for each device.

    Examples:
        >>> from ladle.engine.nodes import this_node
        >>> this_node(2, {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "5000"})
        Node(rank=1, count=2, address='10.0.0.7', port=5000)
    """
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

    each = environment.get("LOCAL_WORLD_SIZE") or environment.get("SLURM_NTASKS_PER_NODE") or "1"
    if each != "1":
        raise UserError(
            f"--nodes {count}: expected one command on each node, which starts a process for each of its --devices, "
            f"found {each}: give --nproc-per-node 1 to torchrun, or --ntasks-per-node 1 to srun"
        )
    port, address = environment.get("MASTER_PORT"), environment.get("MASTER_ADDR")
    if "TORCHELASTIC_RUN_ID" in environment:  # torchrun listens on the port itself
        rank, port = environment.get("GROUP_RANK"), str(int(port or _PORT) + 1)
    elif "SLURM_NODEID" in environment:
        rank = environment["SLURM_NODEID"]
        address = address or SLURMEnvironment.resolve_root_node_address(environment.get("SLURM_NODELIST", "127.0.0.1"))
    else:
        rank = environment.get("NODE_RANK")
    if rank is None or address is None or not rank.isdecimal() or not 0 <= int(rank) < count:
        raise UserError(
            f"--nodes {count}: expected a command started by srun or torchrun on each node, or NODE_RANK from 0 to "
            f"{count - 1} and MASTER_ADDR in its environment, found NODE_RANK {rank} and MASTER_ADDR {address}"
        )
    return Node(int(rank), count, address, int(port or _PORT))


class Nodes:
    """The connection between the nodes of a run."""

    def __init__(self, node: Node) -> None:
        """Connect to the first node; raises :class:`UserError` if it does not appear."""
        self.node, self._tasks = node, 0
        try:
            self._store: Any = TCPStore(node.address, node.port, None, node.rank == 0, _CONNECT, wait_for_workers=False)
        except DistError as error:
            raise UserError(
                f"--nodes {node.count}: expected to reach the first node at {node.address}, port {node.port}, found "
                f"{' '.join(str(error).split())[:200]}: set MASTER_ADDR and MASTER_PORT"
            ) from error

    def launch(self, devices: int, task: Callable[[], T]) -> T:
        """On the first node: call ``task()`` on each device of each node and return the result of rank 0."""
        self._tasks += 1
        # A port for the processes themselves; the store has its own.
        place = Place(self.node.count * devices, 0, self.node.address, free_port(), 0)
        self._store.set(f"task {self._tasks}", pickle.dumps((place, task)))
        return run_ranks(devices, task, place, partial(self._check, "failure"))

    def finish(self, result: Any) -> None:
        """On the first node: end the commands on the others, which return ``result``, or raise it as an error."""
        with suppress(DistError):
            self._store.set("end", pickle.dumps(result))
            for rank in range(1, self.node.count):
                self._store.wait([f"left {rank}"], timedelta(seconds=10))

    def serve(self, devices: int) -> Any:
        """On another node: run each task of the first one on the devices of this node until that ends; its result."""
        number = 1
        while True:
            task = self._next(f"task {number}")
            if task is None:
                return self._leave()
            place, work = pickle.loads(task)
            here = Place(place.world, self.node.rank, place.address, place.port, self.node.rank * devices)
            try:
                run_ranks(devices, work, here, partial(self._check, "end"))
            except UserError as error:
                self._store.set("failure", pickle.dumps(error))
            number += 1

    def _next(self, name: str) -> bytes | None:
        """The next task; None if the run has ended."""
        while True:
            if self._has("end"):
                return None
            with suppress(DistError):
                self._store.wait([name], _POLL)
                found: bytes = self._store.get(name)
                return found

    def _leave(self) -> Any:
        result = pickle.loads(self._store.get("end"))
        self._store.set(f"left {self.node.rank}", b"")
        if isinstance(result, BaseException):
            raise result
        return result

    def _check(self, name: str) -> None:
        """Raise what another node has stored under ``name``, which ends the processes of this one."""
        if self._has(name):
            error = pickle.loads(self._store.get(name))
            raise error if isinstance(error, UserError) else UserError("the run has ended on the first node")

    def _has(self, name: str) -> bool:
        try:
            return bool(self._store.check([name]))
        except (DistError, RuntimeError):
            raise UserError(
                f"the first node of the run, {self.node.address}, cannot be reached any more; its command tells why"
            ) from None
