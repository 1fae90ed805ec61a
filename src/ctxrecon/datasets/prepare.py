"""From raw volumes to a folder of shards: in parallel, and going on where it was stopped."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ctxrecon.datasets.locking import locked
from ctxrecon.datasets.log import warnings_kept
from ctxrecon.datasets.shards import SUFFIX, read_shard_info, shard_files, write_shard
from ctxrecon.datasets.source import LeftOut, Slice, VolumeSource
from ctxrecon.datasets.workers import in_processes, one_thread
from ctxrecon.errors import InputError
from ctxrecon.files import read_json, write_json
from ctxrecon.phantom.dataset import normalize

logger = logging.getLogger(__name__)

_FORMAT = 1
_SETTINGS, _SUMMARY = "settings.json", "summary.json"
# A magnitude that only a few pixels have: the 99 % quantile, which is 1, is then no signal.
_LARGEST = 1e3
# What `written_beside` leaves of a shard when the process is killed.
_PARTIAL = re.compile(rf"\.[0-9a-f]{{16}}-.*{re.escape(SUFFIX)}")


@dataclass
class Summary:
    """What became of the volumes.

    Attributes:
        volumes: how many have a shard.
        resumed: how many of these had it before.
        slices: in these shards.
        empty_slices: left out for want of signal.
        failed: volume → why it was left out.
        subjects: the people of the slices, where they are known.
        left_out: people whose slices were not asked for.
    """

    volumes: int = 0
    resumed: int = 0
    slices: int = 0
    empty_slices: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    subjects: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Outcome:
    name: str
    slices: int = 0
    empty_slices: int = 0
    subjects: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    error: str | None = None
    warnings: tuple[str, ...] = ()


def prepare_shards(
    source: VolumeSource,
    inputs: Sequence[Path],
    out: Path,
    *,
    workers: int | None = None,
    progress: bool = True,
) -> Summary:
    """Make a shard of every volume that has none yet; the same bytes whoever makes them.

    A volume that cannot be read is reported and left out, the others are made. Finished volumes
    are kept when a run is stopped, and the next run goes on with the others; a shard holds a whole
    volume, so the slices of one that was being made are made again. With several workers a script
    that calls this needs ``if __name__ == "__main__":``, as they are spawned.

    Args:
        source: how volumes of this kind become slices.
        inputs: the volumes; their names without suffix name the shards.
        out: an existing folder. ``settings.json`` tells what the set was made with,
            ``summary.json`` what became of the volumes of the last run that came to its end.
        workers: processes, each of which holds one volume; all cores by default.
        progress: whether to show a bar.

    Raises:
        InputError: no input that can be used, two of one name, settings that do not fit the
            folder, a folder that may not be written to, another run at work in it, or a worker that
            died.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise InputError(f"expected 1 worker or more, got {workers}")
    if not out.is_dir():
        raise InputError(f"expected a folder to write shards to, there is none at {out}")
    summary = Summary()
    jobs = _jobs(source, inputs, summary)
    _check_any(jobs, summary)
    with locked(out):
        _settle(out, {"format": _FORMAT, "source": source.kind, **source.settings()})
        (out / _SUMMARY).unlink(missing_ok=True)
        try:
            _remove_partial(out)
            missing = _missing(source, out, jobs, summary)
            _check_any([*missing, *range(summary.resumed)], summary)
            for name, reason in summary.failed.items():
                _report_failure(name, reason)
            _run(source, missing, out, workers, summary, progress)
        finally:
            _remove_partial(out)
        write_json(out / _SUMMARY, asdict(summary))
    return summary


