"""Priors and baselines on slices of held-out real people.

    python -m benchmarks.people --data FOLDER [--prior shipped NAME=PATH …]

``FOLDER`` is a set of people who occur in the training of none of the priors, made by ``ctxrecon
prepare images … --only PEOPLE.txt``. Slices alternate between anatomies, contrasts and people.
Magnitude images get a smooth phase. Each slice is measured by 8 simulated coils with known maps,
complex noise of 1 % of the bright signal and its own mask. The reference is the unmodified image
with its own noise; the tables therefore also show the best score that this noise permits. Seed 0 is
reserved for the test; use another seed, which draws other slices, to tune anything.

Rows are appended to ``people.csv`` slice by slice. A stopped run resumes, and further slices,
priors or methods are added to the existing rows.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.arguments import open_named_priors
from benchmarks.common.figures import shrink
from benchmarks.common.held_out import NUM_COILS, SNR, scan_seed
from benchmarks.common.people import PersonSlice, choose_slices, full_scan
from benchmarks.common.record import write_study
from benchmarks.people.options import (
    CEILING,
    CG_SENSE,
    DEFAULT,
    ZERO_FILLED,
    PriorMethod,
    l1_title,
    parse_args,
)
from benchmarks.people.report import L1, SCORES, page, summarize
from benchmarks.people.slices import Ceiling, measured
from ctxrecon.baselines import cg_sense, l1_wavelet, zero_filled
from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.evaluation import Row, append_rows, open_rows, solver_and_call
from ctxrecon.figures import comparison_figure
from ctxrecon.metrics import Lpips, image_metrics
from ctxrecon.operators import sense_operator
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.scan import Scan

_COLUMNS = (
    "scan", "person", "kind", "acceleration", "method", "weights", *SCORES, "seconds"
)  # fmt: skip
_FIGURE = "people.png"

logger = logging.getLogger(__name__)

Priors = dict[str, tuple[ContextMRIPipeline, str]]
Run = Callable[[Scan, PersonSlice], dict[str, Tensor]]
"""Function that reconstructs a slice, ``(count, ny, nx)`` by row title; scores are averaged."""
Runs = dict[tuple[str, ...], tuple[Run, str]]
"""Reconstruction function and fingerprint of its weights, by the titles of its rows."""


class Scorer:
    """Image metrics, with LPIPS if its package is installed."""

    def __init__(self) -> None:
        self.lpips: Lpips | None = Lpips()
        try:
            self.lpips(torch.ones(1, 64, 64), torch.ones(1, 64, 64))
        except InputError as error:
            logger.warning("LPIPS is left out: %s", error)
            self.lpips = None

    def __call__(self, images: Tensor, reference: Tensor) -> dict[str, float]:
        """Return mean scores of ``(count, ny, nx)`` images against ``(1, ny, nx)``."""
        references = reference.expand(len(images), -1, -1)
        values = image_metrics(images, references)
        if self.lpips is not None:
            values["lpips"] = self.lpips(images, references)
        return {name: float(values[name].mean()) for name in SCORES if name in values}


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    slices = ShardSlices(args.data)
    chosen = choose_slices(slices, args.scans, args.seed)
    priors = open_named_priors(args)
    methods = prior_methods(args, priors)
    scorer = Scorer()
    settings = {
        "shards": {path.name: path.stat().st_size for path in slices.files},
        "coils": NUM_COILS,
        "snr": SNR,
        "steps": args.steps,
        "dtype": args.dtype,
        "lpips": None if scorer.lpips is None else scorer.lpips.backbone,
        "seed": args.seed,
    }
    path = args.output_dir / "people.csv"
    rows = open_rows(path, _COLUMNS, settings)
    runs = all_runs(args, priors, methods)
    for one in tqdm(chosen, unit="slice"):
        scan = full_scan(slices, one, args.seed)
        for acceleration in args.accelerations:
            missing = missing_runs(rows, one, acceleration, runs)
            if missing:
                new = rate(scan, one, acceleration, missing, scorer, args.seed)
                append_rows(path, _COLUMNS, new)
                rows += new
    results = {
        "settings": settings | {"priors": {name: found for name, (_, found) in priors.items()}},
        **summarize(current(rows, runs), chosen, methods, args),
    }
    results["figure"] = draw(slices, chosen, runs, methods, results, args)
    write_study(args.output_dir / "people.json", results, args, page)


def prior_methods(args: argparse.Namespace, names: Any) -> list[PriorMethod]:
    """Return every combination of prior and solver, with and without the prompt."""
    found = []
    for text in args.methods:
        draws = text != DEFAULT and not solver_and_call(text)[0].deterministic
        found += [
            PriorMethod(name, text, prompted, args.samples if draws else 1)
            for name in names
            for prompted in (False, True)
        ]
    return found


def all_runs(args: argparse.Namespace, priors: Priors, methods: list[PriorMethod]) -> Runs:
    """Return every method except for the ceiling."""

    def baseline(title: str, function: Callable[..., Tensor], **options: float) -> Run:
        def run(scan: Scan, one: PersonSlice) -> dict[str, Tensor]:
            operator = sense_operator(scan.cartesian_mask, scan.coil_maps)
            return {title: function(operator, scan.kspace, **options)}

        return run

    runs: Runs = {
        (ZERO_FILLED,): (baseline(ZERO_FILLED, zero_filled), ""),
        (CG_SENSE,): (baseline(CG_SENSE, cg_sense), ""),
    }
    for weight in args.l1_weights:
        title = l1_title(weight)
        runs[(title,)] = baseline(title, l1_wavelet, regularization=weight), ""
    for method in methods:
        pipe, found = priors[method.prior]
        runs[method.titles] = prior_run(pipe, method, args), found
    return runs


def prior_run(pipe: ContextMRIPipeline, method: PriorMethod, args: argparse.Namespace) -> Run:
    """Return a function that reconstructs by a prior: an image, or samples and their mean."""
    call: dict[str, Any] = {}
    if method.text != DEFAULT:
        solver, call = solver_and_call(method.text)
        call |= {"solver": solver}

    def run(scan: Scan, one: PersonSlice) -> dict[str, Tensor]:
        output: Any = pipe(
            scan.kspace,
            scan.mask,
            one.prompt if method.prompted else None,
            coil_maps=scan.coil_maps,
            guidance_scale=1.0 if method.prompted else 0.0,
            num_inference_steps=args.steps,
            # The same noise with the prompt and without.
            generator=torch.Generator().manual_seed(scan_seed(args.seed, one.number)),
            num_samples=method.samples,
            batch_size=args.batch_size,
            **call,
        )
        images = {method.title: output.images.cpu()}
        if method.samples > 1:
            images[method.sample_title] = output.samples[0].cpu()
        return images

    return run


def missing_runs(
    rows: list[Row],
    one: PersonSlice,
    acceleration: float,
    runs: Runs,
) -> Runs:
    """Return the runs of a slice without rows."""
    case = (str(one.number), f"{acceleration:g}")
    done = {
        (row["method"], row["weights"])
        for row in rows
        if (row["scan"], row["acceleration"]) == case
    }
    return {
        titles: (run, found)
        for titles, (run, found) in runs.items()
        if not all((title, found) in done for title in titles)
    }


def rate(
    scan: Scan,
    one: PersonSlice,
    acceleration: float,
    runs: Runs,
    scorer: Scorer,
    seed: int,
) -> list[Row]:
    """Score a slice at one acceleration; return the rows, the ceiling first."""
    few = measured(scan, one, acceleration, seed)
    reference = scan.target
    assert reference is not None
    ceiling = Ceiling.of(reference, few.cartesian_mask, scan_seed(seed, one.number))
    found = {CEILING: (scorer(ceiling.image, reference) | ceiling.scores(reference), "", 0.0)}
    for run, weights in runs.values():
        started = time.perf_counter()
        images = run(few, one)
        seconds = time.perf_counter() - started
        for title, image in images.items():
            found[title] = scorer(image, reference), weights, seconds
    return [
        {
            "scan": str(one.number),
            "person": one.person,
            "kind": one.kind,
            "acceleration": f"{acceleration:g}",
            "method": title,
            "weights": weights,
            **{name: repr(scores[name]) if name in scores else "" for name in SCORES},
            "seconds": f"{seconds:.2f}",
        }
        for title, (scores, weights, seconds) in found.items()
    ]


def current(rows: list[Row], runs: Runs) -> list[Row]:
    """Return the rows of these runs and weights, without duplicates."""
    known = {(title, found) for titles, (_, found) in runs.items() for title in titles}
    known.add((CEILING, ""))
    kept = {
        (row["scan"], row["acceleration"], row["method"]): row
        for row in rows
        if (row["method"], row["weights"]) in known
    }
    return list(kept.values())


def draw(
    slices: ShardSlices,
    chosen: list[PersonSlice],
    runs: Runs,
    methods: list[PriorMethod],
    results: dict[str, Any],
    args: argparse.Namespace,
) -> str:
    """Draw the first T2 slice at the highest acceleration by the first method of the priors.

    Returns:
        The file name.
    """
    one = next((one for one in chosen if one.kind.endswith("T2")), chosen[0])
    acceleration = max(args.accelerations)
    scan = full_scan(slices, one, args.seed)
    assert scan.target is not None
    few = measured(scan, one, acceleration, args.seed)
    weight = l1_title(results[f"x{acceleration:g}"]["l1_weight"])
    shown = {ZERO_FILLED: ZERO_FILLED, weight: L1}
    first = [method for method in methods if method.text == methods[0].text]
    shown |= {method.title: method.title for method in first if method.prompted}
    images: dict[str, Tensor] = {}
    for titles, (run, _) in runs.items():
        if titles[0] in shown:
            images[shown[titles[0]]] = run(few, one)[titles[0]][0]
    path = args.output_dir / _FIGURE
    comparison_figure(
        path,
        images,
        scan.target[0],
        reference_name="reference",
        title=f"{one.kind} of a held-out person, ×{acceleration:g}",
    )
    shrink(path)
    return path.name


if __name__ == "__main__":
    main()
