"""SIGTERM and Ctrl-C: wait for what must not be cut, then leave; a second signal leaves at once."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.distributed import all_reduce_max, launched_processes
from core.io.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# timeout(1), schedulers and torchrun may send one request twice; what comes later is a second one.
SAME_REQUEST_SECONDS = 1.0


class _Request:
    """What this process has been asked, and whether it may be cut where it is."""

    signum: int | None = None
    at = 0.0
    is_shielded = False
    go_on = ""


@contextmanager
def graceful_shutdown(go_on: str = "the same command and --resume") -> Iterator[None]:
    """Inside, the signals raise Interrupted, or where that is ``shielded`` wait until it ends.

    ``go_on`` is what the message tells to go on with.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.signal(signum, _handle) for signum in SIGNALS}
    _Request.signum, _Request.is_shielded, _Request.go_on = None, False, go_on
    try:
        yield
    except Exception:
        # Where several train as one, those that leave first break the others' communication.
        if _Request.signum is not None and launched_processes() > 1:
            raise Interrupted(_Request.signum, go_on=go_on) from None
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def shielded(defer: bool = True) -> Iterator[None]:
    """Inside, a signal waits: for the end of the block, or for whoever asks ``stop_requested`` before."""
    before = _Request.is_shielded
    _Request.is_shielded = defer
    try:
        if not defer:
            raise_if_requested()
        yield
    finally:
        _Request.is_shielded = before
    if not before:
        raise_if_requested()


def stop_requested() -> int | None:
    """The signal that any of the processes that train as one has had, the same answer in all of them.

    Every process must ask at the same point. The exchange is between the hosts: no device is waited for.
    """
    return all_reduce_max(_Request.signum or 0) or None


def raise_if_requested() -> None:
    """Raise Interrupted if a signal has waited."""
    if _Request.signum is not None:
        raise Interrupted(_Request.signum, go_on=_Request.go_on)


def _handle(signum: int, frame: object) -> None:
    if _Request.signum is not None:
        if time.monotonic() - _Request.at > SAME_REQUEST_SECONDS:
            os._exit(128 + signum)  # as SIGKILL would leave: the folder is whole at any instant
        return
    _Request.signum, _Request.at = signum, time.monotonic()
    if not _Request.is_shielded:
        raise Interrupted(signum, go_on=_Request.go_on)
