"""Child processes that end with their parent, ignore Ctrl-C, and report a failure to the parent at once."""

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, TypeVar

from ladle.errors import UserError
from ladle.streams import be_patient

__all__ = ["Place", "begin_child", "cores", "free_port", "interrupts_ignored", "run_ranks", "run_tasks"]

T = TypeVar("T")

_GRACE = 2.0
"""Seconds to wait for answers of the other ranks after one has failed."""
_EXIT_TIME = 30.0
"""Seconds to wait for ranks that are done to exit."""


def begin_child() -> None:
    """Set up a child process: it ends as soon as its parent does, and it ignores Ctrl-C."""
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
    """Ignore Ctrl-C while children are started: they inherit this, so that only the parent handles it."""
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
    """Prevent children started here from importing the program's main file, which may have no ``__main__`` guard."""
    main = sys.modules["__main__"]
    try:
        if hidden:
            sys.modules["__main__"] = ModuleType("__main__")
        yield
    finally:
        sys.modules["__main__"] = main


@dataclass(frozen=True)
class Place:
    """Where the processes of one machine stand among those of a run: the first of them has rank ``first``.

    ``world`` is the number of all, ``node`` the number of the machine; rank 0 listens at ``address`` and ``port``.
    """

    world: int
    node: int
    address: str
    port: int
    first: int

    def environment(self, number: int) -> dict[str, str]:
        """The variables with which torch connects process ``number`` of this machine."""
        return {
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
            "WORLD_SIZE": str(self.world),
            "NODE_RANK": str(self.node),
            "LOCAL_RANK": str(number),
            "RANK": str(self.first + number),
            "TORCHELASTIC_USE_AGENT_STORE": "False",  # torchrun's own, of the command that started this one
        }


def run_ranks(
    count: int, task: Callable[[], T], place: Place | None = None, watch: Callable[[], None] = lambda: None
) -> T:
    """Call ``task()`` in ``count`` new processes at the same time and return the result of the first.

    They are all of a run unless ``place`` is given. ``watch`` is called twice a second and may raise an error.

    The environment of each process has the variables with which torch connects them. ``task`` must be picklable; the
    program's main file is imported again only if something in it is defined there. An error in one process is raised
    here and ends all others. They also end if this process is interrupted or killed.
    """
    pickled, ranks = pickle.dumps(task), list[_Rank]()
    place = place or Place(count, 0, "127.0.0.1", free_port(), 0)
    try:
        for number in range(count):
            ranks.append(_start(number, pickled, place.environment(number)))
        for rank in ranks:
            _send(rank, pickled)
        answers = _collect(ranks, watch)
        _raise_first_cause(answers, place)
        for rank in ranks:
            rank.process.join(_EXIT_TIME)
        return next(answer for rank, answer in answers if rank.number == 0).value  # type: ignore[no-any-return]
    finally:
        _kill(ranks)


def run_tasks(tasks: Sequence[Callable[[], T]], at_once: int) -> Iterator[tuple[int, T]]:
    """Call every task in a new process of its own, at most ``at_once`` at the same time.

    Yields the number of each task and its result, in the order in which they end. Tasks must be picklable. An error in
    one of them is raised here and ends all others. They also end if this process is interrupted or killed.
    """
    pending = list(enumerate(map(pickle.dumps, tasks)))
    running: list[_Rank] = []
    try:
        while pending or running:
            while pending and len(running) < at_once:
                number, pickled = pending.pop(0)
                running.append(_start(number, pickled, {}))
                _send(running[-1], pickled)
            for rank, answer in _ended(running):
                running.remove(rank)
                _raise_cause(answer, f"process {rank.number + 1} of {len(tasks)}")
                rank.process.join(_EXIT_TIME)
                yield rank.number, answer.value
    finally:
        _kill(running)


@dataclass(frozen=True)
class _Rank:
    number: int
    process: SpawnProcess
    pipe: Connection[bytes, _Answer]


