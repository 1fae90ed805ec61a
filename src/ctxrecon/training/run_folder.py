"""Run folders: protection from being overwritten, or used by two runs at once."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from ctxrecon.errors import InputError
from ctxrecon.files import read_json
from ctxrecon.training.checkpoints import is_whole, latest_checkpoint, list_checkpoints, step_of
from ctxrecon.training.config import TrainingConfig, fields_of
from ctxrecon.training.folders import check_folder, remove_left_behind

logger = logging.getLogger(__name__)

LOGS = ("log.jsonl", "validation.jsonl")
CONFIG = "config.json"
_LOCK = ".lock"
_EXPORTS = ("pipeline", "clip")


def check_run(config: TrainingConfig) -> None:
    """Validate, before any work, that the folder of a run can be used; nothing is changed.

    Args:
        config: Configuration of the run.

    Raises:
        InputError: If the folder cannot be written, is in use, contains another run, or has no
            checkpoint to resume, or the run to resume had other options.
    """
    folder: Path = config.output_dir
    check_folder(folder)
    if (folder / _LOCK).is_file():
        with _locked(folder, shared=True):
            pass
    checkpoint = _to_resume(folder, config.resume_from_checkpoint)
    if checkpoint is not None:
        _changes(checkpoint, config)


@contextmanager
def claimed(config: TrainingConfig, accelerator: Accelerator) -> Iterator[Path | None]:
    """Create the folder of a run and lock it against other runs inside the context.

    The main process holds the lock, which is released when the process ends.

    Args:
        config: Configuration of the run.
        accelerator: Accelerator of the run.

    Yields:
        The checkpoint to resume from, on every process, or ``None``.

    Raises:
        InputError: If the folder cannot be used, as in :func:`check_run`; on every process.
    """
    held: list[IO[str]] = []

    def claim() -> Path | None:
        config.output_dir.mkdir(parents=True, exist_ok=True)
        lock = _locked(config.output_dir)
        held.append(lock)
        checkpoint = _to_resume(config.output_dir, config.resume_from_checkpoint)
        if checkpoint is not None:
            for change in _changes(checkpoint, config):
                logger.warning("%s", change)
            logger.info("resuming from %s", checkpoint)
        elif config.resume_from_checkpoint:
            logger.info("no checkpoint in %s yet: starting a new run", config.output_dir)
        remove_left_behind(config.output_dir)
        return checkpoint

    try:
        yield on_main_process(accelerator, claim)
    finally:
        for lock in held:
            lock.close()


def on_main_process(accelerator: Accelerator, work: Callable[[], Any]) -> Any:
    """Call a function on the main process, and pass its result or error to every process.

    Raises:
        InputError: If the main process raises one, or an error of the file system.
    """
    result, refusal = None, None
    if accelerator.is_main_process:
        try:
            result = work()
        except InputError as error:
            refusal = str(error)
        except OSError as error:
            refusal = f"{error.filename or 'the output folder'}: {error.strerror or error}"
    result, refusal = broadcast_object_list([result, refusal])
    if refusal is not None:
        raise InputError(refusal)
    return result


def _locked(folder: Path, *, shared: bool = False) -> IO[str]:
    """Open and lock the lock file of a folder; closing it releases the lock.

    Args:
        folder: Folder of a run.
        shared: If true, the lock excludes only exclusive locks.
    """
    file = (folder / _LOCK).open("a", encoding="utf-8")
    if sys.platform == "win32":
        return file
    import fcntl

    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise InputError(
            f"another training is writing to {folder}: wait until it ends, or use another "
            "--output_dir"
        ) from None
    except OSError as error:
        logger.warning(
            "%s cannot be locked (%s): do not start a second training there", folder, error.strerror
        )
    return file


def _to_resume(folder: Path, wanted: str | None) -> Path | None:
    """Return the checkpoint to resume from, if any; raise if two runs would be mixed."""
    there = _of_a_run(folder)
    if wanted is None:
        if there:
            raise InputError(
                f"{folder} already contains a run ({', '.join(there)}): use another --output_dir, "
                "resume it with --resume_from_checkpoint auto, or remove it"
            )
        return None
    if wanted not in ("auto", "latest"):
        return _named(folder, Path(wanted), there)
    newest = latest_checkpoint(folder)
    if newest is not None:
        return newest
    if wanted == "latest":
        raise InputError(
            f"no checkpoint to resume in {folder}: --resume_from_checkpoint auto starts a new run "
            "if there is none"
        )
    if lost := [name for name in there if name not in LOGS]:
        raise InputError(
            f"{folder} contains {', '.join(lost)} but no complete checkpoint to resume from: use "
            "another --output_dir, or remove them to start a new run"
        )
    return None


def _named(folder: Path, checkpoint: Path, there: list[str]) -> Path:
    """Validate a checkpoint that is specified by its path."""
    if not is_whole(checkpoint):
        raise InputError(
            f"{checkpoint} is not a training checkpoint, or damaged: specify its folder, 'latest' "
            "or 'auto'"
        )
    if checkpoint.resolve().parent != folder.resolve():
        if there:
            raise InputError(
                f"{folder} already contains a run ({', '.join(there)}): use a new --output_dir to "
                f"resume from {checkpoint}"
            )
        return checkpoint
    newer = [path.name for path in list_checkpoints(folder) if step_of(path) > step_of(checkpoint)]
    if newer:
        raise InputError(
            f"{folder} contains newer checkpoints ({', '.join(newer)}): remove them, or use a new "
            f"--output_dir to resume from {checkpoint}"
        )
    return checkpoint


def _of_a_run(folder: Path) -> list[str]:
    """Return the names of files and folders that a training wrote into a folder."""
    logs = [name for name in LOGS if (path := folder / name).is_file() and path.stat().st_size]
    exports = [name for name in _EXPORTS if (folder / name).exists()]
    return [*(path.name for path in list_checkpoints(folder)), *exports, *logs]


def read_stages(path: Path) -> dict[str, dict[str, Any]]:
    """Read the options of a run and of its resumes, each under ``from step N``.

    Raises:
        InputError: If the file is damaged.
    """
    if not path.is_file():
        return {}
    remedy = "restore it, or remove it to continue without it"
    found = read_json(path, "the options of the run", remedy)
    if not all(isinstance(options, dict) for options in found.values()):
        raise InputError(f"{path} is damaged, expected the options of each run: {remedy}")
    return found


def _changes(checkpoint: Path, config: TrainingConfig) -> list[str]:
    """Return a line for each option that differs from the run to resume.

    Raises:
        InputError: If an option that must not change differs.
    """
    stages = read_stages(checkpoint.parent / CONFIG)
    if not stages:
        return []
    before, now = list(stages.values())[-1], config.as_json()
    changes = []
    for name, field in fields_of(type(config)).items():
        policy = field.option.on_resume
        if policy == "free" or name not in before or before[name] == now[name]:
            continue
        if policy == "refused":
            raise InputError(
                f"the run of {checkpoint} has --{name} {before[name]}, not {now[name]}: resume "
                "with its options, or start a new run in another --output_dir"
            )
        changes.append(f"--{name} changed from {before[name]} to {now[name]}")
    return changes
