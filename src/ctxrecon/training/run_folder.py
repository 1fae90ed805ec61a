"""The folder of a run: what is there is never overwritten by another run, nor by two at once."""

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
    """Refuse a run that its folder cannot take, before any work; nothing is changed.

    Args:
        config: of the run.

    Raises:
        InputError: the folder cannot be written, is in use, holds another run, or has no checkpoint
            to resume; or the run to resume had other options.
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
    """Make the folder of a run and keep every other run out of it while the block lasts.

    The main process locks it; the lock ends with the process, however that ends.

    Yields:
        The checkpoint to go on from, on every process, if there is one.

    Raises:
        InputError: as :func:`check_run`, on every process.
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
            logger.info("going on from %s", checkpoint)
        elif config.resume_from_checkpoint:
            logger.info("no checkpoint in %s yet: a new run starts", config.output_dir)
        remove_left_behind(config.output_dir)
        return checkpoint

    try:
        yield on_main_process(accelerator, claim)
    finally:
        for lock in held:
            lock.close()


def on_main_process(accelerator: Accelerator, work: Callable[[], Any]) -> Any:
    """Do it on the main process alone; what comes of it, also an error, reaches every process.

    Raises:
        InputError: what the main process raised, or for an error of the file system.
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
    """The open and locked lock file of a folder; closing it gives the folder free.

    Args:
        folder: of a run.
        shared: whether others may hold such a lock at the same time, but no exclusive one.
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
            f"another training is writing to {folder}: wait for its end, or give another "
            "--output_dir"
        ) from None
    except OSError as error:
        logger.warning(
            "%s cannot be locked (%s): start no second training there", folder, error.strerror
        )
    return file


def _to_resume(folder: Path, wanted: str | None) -> Path | None:
    """The checkpoint that a run goes on from, if any; refuses what would mix two runs."""
    there = _of_a_run(folder)
    if wanted is None:
        if there:
            raise InputError(
                f"{folder} holds a run already ({', '.join(there)}): give another --output_dir, "
                "--resume_from_checkpoint auto to go on with it, or remove it"
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
            "where there is none"
        )
    if lost := [name for name in there if name not in LOGS]:
        raise InputError(
            f"{folder} holds {', '.join(lost)} but no whole checkpoint to go on from: give another "
            "--output_dir, or remove them to start a new run"
        )
    return None


def _named(folder: Path, checkpoint: Path, there: list[str]) -> Path:
    """A checkpoint given by its path."""
    if not is_whole(checkpoint):
        raise InputError(
            f"{checkpoint} is no training checkpoint, or damaged: give the folder of one, 'latest' "
            "or 'auto'"
        )
    if checkpoint.resolve().parent != folder.resolve():
        if there:
            raise InputError(
                f"{folder} holds a run of its own ({', '.join(there)}): give a new --output_dir to "
                f"go on from {checkpoint}"
            )
        return checkpoint
    newer = [path.name for path in list_checkpoints(folder) if step_of(path) > step_of(checkpoint)]
    if newer:
        raise InputError(
            f"{folder} holds newer checkpoints ({', '.join(newer)}): remove them, or give a new "
            f"--output_dir to go on from {checkpoint}"
        )
    return checkpoint


def _of_a_run(folder: Path) -> list[str]:
    """What a training wrote into a folder, by name."""
    logs = [name for name in LOGS if (path := folder / name).is_file() and path.stat().st_size]
    exports = [name for name in _EXPORTS if (folder / name).exists()]
    return [*(path.name for path in list_checkpoints(folder)), *exports, *logs]


def read_stages(path: Path) -> dict[str, dict[str, Any]]:
    """The options of a run and of its resumes, each under ``from step N``.

    Raises:
        InputError: a damaged file.
    """
    if not path.is_file():
        return {}
    remedy = "restore it, or remove it to go on without"
    found = read_json(path, "the options of the run", remedy)
    if not all(isinstance(options, dict) for options in found.values()):
        raise InputError(f"{path} is damaged, expected the options of each run: {remedy}")
    return found


def _changes(checkpoint: Path, config: TrainingConfig) -> list[str]:
    """A line on each option that is another one than in the run to resume.

    Raises:
        InputError: an option that has to stay.
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
                "with its own options, or start a new run in another --output_dir"
            )
        changes.append(f"--{name} was {before[name]} before, now it is {now[name]}")
    return changes
