"""Held-out phantom scans: baselines, the shipped network, and the prior at several γ.

    python -m benchmarks.phantom --output_dir benchmarks/results \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

The scans are procedural knees and brains of seeds that no training set uses and, where label
volumes are given (of people that the prior was not trained on), slices of those; each with its own
protocol, 8 simulated coils, complex noise of 1 % of the bright signal, its own mask, and coil maps
estimated from the undersampled scan itself unless ``--true_maps`` is given.

Rows are appended to ``phantom_table.csv`` as they are done, and a run that was stopped goes on
where it stopped.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.arguments import held_out_parser, open_named_prior
from benchmarks.common.held_out import (
    NUM_COILS,
    SNR,
    center_fraction,
    held_out_scans,
    scan_seed,
    shuffled,
    undersample,
)
from benchmarks.common.methods import BASELINE_NAMES, shipped_network
from benchmarks.common.record import write_record
from ctxrecon.baselines import BASELINES
from ctxrecon.evaluation import Row, append_rows, open_rows, summary, table, with_error
from ctxrecon.figures import comparison_figure
from ctxrecon.metrics import image_metrics
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.scan import Scan
from ctxrecon.solvers import Solver, parse_solver

_METRICS = {"psnr": 2, "ssim": 4, "nmse": 4}
_COLUMNS = ("acceleration", "scan", "kind", "method", *_METRICS, "seconds")

# Reconstructs the scans of these numbers, ``(len, ny, nx)``.
Method = Callable[[list[int]], Tensor]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = held_out_parser(__doc__)
    parser.add_argument("--scans", type=int, default=48)
    parser.add_argument("--guidance_scales", type=float, nargs="+", default=[0.0, 1.0, 2.0, 3.0])
    parser.add_argument("--timesteps", choices=("quadratic", "scheduler"), default="quadratic")
    parser.add_argument("--steps", type=int, default=10, help="diffusion steps")
    parser.add_argument("--samples", type=int, default=1, help="posterior samples to average")
    parser.add_argument(
        "--solvers", nargs="+", default=["pnp_admm", "dds"], help="such as dds:data_weight=50"
    )
    parser.add_argument("--true_maps", action="store_true", help="use the simulated coil maps")
    args = parser.parse_args(argv)
    if args.batch_size < 1 or args.scans < 2:
        parser.error("expected --batch_size of 1 or more and --scans of 2 or more")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    pipe, prior = open_named_prior(args)
    settings = {
        "prior": prior,
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
    report(rows, scans, pipe, args, settings)


def methods_of(
    scans: list[tuple[str, Scan]],
    measured: dict[int, Scan],
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
) -> dict[str, Method]:
    """Every method by its name in the table; ``measured`` holds the scans that are asked for."""
    prompts = [scan.metadata[0].to_prompt() for _, scan in scans]
    partner = shuffled(len(scans), args.seed)

    def gather(numbers: list[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        batch = [measured[number] for number in numbers]
        maps = [scan.coil_maps for scan in batch if scan.coil_maps is not None]
        stacked = torch.cat(maps) if maps else None
        masks = torch.cat([scan.mask for scan in batch])
        return torch.cat([scan.kspace for scan in batch]), masks, stacked

    def baseline(key: str) -> Method:
        return lambda numbers: BASELINES[key](*gather(numbers))

    def prior(solver: Solver, gamma: float, wording: list[str]) -> Method:
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
        return network(kspace, mask, coil_maps=maps).images

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


def method_name(solver: Solver, gamma: float) -> str:
    """The method's name in the table."""
    return f"{type(solver).__name__} γ = {gamma:g}"


def shuffled_name(solver: Solver) -> str:
    """The name of the solver with the prompts of other scans."""
    return f"{method_name(solver, 1.0)}, prompts shuffled"


def names_of(args: argparse.Namespace) -> list[str]:
    """Every method in the order of the table."""
    names = [*BASELINE_NAMES.values(), shipped_network()[0]]
    for solver in map(parse_solver, args.solvers):
        names += [method_name(solver, gamma) for gamma in args.guidance_scales]
        names.append(shuffled_name(solver))
    return names


def run_missing(
    path: Path,
    rows: list[Row],
    scans: list[tuple[str, Scan]],
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
) -> None:
    """Reconstruct what the CSV file does not hold yet, and add it to file and ``rows``."""
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
    """The row of each image."""
    targets = [measured[number].target for number in numbers]
    reference = torch.cat([target for target in targets if target is not None])
    values = image_metrics(images, reference)
    return [
        {
            "acceleration": f"{acceleration:g}",
            "scan": str(number),
            "kind": scans[number][0],
            "method": method,
            **{name: repr(float(values[name][place])) for name in _METRICS},
            "seconds": f"{seconds:.4f}",
        }
        for place, number in enumerate(numbers)
    ]


