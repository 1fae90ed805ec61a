"""Gain from adapting the prior to another scanner, against the number of scans.

    python -m benchmarks.adapt
    python -m benchmarks.adapt --images data/held_out --scans 1 5   # images of real people

The scanner is simulated (``benchmarks.adapt.scanner``). The prior is adapted to one, five or twenty
of its slices, each of a different person, fully sampled or undersampled. It then reconstructs
slices of other people on that scanner, and phantom slices like those of its original training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.adapt.scanner import SHAPE, PeopleImages, foreign_scan
from benchmarks.common.arguments import open_named_prior, parse, prior_parser, recorded_options
from benchmarks.common.held_out import held_out_scan, scan_seed
from benchmarks.common.paired import paired, with_interval
from benchmarks.common.record import Record, write_study
from benchmarks.common.words import change, listed
from ctxrecon.coils import estimate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.evaluation import table
from ctxrecon.masks import uniform1d
from ctxrecon.measurement import Measurement
from ctxrecon.metrics import image_metrics
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.scan import Scan
from ctxrecon.training.adapt import adapt_prior

_FIRST_TEST = 1000
"""Number of the first phantom person in the test set."""
_KINDS = ("full", "undersampled")

Values = dict[str, list[float]]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = prior_parser("adapt", __doc__)
    parser.add_argument("--images", type=Path, help="Prepared images of people (default: phantom).")
    parser.add_argument(
        "--scans", type=int, nargs="+", default=[1, 5, 20], help="Numbers of scans to adapt to."
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=_KINDS, default=list(_KINDS), help="Sampling of those scans."
    )
    parser.add_argument("--steps", type=int, default=100, help="Training steps.")
    parser.add_argument("--tests", type=int, default=10, help="Test slices.")
    parser.add_argument(
        "--undersampling", type=float, default=4.0, help="Acceleration of undersampled scans."
    )
    parser.add_argument(
        "--accelerations", type=float, nargs="+", default=[4.0, 8.0], help="Accelerations tested."
    )
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    pipe, prior = open_named_prior(args)
    images = None if args.images is None else PeopleImages(args.images)
    if images is not None and max(args.scans) + args.tests > len(images):
        raise InputError(
            f"expected at least {max(args.scans) + args.tests} people in {args.images}, got "
            f"{len(images)}: give fewer --scans or --tests"
        )
    first = _FIRST_TEST if images is None else len(images) - args.tests
    tests = [foreign_scan(first + n, args.seed, images) for n in range(args.tests)]
    usual = [
        held_out_scan("brain", scan_seed(args.seed, _FIRST_TEST + n), max(SHAPE))
        for n in range(args.tests)
    ]
    before = psnr(pipe, tests, args), psnr(pipe, usual, args)
    cells = [(kind, count) for kind in args.kinds for count in args.scans]
    results: dict[str, Any] = {
        "settings": {"prior": prior, "shape": list(SHAPE)},
        "before": {"scanner": before[0], "phantom": before[1]},
        "cells": {},
    }
    for kind, count in tqdm(cells, unit="cell"):
        scans = [foreign_scan(number, args.seed, images) for number in range(count)]
        factor = args.undersampling if kind == "undersampled" else None
        adaptation = adapt_prior(
            pipe,
            [measured(scan, factor, number) for number, scan in enumerate(scans)],
            [scan.metadata[0].to_prompt() for scan in scans],
            steps=args.steps,
            seed=args.seed,
        )
        after = before
        if adaptation.adapted:
            after = psnr(adaptation.pipe, tests, args), psnr(adaptation.pipe, usual, args)
        results["cells"][f"{kind} {count}"] = {
            "share": adaptation.share,
            "held_out": adaptation.held_out,
            "held_out_gain": adaptation.scores.gain,
            "scanner": after[0],
            "phantom": after[1],
        }
        # Keep finished cells if a later one fails.
        name = "adapt" if images is None else "adapt_people"
        write_study(args.output_dir / f"{name}.json", results, args, page)


def measured(scan: Scan, acceleration: float | None, seed: int) -> Measurement:
    """Undersample a scan by a random mask and estimate coil maps from the sampled data."""
    ny, nx = scan.image_shape
    mask = torch.ones(1, 1, ny, nx, dtype=torch.bool)
    if acceleration is not None:
        generator = torch.Generator().manual_seed(seed)
        mask = uniform1d((ny, nx), acceleration, generator=generator)
    kspace = scan.kspace * mask
    return Measurement.from_arrays(kspace, mask, estimate_coil_maps(kspace, mask, num_maps=1))


def psnr(pipe: ContextMRIPipeline, scans: list[Scan], args: argparse.Namespace) -> Values:
    """Return the PSNR of each scan against its noiseless image, by acceleration."""
    found: Values = {}
    for acceleration in args.accelerations:
        values = found.setdefault(f"x{acceleration:g}", [])
        for number, scan in enumerate(scans):
            measurement = measured(scan, acceleration, scan_seed(args.seed, number))
            output = pipe(measurement, prompt=scan.metadata[0].to_prompt())
            assert scan.target is not None
            values.append(_psnr(output.images.cpu(), scan.target))
    return found


def _psnr(images: Tensor, target: Tensor) -> float:
    return float(image_metrics(images, target)["psnr"][0])


def page(record: Record) -> str:
    """Return the page: one row for each number of scans and kind of sampling."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    before = results["before"]
    names = list(before["scanner"])
    mean = {
        where: {name: sum(before[where][name]) / len(before[where][name]) for name in names}
        for where in before
    }
    header = ["scans", "share of the update", "held-out gain (dB)"]
    header += [f"scanner ×{name[1:]}" for name in names]
    header += [f"phantom ×{name[1:]}" for name in names]
    rows = [["before", "", "", *(f"{mean[w][name]:.2f} dB" for w in before for name in names)]]
    for name, cell in results["cells"].items():
        gains = [
            with_interval(paired(cell[where][key], before[where][key]), 2)
            for where in before
            for key in names
        ]
        kind, count = name.split()
        rows.append(
            [f"{count}, {kind}", f"{cell['share']:g}", f"{cell['held_out_gain']:+.2f}", *gains]
        )
    real = args.images is not None
    people = "real people" if real else "the phantom"
    return f"""\
# Adapting the prior to a scanner{" with images of real people" * real}

{_verdict(results, names)}

The simulated scanner differs from the training data: its images of {people} have another contrast,
a streaky texture, other shading, a matrix of {SHAPE[0]}×{SHAPE[1]}, 3 % noise and six coils. The
prior was adapted to one slice of each person for {args.steps} training steps of four slices, with
coil maps estimated from the measured data; undersampled scans have ×{args.undersampling:g}.

The row “before” shows the mean PSNR of the unadapted prior against the noiseless image. The other
rows show the mean paired change in dB with its 95 % interval over slices: “scanner” on
{args.tests} slices of other people on that scanner, “phantom” on {args.tests} phantom brains like
those of the original training. “Share of the update” is the fraction of the weight change that was
kept, chosen by how well held-back samples are predicted (0 keeps the original prior); “held-out
gain” is the improvement of that prediction in dB, for a share of 0 that of the best rejected one.

{table(header, rows)}
"""


def _verdict(results: dict[str, Any], names: list[str]) -> str:
    """Return the gain from the most scans of each kind on that scanner, in words."""
    before = results["before"]["scanner"]
    largest: dict[str, int] = {}
    for name in results["cells"]:
        kind, count = name.split()
        largest[kind] = max(largest.get(kind, 0), int(count))
    kinds = {"full": "fully sampled"}
    sentences = []
    for kind, count in largest.items():
        cell = results["cells"][f"{kind} {count}"]
        scans = f"{count} {kinds.get(kind, kind)} scan{'s' * (count > 1)}"
        if cell["share"] == 0:
            sentences.append(f"After adapting to {scans}, the original prior is kept.")
            continue
        of_scanner = cell["scanner"]
        gains = [f"{change(paired(of_scanner[key], before[key]))} at ×{key[1:]}" for key in names]
        sentences.append(f"Adapting to {scans} {listed(gains)}.")
    return "\n".join(sentences)


if __name__ == "__main__":
    main()
