"""Gain from a phase constraint in partial Fourier acquisitions.

    python -m benchmarks.partial_fourier --output_dir benchmarks/results

Held-out phantom scans with 8 coils. The first three eighths of the lines are missing; of the rest,
all lines or every second one are measured, along with 24 central lines, which also calibrate the
coil maps. The image phase is that of the phantom, a smooth one, or a smooth one with a local defect
such as a hemorrhage causes. ``phase_constrained`` with its default weight is compared with CG-SENSE
and zero-filling. The weight was chosen from 0.1, 0.3 and 1, which differ by at most 0.6 dB, on
three other phantoms.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.held_out import held_out_anatomy, scan_seed
from benchmarks.common.paired import above, paired, with_interval
from benchmarks.common.record import Record, write_study
from benchmarks.common.words import span
from ctxrecon.baselines import cg_sense, phase_constrained, zero_filled
from ctxrecon.coils import estimate_coil_maps
from ctxrecon.evaluation import table
from ctxrecon.fourier import fft2c
from ctxrecon.metrics import psnr
from ctxrecon.operators import sense_operator
from ctxrecon.phantom import phantom_scan

METHODS = {
    "zero-filled": zero_filled,
    "CG-SENSE": cg_sense,
    "phase from the center": phase_constrained,
}
PHASES = ("own", "smooth", "local defect")
FACTORS = (1, 2)
_CENTER = 24


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("partial_fourier", __doc__)
    parser.add_argument("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    parser.add_argument("--scans", type=int, default=12, help="Scans, knees and brains in turn.")
    parser.add_argument("--resolution", type=int, default=128, help="Matrix size.")
    parser.add_argument("--coils", type=int, default=8, help="Number of coils.")
    parser.add_argument("--snr", type=float, default=30.0, help="Signal-to-noise ratio.")
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cells: dict[str, dict[str, list[float]]] = {}
    for number in tqdm(range(args.scans), unit="scan"):
        rate(number, args, cells)
    results = {"scans": args.scans, "cells": cells}
    write_study(args.output_dir / "partial_fourier.json", results, args, page)


def rate(number: int, args: argparse.Namespace, cells: dict[str, dict[str, list[float]]]) -> None:
    """Append the PSNR in dB of every method on one scan to its cell."""
    seed, size = scan_seed(args.seed, number), args.resolution
    generator = torch.Generator().manual_seed(seed)
    anatomy = held_out_anatomy(("knee", "brain")[number % 2], seed, size, generator)
    scan = phantom_scan(
        anatomy, shape=(size, size), num_coils=args.coils, snr=None, generator=generator
    )
    assert scan.target is not None
    assert scan.coil_maps is not None
    noise = torch.randn(scan.kspace.shape, dtype=torch.complex64, generator=generator) / args.snr
    for phase in PHASES:
        image = with_phase(scan.target, phase)
        kspace = fft2c(scan.coil_maps * image[:, None]) + noise
        for factor in FACTORS:
            mask = partial_mask(size, factor)
            y = kspace * mask
            operator = sense_operator(mask, estimate_coil_maps(y, mask, num_maps=1))
            cell = cells.setdefault(f"{phase}, {factor}", {})
            for name, method in METHODS.items():
                found = method(operator, y)
                cell.setdefault(name, []).append(float(psnr(found.abs(), image.abs())))


def partial_mask(size: int, factor: int) -> Tensor:
    """Return a mask of every ``factor``-th of 5/8 of the lines and the center.

    Returns:
        Mask of shape ``(1, 1, size, size)``, bool.
    """
    lines = torch.zeros(size, dtype=torch.bool)
    lines[::factor] = True
    lines[(size - _CENTER) // 2 : (size + _CENTER) // 2] = True
    lines[: 3 * size // 8] = False
    return lines.expand(1, 1, size, size)


def with_phase(image: Tensor, phase: str) -> Tensor:
    """Replace the phase of an image ``(1, n, n)``; ``"own"`` returns it unchanged."""
    if phase == "own":
        return image
    grid = torch.linspace(-1, 1, image.shape[-1])
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    angle = 1.5 * y + 2 * x**2 - 1.2 * x * y
    if phase == "local defect":
        angle = angle + 3 * torch.exp(-((y - 0.2) ** 2 + (x + 0.1) ** 2) / (2 * 0.06**2))
    return torch.polar(image.abs(), angle.expand_as(image.abs()))


def page(record: Record) -> str:
    """Return the page: a verdict, the setting and one row for each case."""
    results: dict[str, Any] = record["results"]
    lines, gains = [], []
    for title, cell in results["cells"].items():
        phase, factor = title.split(", ")
        gain = paired(cell["phase from the center"], cell["CG-SENSE"])
        means = [sum(values) / len(values) for values in cell.values()]
        lines.append([phase, factor, *(f"{mean:.2f}" for mean in means), with_interval(gain, 2)])
        gains.append(gain)
    head = ["image phase", "undersampling", *METHODS, "gain over CG-SENSE"]
    return f"""# Partial Fourier

A phase constraint from the center of k-space changes the mean PSNR of CG-SENSE by
{span([float(gain["mean"] or 0) for gain in gains])} dB; the 95 % interval of the gain lies above 0
in {sum(map(above, gains))} of {len(gains)} cases.

{results["scans"]} held-out phantom scans of which 5/8 of the lines are measured, all of them or
every second one (“undersampling” 1 or 2), with coil maps from the undersampled data. The table
shows the mean PSNR of magnitudes in dB and the paired gain with its 95 % interval over scans. The
local defect is a spot whose phase differs by up to 3 rad.

{table(head, lines)}
"""


if __name__ == "__main__":
    main()
