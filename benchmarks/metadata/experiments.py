"""The experiments: their slices, masks and methods, and one batch of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.held_out import LABEL_VOLUME, held_out_scan, sample, scan_seed
from benchmarks.metadata.edits import (
    ALL,
    NO_CONTRAST,
    NO_PARAMETERS,
    NO_SLICE,
    PATHOLOGY,
    WRONG_CONTRAST,
    WRONG_FIELD,
    WRONG_PATHOLOGY,
    WRONG_TIMES,
    edited_prompt,
)
from ctxrecon.baselines import BASELINES
from ctxrecon.evaluation import Row, append_rows
from ctxrecon.masks import make_mask
from ctxrecon.metrics import Lpips, image_metrics
from ctxrecon.operators import sense_operator
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.scan import Scan
from ctxrecon.solvers import DiffusionSolver, parse_solver

MASKS = {
    "uniform1d ×4": ("uniform1d", 4.0),
    "uniform1d ×8": ("uniform1d", 8.0),
    "Poisson ×8": ("poisson_disk2d", 8.0),
    "Poisson ×15": ("poisson_disk2d", 15.0),
}
ABLATION_MASK = "uniform1d ×8"
METRICS = {"psnr": 2, "ssim": 4, "nmse": 4, "lpips": 4}
"""Metrics with the digits that tables show; ``lpips`` is empty where its weights are missing."""
COLUMNS = ("pool", "mask", "scan", "kind", "method", *METRICS, "residual", "spread", "seconds")
MAX_SCANS = 100_000
"""Slices of a pool: its scans' numbers must not reach those of the next."""


@dataclass(frozen=True)
class Pool:
    """Where slices come from.

    Attributes:
        name: for tables.
        anatomy: ``"knee"`` or ``"brain"``.
        first: number of its first scan; ``benchmarks.phantom`` counts from 0, far below.
        with_finding: every slice is procedural and shows a pathology.
    """

    name: str
    anatomy: str
    first: int
    with_finding: bool = False


KNEE = Pool("knee", "knee", MAX_SCANS)
BRAIN = Pool("brain", "brain", 2 * MAX_SCANS)
KNEE_FINDING = Pool("knee with a finding", "knee", 3 * MAX_SCANS, True)
BRAIN_FINDING = Pool("brain with a finding", "brain", 4 * MAX_SCANS, True)


@dataclass(frozen=True)
class Method:
    """One way to reconstruct.

    Attributes:
        edit: of the prompt, a key of :data:`benchmarks.metadata.edits.EDITS`.
        gamma: γ, 0 for no prompt at all; ``None`` for the baseline, which has no prior.
        samples: posterior samples.
    """

    edit: str
    gamma: float | None
    samples: int

    @property
    def name(self) -> str:
        """As in tables and rows."""
        if self.gamma is None:
            return "L1-wavelet"
        words = [self.edit] * bool(self.gamma) + [f"γ = {self.gamma:g}"]
        return ", ".join([*words, *[f"{self.samples} samples"] * (self.samples > 1)])


L1_WAVELET = Method("", None, 1)


@dataclass(frozen=True)
class Experiment:
    """Every pool is measured with every mask by every method."""

    pools: tuple[Pool, ...]
    masks: tuple[str, ...]
    methods: tuple[Method, ...]


def plan(gammas: Sequence[float], gamma: float, samples: int) -> dict[str, Experiment]:
    """The experiments by name.

    Args:
        gammas: every γ of ``guidance``.
        gamma: γ of the other experiments.
        samples: posterior samples; ``wrong_prompt`` takes at least two, to have a spread.
    """

    def prompts(count: int, *edits: str) -> tuple[Method, ...]:
        return (*(Method(edit, gamma, count) for edit in edits), Method(ALL, 0.0, count))

    pools, sick, mask = (KNEE, BRAIN), (KNEE_FINDING, BRAIN_FINDING), (ABLATION_MASK,)
    guided = tuple(Method(ALL, each, samples) for each in gammas)
    removed = prompts(samples, ALL, NO_PARAMETERS, NO_CONTRAST, NO_SLICE)
    return {
        "guidance": Experiment(pools, tuple(MASKS), (L1_WAVELET, *guided)),
        "removal": Experiment(pools, mask, removed),
        "pathology": Experiment(sick, mask, prompts(samples, ALL, PATHOLOGY, WRONG_PATHOLOGY)),
        "field_strength": Experiment(pools, mask, prompts(samples, ALL, WRONG_FIELD)),
        "wrong_prompt": Experiment(
            pools, mask, prompts(max(samples, 2), ALL, WRONG_TIMES, WRONG_CONTRAST)
        ),
    }


