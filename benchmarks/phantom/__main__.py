"""Held-out phantom scans: baselines, the shipped network, and the prior at several γ.

    python -m benchmarks.phantom --output_dir benchmarks/results \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

The scans are procedural knees and brains with seeds that no training set uses and, with
``--label_volumes`` (of people outside the prior's training data), slices of those. Each has its own
protocol, 8 simulated coils, complex noise of 1 % of the bright signal, its own mask, and coil maps
estimated from the undersampled scan unless ``--true_maps`` is set.

Rows are appended to ``phantom_table.csv`` as they finish; a stopped run resumes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.arguments import open_named_prior
from benchmarks.common.figures import shrink
from benchmarks.common.held_out import (
    NUM_COILS,
    SNR,
    held_out_scans,
    scan_seed,
    shuffled,
    undersample,
)
from benchmarks.common.methods import BASELINE_NAMES, shipped_network
from benchmarks.common.record import write_study
from benchmarks.phantom.options import METRICS, method_name, names_of, parse_args, shuffled_name
from benchmarks.phantom.report import page, summarize
from ctxrecon.baselines import BASELINES
from ctxrecon.evaluation import Row, append_rows, fingerprint, open_rows
from ctxrecon.figures import comparison_figure
from ctxrecon.metrics import image_metrics
from ctxrecon.operators import sense_operator
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.scan import Scan
from ctxrecon.solvers import Solver, parse_solver

_COLUMNS = ("acceleration", "scan", "kind", "method", *METRICS, "seconds")

# Reconstructs the scans with these numbers, ``(len, ny, nx)``.
Runner = Callable[[list[int]], Tensor]


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    pipe, prior = open_named_prior(args)
    settings = {
        "prior": prior,
        # Rows name the network by its class, which stays the same when its weights change.
        "network": fingerprint(shipped_network()[1]),
        "label_volumes": [path.name for path in args.label_volumes],
        "coils": NUM_COILS,
        "snr": SNR,
        **{
            name: getattr(args, name)
            for name in (
                "scans",
                "resolution",
                "timesteps",
                "steps",
                "samples",
                "solvers",
                "dtype",
                "true_maps",
            )
        },
        "seed": args.seed,
    }
    path = args.output_dir / "phantom_table.csv"
    rows = open_rows(path, _COLUMNS, settings)
    scans = held_out_scans(args.scans, args.resolution, args.label_volumes, args.seed)
    run_missing(path, rows, scans, pipe, args)
    # Defaults may change; the record keeps every option.
    in_full = [repr(parse_solver(text)) for text in args.solvers]
    results = {
        "settings": settings | {"solvers_in_full": in_full},
        **summarize(rows, args),
    }
    write_study(args.output_dir / "phantom_table.json", results, args, page)
    for acceleration in args.accelerations:
        draw(scans, acceleration, names_of(args), pipe, args)


def methods_of(
    scans: list[tuple[str, Scan]],
    measured: dict[int, Scan],
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
) -> dict[str, Runner]:
    """Return every method by its name; ``measured`` must hold the scans to reconstruct."""
    prompts = [scan.metadata[0].to_prompt() for _, scan in scans]
    partner = shuffled(len(scans), args.seed)

    def gather(numbers: list[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        batch = [measured[number] for number in numbers]
        maps = [scan.coil_maps for scan in batch if scan.coil_maps is not None]
        stacked = torch.cat(maps) if maps else None
        masks = torch.cat([scan.cartesian_mask for scan in batch])
        return torch.cat([scan.kspace for scan in batch]), masks, stacked

    def baseline(key: str) -> Runner:
        def run(numbers: list[int]) -> Tensor:
            kspace, mask, maps = gather(numbers)
            return BASELINES[key](sense_operator(mask, maps), kspace)

        return run

    def prior(solver: Solver, gamma: float, wording: list[str]) -> Runner:
        def run(numbers: list[int]) -> Tensor:
            kspace, mask, maps = gather(numbers)
            output = pipe(
                kspace,
                mask,
                [wording[number] for number in numbers] if gamma else None,
                coil_maps=maps,
                guidance_scale=gamma,
                num_inference_steps=args.steps,
                timesteps=args.timesteps,
                solver=solver,
                # The same noise for every γ, so that differences are those of the prompt.
                generator=[
                    torch.Generator().manual_seed(scan_seed(args.seed, number))
                    for number in numbers
                ],
                num_samples=args.samples,
                batch_size=args.batch_size,
            )
            return output.images.cpu()

        return run

    def direct(numbers: list[int]) -> Tensor:
        kspace, mask, maps = gather(numbers)
        output = network(kspace, mask, coil_maps=maps)
        return output.images

    methods = {name: baseline(key) for key, name in BASELINE_NAMES.items()}
    title, network = shipped_network()
    methods[title] = direct
    for solver in map(parse_solver, args.solvers):
        methods |= {
            method_name(solver, gamma): prior(solver, gamma, prompts)
            for gamma in args.guidance_scales
        }
        methods[shuffled_name(solver)] = prior(solver, 1.0, [prompts[other] for other in partner])
    return methods


def run_missing(
    path: Path,
    rows: list[Row],
    scans: list[tuple[str, Scan]],
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
) -> None:
    """Reconstruct the cases missing in the CSV file; append them to the file and ``rows``."""
    done = {(row["acceleration"], int(row["scan"]), row["method"]) for row in rows}
    count = len(scans) * len(args.accelerations) * len(names_of(args))
    with tqdm(total=count, unit="image") as bar:
        for acceleration in args.accelerations:
            for first in range(0, len(scans), args.batch_size):
                numbers = list(range(first, min(first + args.batch_size, len(scans))))
                measured: dict[int, Scan] = {}
                for name, method in methods_of(scans, measured, pipe, args).items():
                    missing = [
                        number
                        for number in numbers
                        if (f"{acceleration:g}", number, name) not in done
                    ]
                    bar.set_description(f"×{acceleration:g} {name}")
                    if missing:
                        for number in missing:
                            if number not in measured:
                                measured[number] = undersample(
                                    scans[number][1],
                                    acceleration,
                                    scan_seed(args.seed, number),
                                    args.true_maps,
                                )
                        started = time.perf_counter()
                        images = method(missing)
                        seconds = (time.perf_counter() - started) / len(missing)
                        new = rate(acceleration, name, missing, scans, measured, images, seconds)
                        append_rows(path, _COLUMNS, new)
                        rows += new
                    bar.update(len(numbers))


def rate(
    acceleration: float,
    method: str,
    numbers: list[int],
    scans: list[tuple[str, Scan]],
    measured: dict[int, Scan],
    images: Tensor,
    seconds: float,
) -> list[Row]:
    """Score each image; return the rows."""
    targets = [measured[number].target for number in numbers]
    reference = torch.cat([target for target in targets if target is not None])
    values = image_metrics(images, reference)
    return [
        {
            "acceleration": f"{acceleration:g}",
            "scan": str(number),
            "kind": scans[number][0],
            "method": method,
            **{name: repr(float(values[name][place])) for name in METRICS},
            "seconds": f"{seconds:.4f}",
        }
        for place, number in enumerate(numbers)
    ]


def draw(
    scans: list[tuple[str, Scan]],
    acceleration: float,
    methods: list[str],
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
) -> None:
    """Draw the first label-volume scan, or the first brain without label volumes."""
    kinds = [kind for kind, _ in scans]
    number = kinds.index("label volume" if "label volume" in kinds else "brain")
    scan = scans[number][1]
    measured = {
        number: undersample(scan, acceleration, scan_seed(args.seed, number), args.true_maps)
    }
    every = methods_of(scans, measured, pipe, args)
    target, metadata = measured[number].target, scan.metadata[0]
    assert target is not None
    path = args.output_dir / f"phantom_x{acceleration:g}.png"
    comparison_figure(
        path,
        {name: every[name]([number])[0] for name in methods},
        target[0],
        title=f"Held-out phantom, ×{acceleration:g}: {metadata.anatomy}, {metadata.contrast}",
    )
    shrink(path)


if __name__ == "__main__":
    main()
