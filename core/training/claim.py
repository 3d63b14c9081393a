"""Claim a folder for a run: it must be new or hold this run, and no other process may train it."""

import fcntl
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from core.io.errors import InputError
from core.io.files import write_atomically
from core.training.checkpoints import restoring
from core.training.settings import differing_settings, read_settings

if TYPE_CHECKING:
    from core.training.run_folder import Run

LOCK = ".lock"
FINISHED = ".finished"  # the files of a run's end, until all are written
# Names that a process leaves if it is killed, also one of earlier code.
TEMPORARY = re.compile(
    r"\.(config\.json|metrics\.jsonl|(encoder|heads|sample)\.safetensors|result\.json|failure\.json"
    r"|state-[ab]\.pt)\..+|\.encoder-.+|\.finished"
)


def claim(run: "Run") -> None:
    """Lock the run's folder and make it ready; a finished run stays as it is. Raises InputError."""
    folder, config = run.folder, run.config
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_is_ours(run)
        if run.is_finished():
            return
        run.lock = take_lock(folder)
        check_is_ours(run)
        if run.is_finished():  # by a process that has ended since
            return
        if run.checkpoints.exist() and not config.resume:
            raise InputError(
                f"{folder} holds this run unfinished, {epochs_done(folder)} of {config.epochs} epochs done; "
                "add `resume` to continue it, or choose another `output_dir`"
            )
        remove_temporaries(folder)
        check_epochs(run)
        if run.record() is None:
            write_atomically(folder / "config.json", config.as_text())
            if (folder / "result.json").exists():
                print(f"warning: {folder}/result.json is damaged and is written again", file=sys.stderr)
        run.checkpoints.folder.mkdir(exist_ok=True)
        (folder / "failure.json").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"`output_dir` {folder} cannot be written: {error.strerror}") from error


def check_is_ours(run: "Run") -> None:
    """Raise InputError if the folder holds another run, or files of something else."""
    folder, config = run.folder, run.config
    names = {path.name for path in folder.iterdir()} - {LOCK}
    if "config.json" not in names:
        if not all(map(TEMPORARY.fullmatch, names)):
            raise InputError(f"{folder} holds files that are not a run's; choose another `output_dir`")
        return
    others = names - {"config.json", "checkpoint"}
    if all(map(TEMPORARY.fullmatch, others)) and not run.checkpoints.exist():
        return  # a run that ended before it began, perhaps because of its data or settings
    changes = differing_settings(config, folder, ignored=("epochs",))
    advice = "" if changes else advice_on_epochs(run)
    if not config.resume:
        changes = differing_settings(config, folder)
    if changes:
        raise InputError(
            f"{folder} holds a run of other settings ({changes}); {advice}choose another `output_dir`"
        )


def advice_on_epochs(run: "Run") -> str:
    """What to do with a folder whose run differs in ``epochs`` alone."""
    config = run.config
    if config.depends_on_epochs():
        return ""
    if config.epochs > epochs_done(run.folder):
        return f"add `resume` to train it to {config.epochs} epochs, or "
    return "a run cannot be shortened; "


def check_epochs(run: "Run") -> None:
    """Raise InputError if the run has trained for other ``epochs`` and cannot be resumed to these."""
    folder, wanted = run.folder, run.config.epochs
    begun_with = read_settings(folder).get("epochs") if (folder / "config.json").exists() else wanted
    state = run.load_checkpoint()
    if state is None and (wanted == begun_with or run.record() is None):
        return  # nothing is trained, or what is to be
    if state is not None and wanted < (trained := epochs_begun(state, run.checkpoints.folder)):
        raise InputError(
            f"`epochs` is {wanted}, but the run in {folder} is in epoch {trained}; it cannot be shortened: "
            "choose another `output_dir`"
        )
    if wanted == begun_with:
        return
    if reason := run.config.depends_on_epochs():
        raise InputError(
            f"`epochs` is {wanted}, but the run in {folder} was begun with {begun_with}, and {reason} "
            "depends on it; start a new run from its weights with `init`, in another `output_dir`"
        )
    if state is None:
        raise InputError(
            f"{folder} holds a finished run of {begun_with} epochs without its checkpoint, so it cannot be "
            "trained on; choose another `output_dir`"
        )


def epochs_begun(state: Mapping[str, Any], folder: Path) -> int:
    """Epochs that a state of the checkpoints in ``folder`` has trained, the one in progress included."""
    with restoring(folder):
        progress = state["progress"]
        return progress["epoch"] - (len(progress["step_statistics"]) == 0)


def epochs_done(folder: Path) -> int:
    """Epochs in ``metrics.jsonl``, whose first line is the untrained encoder's."""
    try:
        lines = (folder / "metrics.jsonl").read_bytes().count(b"\n")
    except OSError:
        lines = 0
    return max(lines - 1, 0)


def take_lock(folder: Path) -> IO[str]:
    """Lock the folder until the file is closed; raise InputError if another process has the lock."""
    lock = open(folder / LOCK, "a")  # noqa: SIM115 -- ``Run.open`` closes it
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"{folder} is in use: another process trains this run; wait until it ends, or choose another "
            "`output_dir`"
        ) from None
    return lock


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that killed writes have left in a run's folder."""
    for path in [*folder.glob(".*"), *folder.glob("checkpoint/.*")]:
        if TEMPORARY.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