class Measured:
    """Rows by pool, mask, method and scan."""

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: dict[tuple[str, str, str], dict[int, Row]] = {}
        self.add(rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows; a later row of the same case replaces an earlier one."""
        for row in rows:
            key = (row["pool"], row["mask"], row["method"])
            self._rows.setdefault(key, {})[int(row["scan"])] = row

    def missing(self, pool: Pool, mask: str, method: Method, numbers: Iterable[int]) -> list[int]:
        """Those of ``numbers`` without a row."""
        rows = self._rows.get((pool.name, mask, method.name), {})
        return [number for number in numbers if number not in rows]

    def complete(self, experiment: Experiment, count: int) -> list[int]:
        """The scans of each pool, up to ``count``, that every mask and method has done."""
        numbers = set(range(count))
        for pool, mask, method in cells(experiment):
            numbers -= set(self.missing(pool, mask, method, numbers))
        return sorted(numbers)

    def column(
        self, pool: Pool, mask: str, method: Method, name: str, numbers: Iterable[int]
    ) -> NDArray[np.float64]:
        """One number of each scan; NaN where it was not measured."""
        rows = self._rows[pool.name, mask, method.name]
        return np.array([float(rows[number][name] or "nan") for number in numbers])

    def kinds(self, pool: Pool, mask: str, method: Method, numbers: Iterable[int]) -> list[str]:
        """Kind of each scan."""
        rows = self._rows[pool.name, mask, method.name]
        return [rows[number]["kind"] for number in numbers]


def cells(experiment: Experiment) -> list[tuple[Pool, str, Method]]:
    """Every pool, mask and method of an experiment."""
    return [
        (pool, mask, method)
        for pool in experiment.pools
        for mask in experiment.masks
        for method in experiment.methods
    ]


def reconstruct_batch(
    path: Path,
    measured: Measured,
    chosen: Iterable[Experiment],
    numbers: list[int],
    volumes: list[NDArray[np.int16]],
    pipe: ContextMRIPipeline,
    lpips: Lpips | None,
    args: argparse.Namespace,
    bar: tqdm,
) -> None:
    """Add the rows of ``numbers`` that are missing, in all cells, to file and ``measured``."""
    # Experiments share cells: each is done once, in the order that it first appears in.
    wanted = dict.fromkeys(cell for experiment in chosen for cell in cells(experiment))
    scans: dict[tuple[str, int], tuple[str, Scan]] = {}
    sampled: dict[tuple[str, str, int], Scan] = {}
    for pool, mask, method in wanted:
        bar.set_description(f"{pool.name}, {mask}, {method.name}")
        missing = measured.missing(pool, mask, method, numbers)
        for number in missing:
            if (pool.name, number) not in scans:
                scans[pool.name, number] = draw(pool, number, volumes, args)
            if (pool.name, mask, number) not in sampled:
                seed = scan_seed(args.seed, pool.first + number)
                full = scans[pool.name, number][1]
                sampled[pool.name, mask, number] = sample(
                    full, mask_of(mask, args, seed), args.true_maps
                )
        if missing:
            rows = reconstruct(
                method,
                [sampled[pool.name, mask, number] for number in missing],
                [scan_seed(args.seed, pool.first + number) for number in missing],
                pipe,
                lpips,
                args,
            )
            for number, row in zip(missing, rows, strict=True):
                kind = scans[pool.name, number][0]
                row |= {"pool": pool.name, "mask": mask, "scan": str(number), "kind": kind}
            append_rows(path, COLUMNS, rows)
            measured.add(rows)
        bar.update()


def draw(
    pool: Pool, number: int, volumes: list[NDArray[np.int16]], args: argparse.Namespace
) -> tuple[str, Scan]:
    """Kind and fully sampled slice; every second brain is of a label volume where there are any."""
    seed = scan_seed(args.seed, pool.first + number)
    if volumes and pool is BRAIN and number % 2:
        volume = volumes[number // 2 % len(volumes)]
        return LABEL_VOLUME, held_out_scan(LABEL_VOLUME, seed, args.resolution, volume)
    scan = held_out_scan(pool.anatomy, seed, args.resolution, with_finding=pool.with_finding)
    return pool.anatomy, scan


def mask_of(name: str, args: argparse.Namespace, seed: int) -> Tensor:
    """The mask of one slice, ``(1, 1, ny, nx)``."""
    kind, acceleration = MASKS[name]
    size = (args.resolution, args.resolution)
    return make_mask(kind, size, acceleration, generator=torch.Generator().manual_seed(seed))


def reconstruct(
    method: Method,
    scans: list[Scan],
    seeds: list[int],
    pipe: ContextMRIPipeline,
    lpips: Lpips | None,
    args: argparse.Namespace,
) -> list[Row]:
    """Reconstruct a batch of one slice each and rate it; the rows still lack their cell."""
    kspace = torch.cat([scan.kspace for scan in scans])
    mask = torch.cat([scan.mask for scan in scans])
    maps = torch.cat([scan.coil_maps for scan in scans if scan.coil_maps is not None])
    target = torch.cat([scan.target for scan in scans if scan.target is not None])
    residual, spread = torch.full((2, len(scans)), torch.nan)
    started = time.perf_counter()
    if method.gamma is None:
        images = BASELINES["l1_wavelet"](sense_operator(mask, maps), kspace)
    else:
        prompts = [
            edited_prompt(method.edit, scan.metadata[0], seed)
            for scan, seed in zip(scans, seeds, strict=True)
        ]
        solver: DiffusionSolver | None = parse_solver(args.solver)
        if method.samples > 1 and solver is not None and solver.deterministic:
            solver = None  # the pipeline's own, which starts from that estimate
        output = pipe(
            kspace,
            mask,
            prompts if method.gamma else None,
            coil_maps=maps,
            guidance_scale=method.gamma,
            num_inference_steps=args.steps,
            timesteps=args.timesteps,
            solver=solver,
            # The same noise for every prompt and γ: differences are those of the prompt.
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_samples=method.samples,
            batch_size=args.batch_size,
        )
        images, residual = output.images.cpu(), output.residual.cpu()
        if output.std is not None:
            spread = output.std.mean(dim=(-2, -1)).cpu()
    seconds = (time.perf_counter() - started) / len(scans)
    values = image_metrics(images, target)
    if lpips is not None:
        values["lpips"] = lpips(images, target)
    values |= {"residual": residual, "spread": spread}
    return [
        {
            "method": method.name,
            "seconds": f"{seconds:.4f}",
            **{
                name: "" if name not in values else _number(values[name][place])
                for name in (*METRICS, "residual", "spread")
            },
        }
        for place in range(len(scans))
    ]


def _number(value: Tensor) -> str:
    """Shortest text that reads back exactly; nothing where it was not measured."""
    return "" if bool(value.isnan()) else repr(float(value))
