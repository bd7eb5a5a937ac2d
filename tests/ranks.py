"""What ranks do in the tests of child processes; kept apart, so that they start without loading anything else."""

import os
import signal
import time

from ladle.errors import UserError


def rank():
    return int(os.environ["LOCAL_RANK"])


def tell(folder):
    """Leave a file with the process id for each rank, and return what rank 0 sees."""
    (folder / f"{rank()}.pid").write_text(str(os.getpid()))
    return rank(), os.environ["WORLD_SIZE"], os.environ["MASTER_ADDR"]


def tell_and_wait(folder):
    tell(folder)
    time.sleep(60)


def fail(folder, how):
    """Rank 1 ends in some way while rank 0 waits for it, or fails only because it did."""
    tell(folder)
    if rank() == 0:
        while not (folder / "1.pid").exists():
            time.sleep(0.01)
        if how == "mistake first":
            raise RuntimeError("connection closed by peer")
        time.sleep(60)
    time.sleep(0.2)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exits":
        os._exit(3)
    if how == "full disk":
        raise OSError(28, "No space left on device", "resume.pt")
    raise UserError("a.jpg: expected an image, found none")


def take_part(folder, name, after=None):
    """Write down the begin and the end of a task, which is after the event ``after``; returns ``name``."""
    events = folder / "events"
    (folder / f"{name}.pid").write_text(str(os.getpid()))
    _append(events, f"+{name}")
    while after is not None and after not in events.read_text().split():
        time.sleep(0.01)
    _append(events, f"-{name}")
    return name


def fail_after(folder, event):
    """Fail after another task has begun."""
    while not (folder / "events").exists() or event not in (folder / "events").read_text():
        time.sleep(0.01)
    raise UserError("a.jpg: expected an image, found none")


def _append(path, line):
    with path.open("a") as file:
        file.write(f"{line}\n")
