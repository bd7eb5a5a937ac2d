"""Run a command line in a process of its own, with bounded time and memory, and say how it ended."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jsonargparse  # noqa: F401 - so that no child has to import it again
import matplotlib.pyplot  # noqa: F401 - likewise
import torchvision  # noqa: F401 - likewise

import ladle.recipes  # noqa: F401 - likewise
from ladle.cli.main import main

__all__ = ["Ended", "judge", "run_forked"]

SECONDS = 30
BYTES = 12 * 2**30


class Ended(NamedTuple):
    """How a command ended: exit code, or minus the signal that ended it, and what it wrote to standard error."""

    code: int
    said: str


def judge(ended: Ended) -> str:
    """``accepted``, ``refused`` in one sentence, or what is wrong: ``hang``, ``traceback``, ``lines``, ``code``.

    A command that does all but some of its files names each of these in a line, and counts them in the last.
    """
    if ended.code == -signal.SIGALRM:
        return "hang"
    if "Traceback" in ended.said or "Exception ignored" in ended.said:
        return "traceback"
    lines = ended.said.strip().splitlines()
    if ended.code == 0:
        return "lines" if lines else "accepted"
    if ended.code != 2:
        return "code"
    if lines and re.fullmatch(rf"{len(lines) - 1} of \d+ files could not be read; the others are done", lines[-1]):
        return "accepted"
    return "refused" if len(lines) == 1 and lines[0].startswith("ladle ") else "lines"


def run_forked(words: Sequence[str], opened: frozenset[str] = frozenset()) -> Ended:
    """``ladle WORDS`` in a fork of this process, which must not touch the files of ``opened`` or the network."""
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = _in_child(words, errors.fileno(), opened)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        errors.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), errors.read().decode(errors="replace"))


def _in_child(words: Sequence[str], errors: int, forbidden: frozenset[str]) -> int:
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stderr, sys.stdout = io.TextIOWrapper(io.FileIO(2, "w")), io.TextIOWrapper(io.FileIO(1, "w"))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    sys.addaudithook(lambda event, args: _watch(event, args, forbidden))
    code = 1
    try:
        code = main(list(words))
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    return code


def _watch(event: str, args: tuple[object, ...], forbidden: frozenset[str]) -> None:
    touched = event == "open" and isinstance(args[0], str | Path) and str(args[0]) in forbidden
    if touched or event in ("socket.connect", "socket.getaddrinfo"):
        os.write(2, f"Traceback: {event} {args[0]!r} was asked for\n".encode())
