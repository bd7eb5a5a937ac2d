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
