"""Measures what is missing of a grid, split over the processes that accelerate started."""

from __future__ import annotations

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

from ctxrecon.evaluation.grid import (
    Acquisition,
    Batch,
    FullSlice,
    Grid,
    Method,
    Slice,
    load_slice,
    measure,
)
from ctxrecon.evaluation.rows import Row, RowFolder
from ctxrecon.measurement import Measurement
from ctxrecon.metrics import image_metrics

METRICS = {"psnr": 2, "snr": 2, "ssim": 4, "nmse": 4, "hfen": 3, "sharpness": 3}
"""Metrics with the digits that tables show."""
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
    """Measure a grid, or go on with it.

    Batches of slices are dealt to the processes in turn. Each appends its rows when a method is
    done with a batch; the main process joins them in the end, in ``rows.csv``. Numbers other than
    ``seconds`` depend neither on the number of processes nor on where a run was stopped.

    Args:
        grid: what to measure.
        folder: existing, for the rows; rows of a larger grid may lie there already.
        settings: what the numbers depend on and rows do not say.
        state: of accelerate.

    Returns:
        The rows of this grid, sorted, in the main process; ``None`` in the others.

    Raises:
        InputError: the folder holds rows of other settings, a mask that cannot be drawn, or a
            slice that cannot be read or reconstructed.
    """
    grid.check()
    store = RowFolder(folder, COLUMNS, row_key)
    known = store.check_settings(settings)
    wait = _barrier(state)
    wait()  # all have looked before the first writes
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
    return [row for row in store.merge() if row_key(row) in asked]


def device_of(state: PartialState) -> torch.device:
    """Where this process computes."""
    # Networks that are moved to accelerate's "cpu:1" get other strides, and so another rounding.
    return torch.device("cpu") if state.device.type == "cpu" else state.device


def _barrier(state: PartialState) -> Callable[[], None]:
    """Makes the processes wait for one another."""
    if state.num_processes == 1:
        return lambda: None
    # The first to be done may wait for hours; accelerate's own group gives up after minutes.
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
    """The rows that are missing for some slices, method by method.

    Where one is missing the whole batch is reconstructed: see :meth:`Grid.batches`.
    """
    full: list[FullSlice] = []
    for acquisition in grid.acquisitions:
        batch: Batch | None = None
        for method in grid.methods:
            keys = [case_key(one, acquisition, method) for one in slices]
            if not done.issuperset(keys):
                bar.set_description(f"{acquisition.title}, {method.title}")
                full = full or [load_slice(one) for one in slices]
                batch = batch or measure(slices, full, acquisition, grid.seed, device)
                rows = _rate(method, acquisition, slices, full, batch, device)
                yield [row for row, key in zip(rows, keys, strict=True) if key not in done]
            bar.update(len(slices))


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
            "acceleration": f"{acquisition.acceleration:.15g}" if acquisition.acceleration else "",
            "method": method.name,
            "prompt": method.prompt,
            "steps": "" if method.steps is None else str(method.steps),
            # The shortest text that reads back exactly.
            **{name: repr(float(values[name][place])) for name in (*METRICS, "residual")},
            "evaluations": f"{found.evaluations:g}",
            "seconds": f"{seconds:.4f}",
            "sampled": f"{float(sampled[place]):.4f}",
            "reference": full[place].reference_name,
        }
        for place, one in enumerate(slices)
    ]


def sampled_share(measurement: Measurement) -> Tensor:
    """Samples of each coil over the pixels of the image, ``(batch,)`` on the CPU."""
    operator, y = measurement.operator, measurement.y
    if operator.mask is not None:
        return operator.mask.float().mean(dim=(1, 2, 3)).cpu().expand(len(y))
    coils = 1 if operator.coil_maps is None else operator.coil_maps.shape[-3]
    share = prod(y.shape[1:]) / coils / prod(measurement.image_shape)
    return torch.full((len(y),), share)


def case_key(one: Slice, acquisition: Acquisition, method: Method) -> tuple[Any, ...]:
    """What tells a row from all others; rows are sorted by it."""
    return (
        *(one.path.name, one.number, acquisition.mask, acquisition.acceleration or 0.0),
        *(method.name, method.prompt, method.steps or 0),
    )


def row_key(row: Row) -> tuple[Any, ...]:
    """The same of a row in a file."""
    return (
        *(row["scan"], int(row["slice"]), row["mask"], float(row["acceleration"] or 0)),
        *(row["method"], row["prompt"], int(row["steps"] or 0)),
    )
