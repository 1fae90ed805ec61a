"""Preparation of raw volumes to a folder of shards, in parallel and resumable."""

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
# Above this magnitude, only a few pixels are bright: the 99 % quantile, scaled to 1, is no signal.
_LARGEST = 1e3
# Name of the temporary file of `written_beside` that remains when the process is killed.
_PARTIAL = re.compile(rf"\.[0-9a-f]{{16}}-.*{re.escape(SUFFIX)}")


@dataclass
class Summary:
    """Result of a preparation.

    Attributes:
        volumes: Number of volumes with a shard.
        resumed: Number of these whose shard existed before.
        slices: Number of slices in these shards.
        empty_slices: Number of slices without signal, which were skipped.
        failed: Volume → reason why it was skipped.
        subjects: People of the slices, where known.
        left_out: People whose slices were not selected.
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
    """Write a shard for every volume that has none yet.

    The content of a shard is deterministic. A volume that cannot be read is reported and skipped.
    Finished volumes are kept when a run is interrupted, and the next run continues with the
    others; a volume that was in progress starts from its first slice again. Scripts that call this
    function with several workers need ``if __name__ == "__main__":``, because processes are
    spawned.

    Args:
        source: Kind of the volumes, which converts them to slices.
        inputs: Volumes; their names without suffix name the shards.
        out: Existing output folder. ``settings.json`` in it records the settings of the set, and
            ``summary.json`` the result of the last completed run.
        workers: Number of processes, each of which holds one volume (default: all cores).
        progress: If true, show a progress bar.

    Returns:
        Counts of the volumes and slices, and the failures.

    Raises:
        InputError: If no input is usable, two inputs have the same name, the settings differ from
            those of the folder, the folder is not writable or in use by another run, or a worker
            dies.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise InputError(f"expected at least 1 worker, got {workers}")
    if not out.is_dir():
        raise InputError(f"expected an existing folder for the shards, found none at {out}")
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
    """Return shard name → usable volume; raise if two volumes have the same name."""
    if not inputs:
        raise InputError("expected volumes to prepare, got none")
    jobs: dict[str, Path] = {}
    # Names that differ only in case are the same file on many disks.
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
            if other.absolute() != volume.absolute():
                raise InputError(
                    f"{other} and {volume} would both become {name}{SUFFIX}: rename one, or "
                    "prepare them into two folders"
                )
            jobs[name] = volume
    return jobs


def _refusal(source: VolumeSource, name: str, path: Path) -> str | None:
    """Return why a path or its name cannot be used for a shard, or ``None``."""
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
    """Escape bytes of names that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _check_any(usable: Collection[object], summary: Summary) -> None:
    """Raise if no volume is usable."""
    if not usable:
        more = len(summary.failed) - 1
        reason = next(iter(summary.failed.values()))
        raise InputError(f"{reason} (and {more} more volumes cannot be used)" if more else reason)


def _named(name: str, warning: str) -> str:
    """Prefix a warning with the name of its volume, unless it contains it."""
    return warning if name in warning else f"{name}: {warning}"


def _report_failure(name: str, reason: str) -> None:
    tqdm.write(f"ctxrecon: {name} skipped: {reason}", file=sys.stderr)


def _settle(out: Path, settings: dict[str, Any]) -> None:
    """Record the settings of the set, or raise if they differ from the recorded ones."""
    path = out / _SETTINGS
    if not path.is_file():
        if shards := shard_files(out):
            raise InputError(
                f"{out} contains shards such as {shards[0].name} but no {_SETTINGS} that records "
                "their settings: use another --out"
            )
        if (out / _SUMMARY).exists():
            raise InputError(
                f"{out} contains a {_SUMMARY} of something else, which would be replaced: use "
                "another --out"
            )
        write_json(path, settings)
        return
    before = read_json(path, "the settings of a set", "use another --out, or remove the folder")
    for name in [*settings, *before]:
        if settings.get(name) != before.get(name):
            raise InputError(
                f"{out} contains a set made with {name} {json.dumps(before.get(name))}, this run "
                f"has {json.dumps(settings.get(name))}: use another --out, or remove the folder"
            )


def _missing(
    source: VolumeSource, out: Path, jobs: dict[str, Path], summary: Summary
) -> dict[str, Path]:
    """Return the jobs without a shard, and count the others."""
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
                f"than {path}: remove it, or use another --out"
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
    """Prepare the volumes of ``jobs``, in this or in worker processes, and count them."""
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
    """Write the shard of one volume and collect its distinct warnings."""
    with warnings_kept() as warnings:
        outcome = _write_volume(source, name, path, out)
    return replace(outcome, warnings=tuple(warnings))


def _write_volume(source: VolumeSource, name: str, path: Path, out: Path) -> _Outcome:
    """Write the shard of one volume, or return the reason why there is none."""
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
    # A run over thousands of volumes must survive any failure of a library on one of them.
    except Exception as error:
        return _Outcome(name, error=" ".join(f"{path}: {type(error).__name__}: {error}".split()))
    return _Outcome(name, len(images), empty, subjects, tuple(left_out))


def _channels(path: Path, image: NDArray[Any]) -> NDArray[Any] | None:
    """Scale an image to channels: complex ``(2, ny, nx)`` float32, magnitude ``(1, …)`` float16.

    Returns ``None`` if too few pixels have signal.
    """
    if not np.isfinite(image).all():
        raise InputError(f"{path}: an image contains non-finite values, the file is damaged")
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
