"""How many cores a process may use, and what its threads do while they wait. This imports no torch."""

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

from core.io.errors import InputError

# What libgomp and LLVM's OpenMP read about waiting threads.
WAIT_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def let_waiting_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they wait, unless the user has set what they do.

    By default they spin for long. If another process uses one of the cores, a spinning thread uses up the
    time that the thread it waits for needs: an epoch of REDDIT-BINARY then takes four times as long or more.
    libgomp's threads spin for a moment first: where nothing else runs, an epoch of shapes takes a tenth less
    time than without, and beside a busy process the same. OpenMP reads this once, when torch is imported.
    """
    if not any(name in os.environ for name in WAIT_VARIABLES):
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}


def given_threads() -> int | None:
    """``$OMP_NUM_THREADS`` if it is set; raises InputError if it is not a whole number of at least 1."""
    given = os.environ.get("OMP_NUM_THREADS")
    if not given:
        return None
    if not re.fullmatch(r"[1-9]\d{0,5}", given):
        raise InputError(f"OMP_NUM_THREADS is {given}; it must be a whole number, at least 1, or not be set")
    return int(given)


def available_cores() -> int:
    """Number of cores that this process may use: those it is bound to, and what its CPU quota allows."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(bound, cpu_quota())))


def cpu_quota(root: Path = Path("/")) -> float:
    """CPUs that the control groups of this process allow it; infinite without a quota."""
    return min((quota for folder in _cgroup_folders(root) for quota in _quotas(folder)), default=math.inf)


def _cgroup_folders(root: Path) -> Iterator[Path]:
    """Folders of this process's control groups (version 1 and 2) and of the groups around them.

    In a container a group's path may be that of the host: then only the folder where groups are mounted is
    there.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        path = Path(group.lstrip("/"))
        yield from (mount / part for part in (path, *path.parents))


def _quotas(folder: Path) -> Iterator[float]:
    """The quota of one control group, in CPUs, if it has one."""
    names = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    for files in names:
        try:
            quota, period = " ".join((folder / name).read_text() for name in files).split()
        except (OSError, ValueError):
            continue
        if quota not in ("max", "-1"):
            yield int(quota) / int(period)
