"""Child processes that never outlive their parent, leave Ctrl-C to it, and whose end it hears of at once."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

from ladle.errors import UserError
from ladle.streams import be_patient

__all__ = ["begin_child", "interrupts_ignored", "run_ranks"]

T = TypeVar("T")

_GRACE = 2.0
"""Seconds in which the other ranks may still say what happened, once one has failed."""
_GOODBYE = 30.0
"""Seconds in which ranks that are done may take their leave."""


def begin_child() -> None:
    """To be called in a child: from now on it ends at once where its parent is gone, and Ctrl-C is not its business."""
    with suppress(ValueError):  # not in the main thread
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C for the moment in which children are started: they inherit it, and the parent alone answers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _main_hidden(hidden: bool) -> Iterator[None]:
    """Have children that are started here not run the program's main file again, which need not be made for that."""
    main = sys.modules["__main__"]
    try:
        if hidden:
            sys.modules["__main__"] = ModuleType("__main__")
        yield
    finally:
        sys.modules["__main__"] = main


def run_ranks(world: int, task: Callable[[], T]) -> T:
    """Call ``task()`` in ``world`` new processes at once and return what rank 0 returned.

    Each finds in its environment what torch needs to bring them together. ``task`` must be picklable; only if something
    in it is defined in the program's main file, that file is run again in each. What one of them raises is raised here,
    and all others are ended; so they are where this process is interrupted or killed.
    """
    parcel, ranks = pickle.dumps(task), list[_Rank]()
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(world), "NODE_RANK": "0"}
    try:
        with interrupts_ignored(), _main_hidden(b"__main__" not in parcel):
            for number in range(world):
                ranks.append(_start(number, place | {"LOCAL_RANK": str(number), "RANK": str(number)}))
        for rank in ranks:
            with suppress(OSError):  # it has ended already, which is found out below
                rank.line.send_bytes(parcel)
        answers = _listen(ranks)
        _raise_what_went_wrong(answers, world)
        for rank in ranks:
            rank.process.join(_GOODBYE)
        return next(answer for rank, answer in answers if rank.number == 0).value  # type: ignore[no-any-return]
    finally:
        for rank in ranks:
            rank.process.kill()
            rank.process.join()


@dataclass(frozen=True)
class _Rank:
    number: int
    process: SpawnProcess
    line: Connection[bytes, _Answer]


@dataclass(frozen=True)
class _Answer:
    """What became of a rank: its value, or what it raised, told also in words; neither where it was ended."""

    value: Any = None
    error: BaseException | None = None
    words: str = ""
    code: int | None = None


def _start(number: int, environment: dict[str, str]) -> _Rank:
    # Little is handed over here, so that this takes a moment only; the task follows on the line.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_be_rank, args=(theirs, environment))
    process.start()
    theirs.close()
    return _Rank(number, process, ours)


def _be_rank(line: Connection[_Answer, bytes], environment: dict[str, str]) -> None:
    begin_child()
    be_patient()
    os.environ.update(environment)
    try:
        answer = _Answer(pickle.loads(line.recv_bytes())())
    except BaseException as error:
        answer = _Answer(error=_portable(error), words=traceback.format_exc())
    line.send(answer)


def _portable(error: BaseException) -> BaseException:
    """The error, if it can travel between processes, else one that can."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(repr(error))


def _listen(ranks: list[_Rank]) -> list[tuple[_Rank, _Answer]]:
    """The answers in the order in which they came: all, or those until shortly after the first bad one."""
    answers: list[tuple[_Rank, _Answer]] = []
    silent, until = list(ranks), float("inf")
    while silent and time.monotonic() < until:
        heard = wait([rank.line for rank in silent], timeout=0.5)
        for rank in [rank for rank in silent if rank.line in heard or rank.process.exitcode is not None]:
            silent.remove(rank)
            answers.append((rank, _hear(rank)))
            if answers[-1][1].error is not None or answers[-1][1].code is not None:
                until = min(until, time.monotonic() + _GRACE)
    return answers


def _hear(rank: _Rank) -> _Answer:
    try:
        if rank.line.poll():
            return rank.line.recv()
    except (EOFError, OSError):
        pass
    rank.process.join(_GRACE)
    return _Answer(code=rank.process.exitcode or 0)


def _raise_what_went_wrong(answers: list[tuple[_Rank, _Answer]], world: int) -> None:
    """Raise the cause: a mistake of the user, else a rank that was ended, else the first error of another kind.

    Where one rank fails the others fail too, because they wait for it in vain.
    """
    for _, answer in answers:
        if isinstance(answer.error, UserError):
            raise answer.error
    for rank, answer in answers:
        if answer.code is not None:
            raise UserError(f"process {rank.number + 1} of {world} {_fate(answer.code)}")
    for _, answer in answers:
        if answer.error is not None:
            raise answer.error from RuntimeError(answer.words)


def _fate(code: int) -> str:
    """How a process ended that said nothing, and what can be done."""
    if code >= 0:
        return (
            f"ended with code {code} before its work was done; a script that trains needs `if __name__ == '__main__':`"
        )
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"number {-code}"
    why = ", as happens where memory runs out: take a smaller --batch or fewer --workers" if name == "SIGKILL" else ""
    return f"was ended by the signal {name}{why}; go on with --resume"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
