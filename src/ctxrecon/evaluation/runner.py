"""Measurement of the missing cases of a grid, distributed over accelerate's processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from math import prod
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor
from tqdm.auto import tqdm

from ctxrecon.errors import InputError
from ctxrecon.evaluation.grid import (
    Acquisition,
    Batch,
    FullSlice,
    Grid,
    Method,
    load_slice,
    measure,
)
from ctxrecon.evaluation.rows import Row, RowFolder
from ctxrecon.evaluation.scans import Slice
from ctxrecon.measurement import Measurement
from ctxrecon.metrics import image_metrics

logger = logging.getLogger(__name__)

METRICS = {"psnr": 2, "snr": 2, "ssim": 4, "nmse": 4, "hfen": 3, "sharpness": 3}
"""Metrics, with the number of digits in tables."""
CASE = ("scan", "slice", "mask", "acceleration")
COLUMNS = (
    *CASE,
    *("method", "prompt", "steps"),
    *METRICS,
    *("residual", "evaluations", "seconds", "sampled", "reference"),
)


def run_grid(
    grid: Grid, folder: Path, settings: Mapping[str, object], state: PartialState
) -> list[Row] | None:
    """Measure a grid, or resume a stopped measurement.

    Batches of slices are distributed over the processes in turn. Each process appends its rows
    when a method has finished a batch; at the end, the main process combines them in ``rows.csv``.
    Slices whose reference is zero are left out, which is logged. Numbers other than ``seconds``
    depend neither on the number of processes nor on interruptions.

    Args:
        grid: Grid to measure.
        folder: Existing folder for the rows; it may already contain rows of a larger grid.
        settings: Settings on which the numbers depend and that are not part of the rows.
        state: State of accelerate.

    Returns:
        The sorted rows of this grid in the main process, ``None`` in the others.

    Raises:
        InputError: If the folder contains rows with other settings, a mask cannot be drawn, a
            slice cannot be read or reconstructed, or all references are zero.
    """
    grid.check()
    store = RowFolder(folder, COLUMNS, row_key)
    known = store.check_settings(settings)
    wait = _barrier(state)
    wait()  # until all processes have checked the settings
    if state.is_main_process:
        store.write_settings(known)
    done = {row_key(row) for row in store.read()}
    wait()
    share = grid.batches()[state.process_index :: state.num_processes]
    total = sum(map(len, share)) * len(grid.acquisitions) * len(grid.methods)
    with tqdm(total=total, unit="image", disable=not state.is_main_process) as bar:
        for slices in share:
            for rows in _measure(grid, slices, done, device_of(state), bar):
                store.append(state.process_index, rows)
    wait()
    if not state.is_main_process:
        return None
    asked = {
        case_key(one, acquisition, method)
        for one in grid.slices
        for acquisition in grid.acquisitions
        for method in grid.methods
    }
    rows = [row for row in store.merge() if row_key(row) in asked]
    if not rows:
        raise InputError("the references of all slices are zero: give scans with signal")
    return rows


def device_of(state: PartialState) -> torch.device:
    """Return the device of this process."""
    # Networks moved to accelerate's "cpu:1" get other strides, and thus other rounding errors.
    return torch.device("cpu") if state.device.type == "cpu" else state.device


def _barrier(state: PartialState) -> Callable[[], None]:
    """Return a function that waits for all processes."""
    if state.num_processes == 1:
        return lambda: None
    # The first process may wait for hours, but accelerate's own group times out after minutes.
    group: Any = dist.new_group(backend="gloo", timeout=timedelta(days=7))

    def wait() -> None:
        dist.barrier(group=group)

    return wait


def _measure(
    grid: Grid,
    slices: tuple[Slice, ...],
    done: set[tuple[Any, ...]],
    device: torch.device,
    bar: tqdm,
) -> Iterable[list[Row]]:
    """Yield the missing rows of some slices, method by method.

    If one slice is missing, the whole batch is reconstructed, see :meth:`Grid.batches`.
    """
    full: list[FullSlice] = []
    total = len(slices)
    for acquisition in grid.acquisitions:
        batch: Batch | None = None
        for method in grid.methods:
            if not full and _missing(slices, acquisition, method, done):
                slices, full = _load(slices)
            if _missing(slices, acquisition, method, done):
                bar.set_description(f"{acquisition.title}, {method.title}")
                batch = batch or measure(slices, full, acquisition, grid.seed, device)
                rows = _rate(method, acquisition, slices, full, batch, device)
                yield [row for row in rows if row_key(row) not in done]
            bar.update(total)


def _missing(
    slices: tuple[Slice, ...], acquisition: Acquisition, method: Method, done: set[tuple[Any, ...]]
) -> bool:
    """Return whether a row of one of these slices is missing."""
    return not done.issuperset(case_key(one, acquisition, method) for one in slices)


def _load(slices: tuple[Slice, ...]) -> tuple[tuple[Slice, ...], list[FullSlice]]:
    """Read slices, and return those with a reference that is not zero."""
    found = [(one, load_slice(one)) for one in slices]
    for one, whole in found:
        if whole.empty:
            logger.warning("%s: the reference of slice %d is zero: left out", one.path, one.number)
    kept = [(one, whole) for one, whole in found if not whole.empty]
    return tuple(one for one, _ in kept), [whole for _, whole in kept]


def _rate(
    method: Method,
    acquisition: Acquisition,
    slices: tuple[Slice, ...],
    full: list[FullSlice],
    batch: Batch,
    device: torch.device,
) -> list[Row]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    found = method.run(batch)
    seconds = (time.perf_counter() - started) / len(slices)
    values = image_metrics(found.images, torch.cat([whole.reference for whole in full]))
    values["residual"] = found.residual
    sampled = sampled_share(batch.measurement)
    return [
        {
            "scan": one.path.name,
            "slice": str(one.number),
            "mask": acquisition.mask,
            "acceleration": _number(acquisition.acceleration) if acquisition.acceleration else "",
            "method": method.name,
            "prompt": method.prompt,
            "steps": "" if method.steps is None else str(method.steps),
            # The shortest text that restores the exact number.
            **{name: repr(float(values[name][place])) for name in (*METRICS, "residual")},
            "evaluations": f"{found.evaluations:g}",
            "seconds": f"{seconds:.4f}",
            "sampled": f"{float(sampled[place]):.4f}",
            "reference": full[place].reference_name,
        }
        for place, one in enumerate(slices)
    ]


def _number(value: float) -> str:
    """Return the shortest text that restores a number exactly."""
    return repr(float(value)).removesuffix(".0")


def sampled_share(measurement: Measurement) -> Tensor:
    """Compute the number of samples per coil over the number of pixels, ``(batch,)`` on the CPU."""
    operator, y = measurement.operator, measurement.y
    if operator.mask is not None:
        return operator.mask.float().mean(dim=(1, 2, 3)).cpu().expand(len(y))
    coils = 1 if operator.coil_maps is None else operator.coil_maps.shape[-3]
    share = prod(y.shape[1:]) / coils / prod(measurement.image_shape)
    return torch.full((len(y),), share)


def case_key(one: Slice, acquisition: Acquisition, method: Method) -> tuple[Any, ...]:
    """Return the unique key of a case, by which rows are sorted."""
    return (
        *(one.path.name, one.number, acquisition.mask, acquisition.acceleration or 0.0),
        *(method.name, method.prompt, method.steps or 0),
    )


def row_key(row: Row) -> tuple[Any, ...]:
    """Return the key of a row in a CSV file, equal to its :func:`case_key`."""
    return (
        *(row["scan"], int(row["slice"]), row["mask"], float(row["acceleration"] or 0)),
        *(row["method"], row["prompt"], int(row["steps"] or 0)),
    )
