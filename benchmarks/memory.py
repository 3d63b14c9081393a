"""Peak memory of single calls, each in its own process: ``python -m benchmarks.memory FUNCTION``.

FUNCTION (``module:name``) takes the arguments of a call, runs a small one so that one-time loading is not
counted, and returns the call to measure. The server has imported everything and computed nothing. It forks
for every call, so that no call reuses memory of another.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from benchmarks.measure import ROOT, seconds_of
from core.io.errors import TrainingError

MAX_MEMORY_FRACTION = 0.25  # of the available memory; a call that allocates more fails


@contextmanager
def fresh_processes(function: str) -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """Give a function that calls ``function`` once in a fresh process.

    It returns ``{"seconds", "peak_bytes"}``, the peak relative to the memory before the call, or
    ``{"failed": reason}``. Raises TrainingError if the server has ended.
    """
    command = [sys.executable, "-m", "benchmarks.memory", function]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as server:

        def call(arguments: dict[str, Any]) -> dict[str, Any]:
            print(json.dumps(arguments), file=server.stdin, flush=True)
            answer = server.stdout.readline()
            if not answer:
                raise TrainingError(f"{' '.join(command)} has ended; its output is above")
            return json.loads(answer)

        try:
            yield call
        finally:
            server.stdin.close()


def serve(function: str) -> None:
    """Answer each line of stdin, a call's arguments, with a line of stdout."""
    prepare = resolve_name(function)
    for line in sys.stdin:
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read_end)
            os.dup2(2, 1)  # output of libraries must not mix with the answer
            answer = measured(prepare, json.loads(line))
            os.write(write_end, json.dumps(answer).encode())
            os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        if not answer:
            ended = signal.Signals(status).name if os.WIFSIGNALED(status) else "an error"
            answer = json.dumps({"failed": f"ended by {ended}"})
        print(answer, flush=True)


def measured(prepare: Callable[..., Callable[[], object]], arguments: dict[str, Any]) -> dict[str, Any]:
    """Seconds and peak memory of the prepared call, relative to the memory before it."""
    limit = memory_of("/proc/meminfo", "MemAvailable") * MAX_MEMORY_FRACTION
    address_space = int(memory_of("/proc/self/status", "VmSize") + limit)
    resource.setrlimit(resource.RLIMIT_AS, (address_space, resource.RLIM_INFINITY))
    try:
        call = prepare(**arguments)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before = memory_of("/proc/self/status", "VmRSS")
        started = time.perf_counter()
        call()
        seconds = time.perf_counter() - started
        peak = memory_of("/proc/self/status", "VmHWM") - before
        return {"seconds": round(seconds, 6), "peak_bytes": peak}
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            return {"failed": f"needs more than {limit / 2**30:.1f} GiB"}
        return {"failed": str(error).splitlines()[0]}


def measured_on_gpu(
    prepare: Callable[..., Callable[[], object]], arguments: dict[str, Any]
) -> dict[str, Any]:
    """The same for the current GPU, from its allocator, in this process."""
    torch.cuda.empty_cache()
    try:
        call = prepare(**arguments)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds = seconds_of(call)
        return {"seconds": seconds, "peak_bytes": torch.cuda.max_memory_allocated() - before}
    except torch.OutOfMemoryError:
        return {"failed": "needs more memory than the GPU has"}
    except RuntimeError as error:
        return {"failed": str(error).splitlines()[0]}


def memory_of(path: str, name: str) -> int:
    """A value of one of Linux's memory tables, in bytes."""
    for line in Path(path).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{path} has no line {name}")


if __name__ == "__main__":
    serve(sys.argv[1])