def _jobs(source: VolumeSource, inputs: Sequence[Path], summary: Summary) -> dict[str, Path]:
    """Shard name → volume, without those that cannot be used; two of one name are refused."""
    if not inputs:
        raise InputError("expected volumes to prepare, got none")
    jobs: dict[str, Path] = {}
    # Names that differ in case only are one file on many disks.
    seen: dict[str, Path] = {}
    for path in map(Path, inputs):
        try:
            found = source.find(path)
        except InputError as error:
            summary.failed[_printable(str(path))] = _printable(str(error))
            continue
        for name, volume in found:
            if reason := _refusal(source, name, volume):
                shown = str(volume) if name in summary.failed else name
                summary.failed[_printable(shown)] = _printable(reason)
                continue
            other = seen.setdefault(name.casefold(), volume)
            if other is not volume:
                raise InputError(
                    f"{other} and {volume} would both become {name}{SUFFIX}: rename one, or "
                    "prepare them into two folders"
                )
            jobs[name] = volume
    return jobs


def _refusal(source: VolumeSource, name: str, path: Path) -> str | None:
    """Why a path can be no volume, or its name none of a shard."""
    try:
        source.files(path)
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}): check its path"
    if not name or name.startswith("."):
        return f"{path}: expected a name that does not begin with a dot: rename it"
    if _printable(name) != name:
        return f"{path}: expected a name in UTF-8: rename it"
    return None


