"""Slices of the pools, and measurement of one batch in every cell of the experiments."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.held_out import LABEL_VOLUME, held_out_scan, sample, scan_seed
from benchmarks.common.people import PersonSlice, choose_slices, full_scan
from benchmarks.metadata.edits import edited_prompt
from benchmarks.metadata.measured import COLUMNS, METRICS, Measured
from benchmarks.metadata.plan import MASKS, PEOPLE, Condition, Experiment, Pool, cells
from ctxrecon.baselines import BASELINES
from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.evaluation import Row, append_rows
from ctxrecon.masks import make_mask
from ctxrecon.metadata.scan_metadata import PromptForm
from ctxrecon.metrics import Lpips, image_metrics
from ctxrecon.operators import sense_operator
from ctxrecon.phantom import load_label_volume
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.scan import Scan
from ctxrecon.solvers import DiffusionSolver, parse_solver


@dataclass(frozen=True)
class Case:
    """One slice of a pool.

    Attributes:
        number: Number in its pool.
        seed: Random seed of the slice.
        kind: Anatomy, or :data:`~benchmarks.common.held_out.LABEL_VOLUME`; for real people anatomy
            and contrast.
        scan: Fully sampled or undersampled scan.
        person: Person whose slice it is, if known.
        form: Form of the prompt.
    """

    number: int
    seed: int
    kind: str
    scan: Scan
    person: str = ""
    form: PromptForm = "fastmri"

    @property
    def shape(self) -> tuple[int, int]:
        """Image shape ``(ny, nx)``."""
        return self.scan.image_shape

    def prompt(self, edit: str) -> str:
        """Return the prompt after an edit, a key of :data:`benchmarks.metadata.edits.EDITS`."""
        return edited_prompt(edit, self.scan.metadata[0], self.seed, self.form)

    def row(self) -> Row:
        """Return the columns that describe the slice."""
        findings = "; ".join(dict.fromkeys(self.scan.metadata[0].pathologies))
        return {
            "scan": str(self.number),
            "kind": self.kind,
            "person": self.person,
            "findings": findings,
        }


class Sources:
    """Source of the slices of every pool; each slice is drawn once.

    Args:
        args: Options of the study.
        people: Load slices of ``args.people``.

    Raises:
        InputError: If label volumes or people cannot be read, or if there are too few slices.
    """

    def __init__(self, args: argparse.Namespace, *, people: bool) -> None:
        self._args = args
        self._volumes: list[NDArray[np.int16]] = [
            load_label_volume(path) for path in args.label_volumes
        ]
        self._cases: dict[tuple[str, int], Case] = {}
        self._sampled: dict[tuple[str, str, int], Case] = {}
        self._chosen: list[PersonSlice] = []
        if people:
            self._people = ShardSlices(args.people)
            self._chosen = choose_slices(self._people, args.scans, args.seed)

    def check(self, path: Path, rows: Iterable[Row]) -> None:
        """Validate that rows of real people belong to this set of people.

        Raises:
            InputError: If the file holds rows of other people.
        """
        for row in rows:
            if row["pool"] != PEOPLE.name or int(row["scan"]) >= len(self._chosen):
                continue
            one = self._chosen[int(row["scan"])]
            if (row["kind"], row["person"]) != (one.kind, one.person):
                raise InputError(
                    f"{path} holds rows of other people than --people {self._args.people}: use "
                    "the original set or another --name"
                )

    def case(self, pool: Pool, number: int) -> Case:
        """Return the fully sampled slice."""
        key = (pool.name, number)
        if key not in self._cases:
            self._cases[key] = self._draw(pool, number)
        return self._cases[key]

    def sampled(self, pool: Pool, mask: str, number: int) -> Case:
        """Return the slice undersampled by its own mask."""
        key = (pool.name, mask, number)
        if key not in self._sampled:
            full = self.case(pool, number)
            drawn = mask_of(mask, full.shape, full.seed)
            few = sample(full.scan, drawn, self._args.true_maps)
            self._sampled[key] = replace(full, scan=few)
        return self._sampled[key]

    def forget(self) -> None:
        """Drop the slices of a completed batch."""
        self._cases.clear()
        self._sampled.clear()

    def _draw(self, pool: Pool, number: int) -> Case:
        seed = scan_seed(self._args.seed, pool.first + number)
        if pool is PEOPLE:
            one = self._chosen[number]
            scan = full_scan(self._people, one, self._args.seed)
            return Case(number, seed, one.kind, scan, one.person, self._people.prompt_form)
        size = self._args.resolution
        if self._volumes and pool.mixed and number % 2:
            volume = self._volumes[number // 2 % len(self._volumes)]
            return Case(number, seed, LABEL_VOLUME, held_out_scan(LABEL_VOLUME, seed, size, volume))
        scan = held_out_scan(
            pool.anatomy,
            seed,
            size,
            with_finding=pool.with_finding,
            known_person=pool.known_person,
        )
        return Case(number, seed, pool.anatomy, scan)


def mask_of(name: str, shape: tuple[int, int], seed: int) -> Tensor:
    """Return the mask of one slice, ``(1, 1, ny, nx)``."""
    kind, acceleration = MASKS[name]
    return make_mask(kind, shape, acceleration, generator=torch.Generator().manual_seed(seed))


def reconstruct_batch(
    path: Path,
    measured: Measured,
    chosen: Iterable[Experiment],
    numbers: list[int],
    sources: Sources,
    pipes: Mapping[str, ContextMRIPipeline],
    lpips: Lpips | None,
    args: argparse.Namespace,
    bar: tqdm,
) -> None:
    """Measure the missing rows of ``numbers``; append them to the file and ``measured``."""
    # Experiments share cells; each cell is measured once.
    wanted = dict.fromkeys(cell for experiment in chosen for cell in cells(experiment))
    for pool, mask, method in wanted:
        bar.set_description(f"{pool.name}, {mask}, {method.name}")
        missing = measured.missing(pool, mask, method, numbers)
        for group in of_one_shape([sources.sampled(pool, mask, number) for number in missing]):
            rows = reconstruct(method, group, pipes[method.prior], lpips, args)
            for case, row in zip(group, rows, strict=True):
                row |= {"pool": pool.name, "mask": mask, **case.row()}
            append_rows(path, COLUMNS, rows)
            measured.add(rows)
        bar.update()


def of_one_shape(cases: Sequence[Case]) -> list[list[Case]]:
    """Group the cases by image shape, because a batch needs a single shape."""
    ordered = sorted(cases, key=lambda case: case.shape)
    return [list(group) for _, group in groupby(ordered, key=lambda case: case.shape)]


def reconstruct(
    method: Condition,
    cases: Sequence[Case],
    pipe: ContextMRIPipeline,
    lpips: Lpips | None,
    args: argparse.Namespace,
) -> list[Row]:
    """Reconstruct and score a batch of slices; the rows do not name their cell yet."""
    scans = [case.scan for case in cases]
    kspace = torch.cat([scan.kspace for scan in scans])
    mask = torch.cat([scan.cartesian_mask for scan in scans])
    maps = torch.cat([scan.coil_maps for scan in scans if scan.coil_maps is not None])
    target = torch.cat([scan.target for scan in scans if scan.target is not None])
    residual, spread = torch.full((2, len(scans)), torch.nan)
    started = time.perf_counter()
    if method.gamma is None:
        images = BASELINES["l1_wavelet"](sense_operator(mask, maps), kspace)
    else:
        prompts = [case.prompt(method.edit) for case in cases]
        solver: DiffusionSolver | None = parse_solver(args.solver)
        if method.samples > 1 and solver is not None and solver.deterministic:
            solver = None  # the pipeline's default for samples, which starts from that estimate
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
            generator=[torch.Generator().manual_seed(case.seed) for case in cases],
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
    """Return the shortest exact text of a number, or an empty text if it was not measured."""
    return "" if bool(value.isnan()) else repr(float(value))