@dataclass(frozen=True)
class _Answer:
    """The result of a rank: its value, or its error with the traceback as text, or the exit code if it was ended."""

    value: Any = None
    error: BaseException | None = None
    words: str = ""
    code: int | None = None


def _start(number: int, pickled: bytes, environment: dict[str, str]) -> _Rank:
    """Start a process for a task, which it waits for: little is passed at the start, so that starting is fast."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_rank, args=(theirs, environment))
    with interrupts_ignored(), _main_hidden(b"__main__" not in pickled):
        process.start()
    theirs.close()
    return _Rank(number, process, ours)


def _send(rank: _Rank, pickled: bytes) -> None:
    with suppress(OSError):  # it has ended already, which is detected where its answer is awaited
        rank.pipe.send_bytes(pickled)


def _kill(ranks: list[_Rank]) -> None:
    for rank in ranks:
        rank.process.kill()
        rank.process.join()


def _run_rank(pipe: Connection[_Answer, bytes], environment: dict[str, str]) -> None:
    begin_child()
    be_patient()
    os.environ.update(environment)
    try:
        answer = _Answer(pickle.loads(pipe.recv_bytes())())
    except BaseException as error:
        answer = _Answer(error=_picklable(error), words=traceback.format_exc())
    pipe.send(answer)


def _picklable(error: BaseException) -> BaseException:
    """The error if it can be pickled, else a RuntimeError with its text."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(repr(error))


def _collect(ranks: list[_Rank], watch: Callable[[], None]) -> list[tuple[_Rank, _Answer]]:
    """The answers in the order of arrival: all, or those until shortly after the first failure."""
    answers: list[tuple[_Rank, _Answer]] = []
    waiting, until = list(ranks), float("inf")
    while waiting and time.monotonic() < until:
        ended = _ended(waiting)
        watch()
        for rank, answer in ended:
            waiting.remove(rank)
            answers.append((rank, answer))
            if answer.error is not None or answer.code is not None:
                until = min(until, time.monotonic() + _GRACE)
    return answers


def _ended(ranks: list[_Rank]) -> list[tuple[_Rank, _Answer]]:
    """Those that have answered or ended within half a second, with their answers."""
    ready = wait([rank.pipe for rank in ranks], timeout=0.5)
    return [(rank, _receive(rank)) for rank in ranks if rank.pipe in ready or rank.process.exitcode is not None]


def _receive(rank: _Rank) -> _Answer:
    try:
        if rank.pipe.poll():
            return rank.pipe.recv()
    except (EOFError, OSError):
        pass
    rank.process.join(_GRACE)
    return _Answer(code=rank.process.exitcode or 0)


def _raise_first_cause(answers: list[tuple[_Rank, _Answer]], place: Place) -> None:
    """Raise the cause of a failure: a UserError, else a rank that was ended, else the first other error.

    If one rank fails, the others usually fail as well, because they wait for it.
    """
    for _, answer in answers:
        if isinstance(answer.error, UserError):
            raise answer.error
    for rank, answer in sorted(answers, key=lambda one: one[1].code is None):
        _raise_cause(answer, f"process {place.first + rank.number + 1} of {place.world}")


def _raise_cause(answer: _Answer, process: str) -> None:
    """Raise the failure of a process, if it has failed."""
    if answer.code is not None:
        raise UserError(f"{process} {_exit_reason(answer.code)}")
    if answer.error is not None:
        raise answer.error from RuntimeError(answer.words)


def _exit_reason(code: int) -> str:
    """How a process ended that sent no answer, and what the user can do."""
    if code >= 0:
        return (
            f"ended with code {code} before its work was done; a script that trains needs `if __name__ == '__main__':`"
        )
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"number {-code}"
    why = ", as happens where memory runs out: take a smaller --batch or fewer --workers" if name == "SIGKILL" else ""
    return f"was ended by the signal {name}{why}; go on with --resume"


def free_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
