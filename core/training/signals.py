"""SIGTERM and Ctrl-C: finish the step, save and leave. A second signal leaves at once.

Ctrl-C during an import ends the process at once: an interrupted import may fail later, with another error.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from core.io.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# timeout(1), schedulers and torchrun may send one request twice; only what comes later is a second request.
SAME_REQUEST_SECONDS = 1.0


IMPORT_SYSTEM = "<frozen importlib._bootstrap>"  # the file of its frames


class _Request:
    """The signal that this process has received, and whether it must wait."""

    signum: int | None = None
    received_at = 0.0
    is_shielded = False
    resume_with = ""


@contextmanager
def graceful_shutdown(resume_with: str = "the same command and `resume`") -> Iterator[None]:
    """Inside, a signal raises Interrupted; inside ``shielded`` it waits until that block ends.

    ``resume_with`` is what the message recommends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, _handle) for signum in SIGNALS}
    _Request.signum, _Request.is_shielded, _Request.resume_with = None, False, resume_with
    try:
        yield
    except Exception:
        from core.distributed import launched_processes  # imports torch, which not every command needs

        # Of several processes, the first that leaves breaks the communication of the others.
        if _Request.signum is not None and launched_processes() > 1:
            raise Interrupted(_Request.signum, resume_with=resume_with) from None
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def leave_during_imports() -> Iterator[None]:
    """Inside, Ctrl-C raises KeyboardInterrupt, but during an import it ends the process at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        handle_imports()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def handle_imports() -> None:
    """Have Ctrl-C raise KeyboardInterrupt, but during an import end the process at once."""
    signal.signal(signal.SIGINT, _leave_import)


@contextmanager
def shielded() -> Iterator[None]:
    """Inside, a signal waits for the end of the block, or for a call of ``stop_requested``."""
    with _shield(True):
        yield
    if not _Request.is_shielded:
        raise_if_requested()


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, a signal raises Interrupted at once, also within ``shielded``."""
    with _shield(False):
        raise_if_requested()
        yield


@contextmanager
def _shield(wanted: bool) -> Iterator[None]:
    before, _Request.is_shielded = _Request.is_shielded, wanted
    try:
        yield
    finally:
        _Request.is_shielded = before


def stop_requested() -> int | None:
    """The signal that any of the processes has received; the answer is the same in all of them.

    Every process must call this at the same point. Hosts exchange it, so no device is waited for.
    """
    from core.distributed import all_reduce_max

    return all_reduce_max(_Request.signum or 0) or None


def raise_if_requested() -> None:
    """Raise Interrupted if a signal has been received."""
    if _Request.signum is not None:
        raise Interrupted(_Request.signum, resume_with=_Request.resume_with)


def _leave_import(signum: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename == IMPORT_SYSTEM:
            os.write(2, b"interrupted\n")
            os._exit(128 + signum)
        frame = frame.f_back
    raise KeyboardInterrupt


def _handle(signum: int, frame: object) -> None:
    if _Request.signum is not None:
        if time.monotonic() - _Request.received_at > SAME_REQUEST_SECONDS:
            os._exit(128 + signum)  # as SIGKILL would; every file of the folder is complete at any moment
        return
    _Request.signum, _Request.received_at = signum, time.monotonic()
    if not _Request.is_shielded:
        raise Interrupted(signum, resume_with=_Request.resume_with)
