"""Which heavy libraries a command imports: ``python -m tests.imports`` with JSON on stdin and stdout.

Takes ``{"preload": [modules], "commands": [[module, *flags]]}``. Each command runs in a process forked from
this one, which has imported what is in ``preload`` and nothing else, so that no command starts from scratch
and none sees what another has imported.
"""

import contextlib
import importlib
import io
import json
import multiprocessing
import runpy
import subprocess
import sys
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
HEAVY = {
    *("torch", "torch._dynamo", "torch._inductor", "torch.onnx", "torchvision", "torch_geometric", "triton"),
    *("sentence_transformers", "transformers", "datasets", "tokenizers", "sentencex", "huggingface_hub"),
    *("numpy", "scipy", "sklearn", "joblib", "pandas", "pyarrow", "sympy", "networkx"),
    *("matplotlib", "PIL", "kornia", "jinja2", "rich", "requests", "pooch", "safetensors", "ray"),
}


class Outcome(NamedTuple):
    """How a command ended."""

    code: int | None  # None is success, as for sys.exit
    output: str
    imported: set[str]  # of HEAVY


def outcomes(
    commands: Sequence[Sequence[str]], preload: Sequence[str] = ()
) -> tuple[set[str], list[Outcome]]:
    """What ``preload`` imports of HEAVY, and the outcome of each command, from one fresh interpreter."""
    request = json.dumps({"preload": preload, "commands": commands})
    answer = subprocess.run(
        [sys.executable, "-m", "tests.imports"],
        input=request,
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    preloaded, ended = json.loads(answer.stdout)
    return set(preloaded), [Outcome(code, output, set(imported)) for code, output, imported in ended]


def main() -> None:
    request = json.load(sys.stdin)
    for module in request["preload"]:
        importlib.import_module(module)
    ended = [run_forked(command) for command in request["commands"]]
    print(json.dumps([sorted(HEAVY & sys.modules.keys()), ended]))


def run_forked(command: Sequence[str]) -> Any:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(command, sender))
    process.start()
    ended = receiver.recv()
    process.join()
    return ended


def run(command: Sequence[str], sender: Connection) -> None:
    """Run a command as ``python -m`` does, and send how it ended."""
    module, *flags = command
    sys.argv = [module, *flags]
    output, code = io.StringIO(), None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as exit_:
            code = exit_.code
        except BaseException:
            code = -1
            traceback.print_exc()
    sender.send((code, output.getvalue(), sorted(HEAVY & sys.modules.keys())))


if __name__ == "__main__":
    main()