def report(
    rows: list[Row],
    scans: list[tuple[str, Scan]],
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
    settings: dict[str, object],
) -> None:
    """Write the tables, the record and one figure for each acceleration."""
    methods = names_of(args)
    results: dict[str, object] = {"settings": settings}
    text = ["# Held-out phantom scans\n", _explanation(args, [kind for kind, _ in scans])]
    for acceleration in args.accelerations:
        label = f"{acceleration:g}"
        chosen = [row for row in rows if row["acceleration"] == label]
        values = {name: columns(chosen, name) for name in methods}
        means = {
            name: {key: summary(list(column)) for key, column in columns.items()}
            for name, columns in values.items()
        }
        pairs = differences(values, args)
        kinds = sorted({row["kind"] for row in chosen})
        by_kind = {
            name: {
                kind: summary(list(columns([r for r in chosen if r["kind"] == kind], name)["psnr"]))
                for kind in kinds
            }
            for name in methods
        }
        results[f"x{label}"] = {"methods": means, "differences": pairs, "psnr_by_kind": by_kind}
        text += [
            f"## uniform1d ×{label}, {center_fraction(acceleration):.0%} centre, "
            f"n = {len(scans)}\n",
            table(
                ["", "PSNR (dB)", "SSIM", "NMSE", "seconds", *(f"PSNR, {kind}" for kind in kinds)],
                [
                    [
                        name,
                        *(with_error(means[name][key], digits) for key, digits in _METRICS.items()),
                        f"{means[name]['seconds']['mean']:.2f}",
                        *(with_error(entry, 2) for entry in by_kind[name].values()),
                    ]
                    for name in methods
                ],
            ),
            "Paired differences, mean ± standard error:\n",
            table(
                ["", "PSNR (dB)", "SSIM", "NMSE"],
                [
                    [
                        name,
                        *(
                            with_error(entry[key], max(digits, 3), sign=True)
                            for key, digits in _METRICS.items()
                        ),
                    ]
                    for name, entry in pairs.items()
                ],
            ),
        ]
        draw(scans, acceleration, methods, pipe, args)
    write_record(args.output_dir / "phantom_table.json", results, seed=args.seed)
    (args.output_dir / "phantom_table.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text[2:]))


def columns(rows: list[Row], method: str) -> dict[str, np.ndarray]:
    """The numbers of one method in the order of the scans, ``(scans,)`` each."""
    mine = sorted((row for row in rows if row["method"] == method), key=lambda r: int(r["scan"]))
    return {key: np.array([float(row[key]) for row in mine]) for key in (*_METRICS, "seconds")}


def differences(
    values: dict[str, dict[str, np.ndarray]], args: argparse.Namespace
) -> dict[str, dict[str, dict[str, float | int | None]]]:
    """Scan by scan: every γ > 0 less γ = 0; γ = 1 less a wrong prompt, L1-wavelet and network."""
    pairs = []
    for solver in map(parse_solver, args.solvers):
        none, own, other = method_name(solver, 0), method_name(solver, 1), shuffled_name(solver)
        positive = [method_name(solver, gamma) for gamma in args.guidance_scales if gamma > 0]
        pairs += [(name, none) for name in positive] + [(other, none), (own, other)]
        pairs += [(name, BASELINE_NAMES["l1_wavelet"]) for name in positive]
        pairs.append((own, shipped_network()[0]))
    return {
        f"{one} less {other}": {
            key: summary(list(values[one][key] - values[other][key])) for key in _METRICS
        }
        for one, other in pairs
        if one in values and other in values
    }


def draw(
    scans: list[tuple[str, Scan]],
    acceleration: float,
    methods: list[str],
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
) -> None:
    """A figure of the first scan of the kind that is hardest to draw."""
    kinds = [kind for kind, _ in scans]
    number = kinds.index("label volume" if "label volume" in kinds else "brain")
    scan = scans[number][1]
    measured = {
        number: undersample(scan, acceleration, scan_seed(args.seed, number), args.true_maps)
    }
    every = methods_of(scans, measured, pipe, args)
    target, metadata = measured[number].target, scan.metadata[0]
    assert target is not None
    comparison_figure(
        args.output_dir / f"phantom_x{acceleration:g}.png",
        {name: every[name]([number])[0] for name in methods},
        target[0],
        title=f"Held-out phantom, ×{acceleration:g}: {metadata.anatomy}, {metadata.contrast}",
    )


def _explanation(args: argparse.Namespace, kinds: list[str]) -> str:
    """What the tables show."""
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    maps = "the simulated ones" if args.true_maps else "from each undersampled scan itself"
    samples = "one posterior sample" if args.samples == 1 else f"mean of {args.samples} samples"
    prior = "the shipped prior" if args.prior is None else f"the prior `{Path(args.prior).name}`"
    solvers = ", ".join(repr(parse_solver(text)) for text in args.solvers)
    return f"""\
{len(kinds)} scans that no training set holds ({counts}), {args.resolution}², {NUM_COILS} simulated
coils, complex noise of {1 / SNR:.0%} of the bright signal, a mask for each scan, coil maps {maps}.
Slice-wise metrics on magnitudes, mean ± standard error. {solvers}:
{prior}, {samples}, {args.steps} steps ({args.timesteps}); the same starting noise for every γ.
Baselines at their defaults. Seconds are of one scan in a batch of {args.batch_size}.
"""


if __name__ == "__main__":
    main()