def _printable(text: str) -> str:
    """With the bytes of names that are not UTF-8 as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _check_any(usable: Collection[object], summary: Summary) -> None:
    """Refuse to begin when every volume is left out."""
    if not usable:
        more = len(summary.failed) - 1
        reason = next(iter(summary.failed.values()))
        raise InputError(f"{reason} (and {more} more volumes cannot be used)" if more else reason)


def _named(name: str, warning: str) -> str:
    """The warning with the volume that it is of."""
    return warning if name in warning else f"{name}: {warning}"


def _report_failure(name: str, reason: str) -> None:
    tqdm.write(f"ctxrecon: {name} left out: {reason}", file=sys.stderr)


def _settle(out: Path, settings: dict[str, Any]) -> None:
    """Note what the set is made with, or refuse to go on with something else."""
    path = out / _SETTINGS
    if not path.is_file():
        if shards := shard_files(out):
            raise InputError(
                f"{out} holds shards such as {shards[0].name} but no {_SETTINGS} that tells how "
                "they were made: give another --out"
            )
        write_json(path, settings)
        return
    before = read_json(path, "the settings of a set", "give another --out, or remove the folder")
    for name in [*settings, *before]:
        if settings.get(name) != before.get(name):
            raise InputError(
                f"{out} holds a set made with {name} {json.dumps(before.get(name))}, this run has "
                f"{json.dumps(settings.get(name))}: give another --out, or remove the folder"
            )


def _missing(
    source: VolumeSource, out: Path, jobs: dict[str, Path], summary: Summary
) -> dict[str, Path]:
    """The jobs that have no shard yet; the others are counted."""
    missing = {}
    for name, path in jobs.items():
        shard = out / f"{name}{SUFFIX}"
        if not shard.is_file():
            missing[name] = path
            continue
        try:
            info = read_shard_info(shard)
        except InputError as error:
            summary.failed[name] = str(error)
            continue
        if (info.source, info.source_bytes) != (path.name, source.num_bytes(path)):
            summary.failed[name] = (
                f"{shard} was made from another file ({info.source}, {info.source_bytes} bytes) "
                f"than {path}: remove it, or give another --out"
            )
            continue
        summary.resumed += 1
        made = _Outcome(name, info.shape[0], info.empty_slices, info.subjects, info.left_out)
        _count(summary, made)
    return missing


def _count(summary: Summary, outcome: _Outcome) -> None:
    if outcome.error is not None:
        summary.failed[outcome.name] = outcome.error
        return
    summary.volumes += outcome.slices > 0
    summary.slices += outcome.slices
    summary.empty_slices += outcome.empty_slices
    summary.subjects = sorted({*summary.subjects, *outcome.subjects})
    summary.left_out = sorted({*summary.left_out, *outcome.left_out})


def _run(
    source: VolumeSource,
    jobs: dict[str, Path],
    out: Path,
    workers: int,
    summary: Summary,
    progress: bool,
) -> None:
    """Prepare the volumes of ``jobs``, here or in worker processes, and count them."""
    workers = min(workers, len(jobs))
    settled = summary.resumed + len(summary.failed)
    with tqdm(
        total=settled + len(jobs),
        initial=settled,
        unit="volume",
        disable=not progress,
    ) as bar:

        def report(outcome: _Outcome) -> None:
            _count(summary, outcome)
            for warning in outcome.warnings:
                logger.warning(_named(outcome.name, warning))
            if outcome.error is not None:
                _report_failure(outcome.name, outcome.error)
            bar.set_postfix(slices=summary.slices, failed=len(summary.failed))
            bar.update()

        if workers > 1:
            calls = [(name, path, out) for name, path in jobs.items()]
            in_processes(_prepare_volume, source, calls, workers, report)
        else:
            with one_thread():
                for name, path in jobs.items():
                    report(_prepare_volume(source, name, path, out))
    summary.failed = dict(sorted(summary.failed.items()))


def _prepare_volume(source: VolumeSource, name: str, path: Path, out: Path) -> _Outcome:
    """The shard of one volume, with what was warned of, each once."""
    with warnings_kept() as warnings:
        outcome = _write_volume(source, name, path, out)
    return replace(outcome, warnings=tuple(warnings))


def _write_volume(source: VolumeSource, name: str, path: Path, out: Path) -> _Outcome:
    """Write the shard of one volume, or say why there is none."""
    images: list[NDArray[Any]] = []
    kept: list[Slice] = []
    left_out: dict[str, None] = {}
    empty = 0
    try:
        source.files(path)
        for item in source.slices(path):
            if isinstance(item, LeftOut):
                left_out[item.subject] = None
                continue
            image = None if item is None else _channels(path, item.image)
            if item is None or image is None:
                empty += 1
                continue
            images.append(image)
            kept.append(item)
        if not images and left_out:
            return _Outcome(name, empty_slices=empty, left_out=tuple(left_out))
        if not images:
            raise InputError(f"{path}: none of its {empty} slices has signal")
        subjects = tuple(item.subject for item in kept if item.subject is not None)
        weights = [item.weight for item in kept]
        write_shard(
            out / f"{name}{SUFFIX}",
            np.stack(images),
            [item.metadata for item in kept],
            source=path,
            source_bytes=source.num_bytes(path),
            prompt_form=source.prompt_form,
            empty_slices=empty,
            subjects=subjects,
            weights=weights if subjects else (),
            origins=tuple(dict.fromkeys(item.origin for item in kept if item.origin)),
            left_out=tuple(left_out),
        )
    except InputError as error:
        return _Outcome(name, error=" ".join(str(error).split()))
    # A run over thousands of volumes must not end at one that breaks a library in a new way.
    except Exception as error:
        return _Outcome(name, error=" ".join(f"{path}: {type(error).__name__}: {error}".split()))
    return _Outcome(name, len(images), empty, subjects, tuple(left_out))


def _channels(path: Path, image: NDArray[Any]) -> NDArray[Any] | None:
    """The scaled image: complex ``(2, ny, nx)`` float32, a magnitude ``(1, ny, nx)`` float16.

    ``None`` where too little of it has signal.
    """
    if not np.isfinite(image).all():
        raise InputError(f"{path}: an image holds values that are not finite: the file is damaged")
    try:
        scaled = normalize(image)
    except InputError:
        return None
    if np.iscomplexobj(scaled):
        return np.stack([scaled.real, scaled.imag]).astype(np.float32, copy=False)
    return scaled[None].astype(np.float16) if scaled.max() < _LARGEST else None


def _remove_partial(out: Path) -> None:
    for path in out.iterdir():
        if _PARTIAL.fullmatch(path.name):
            path.unlink(missing_ok=True)
