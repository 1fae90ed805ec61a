"""What the noise level that is estimated by default gains over the solver's own.

    python -m benchmarks.solvers.noise_default --output_dir benchmarks/results [--data DIR]

Held-out phantom scans of one and of several coils with noise of several levels, relative to the
image maximum, and the two real scans of ``benchmarks.real_scans`` where ``--data`` says where
they are. Plug-and-play ADMM twice: at its own default level, and at the level that the pipeline
takes where nothing is said.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.arguments import open_named_prior, parse, prior_parser, recorded_options
from benchmarks.common.held_out import center_fraction, held_out_anatomy, scan_seed
from benchmarks.common.images import data_error
from benchmarks.common.record import Record, write_study
from benchmarks.real_scans import T1_FILE, T2_FILE, hold_out, load
from ctxrecon.coils import estimate_coil_maps, mvue
from ctxrecon.evaluation import table
from ctxrecon.fourier import fft2c
from ctxrecon.masks import uniform1d
from ctxrecon.metrics import psnr
from ctxrecon.output import ReconstructionOutput
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.solvers import PnPADMM

OWN, ESTIMATED = "solver's default", "estimated"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = prior_parser("solvers.noise_default", __doc__)
    parser.add_argument("--data", type=Path, help="folder of the two real scans")
    parser.add_argument("--levels", type=float, nargs="+", default=[0, 0.001, 0.01, 0.05, 0.1])
    parser.add_argument("--coils", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--accelerations", type=float, nargs="+", default=[4.0, 8.0])
    parser.add_argument("--scans", type=int, default=2, help="knees and brains by turns")
    parser.add_argument("--masks", type=int, default=3, help="of the real T2 scan")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--steps", type=int, default=10)
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    pipe, prior = open_named_prior(args)
    results: dict[str, Any] = {
        "settings": {
            "prior": prior,
            **{name: getattr(args, name) for name in ("scans", "masks", "resolution", "steps")},
        },
        "phantom": phantom_rows(pipe, args),
    }
    if args.data is not None:
        results["real"] = real_rows(pipe, args)
    write_study(args.output_dir / "noise_default.json", results, args, page)


def page(record: Record) -> str:
    """Explanation and tables."""
    results = record["results"]
    text = ["# The default noise level\n"]
    text.append(_explanation(parse_args(recorded_options(record["command"]))))
    text += ["## Phantom\n", phantom_table(results["phantom"])]
    if "real" in results:
        text += ["\n## Real scans\n", real_table(results["real"])]
    return "\n".join(text)


def reconstructions(
    pipe: ContextMRIPipeline,
    kspace: Tensor,
    mask: Tensor,
    prompt: str,
    steps: int,
) -> dict[str, Tensor]:
    """The image at each noise level, ``(batch, ny, nx)``; coil maps from the measurement."""
    maps = None if kspace.shape[1] == 1 else estimate_coil_maps(kspace, mask)
    calls: dict[str, dict[str, Any]] = {
        OWN: {"solver": PnPADMM(noise_std=PnPADMM.default_noise_std)},
        ESTIMATED: {},
    }
    found = {}
    for name, call in calls.items():
        output: ReconstructionOutput[Tensor] = pipe(
            kspace, mask, prompt, coil_maps=maps, num_inference_steps=steps, **call
        )
        found[name] = output.images
    return found


def phantom_rows(pipe: ContextMRIPipeline, args: argparse.Namespace) -> list[dict[str, Any]]:
    """PSNR of each scan, coils, acceleration and noise level."""
    rows = []
    total = args.scans * len(args.coils) * len(args.accelerations) * len(args.levels)
    with tqdm(total=total, unit="scan") as bar:
        for number in range(args.scans):
            for coils in args.coils:
                rows += phantom_rows_of(pipe, args, number, coils, bar)
    return rows


def phantom_rows_of(
    pipe: ContextMRIPipeline, args: argparse.Namespace, number: int, coils: int, bar: tqdm
) -> list[dict[str, Any]]:
    """The rows of one scan of so many coils."""
    kind = ("knee", "brain")[number % 2]
    seed = scan_seed(args.seed, number)
    generator = torch.Generator().manual_seed(seed)
    anatomy = held_out_anatomy(kind, seed, args.resolution, generator)
    size = (args.resolution, args.resolution)
    scan = phantom_scan(anatomy, shape=size, num_coils=coils, snr=None, generator=generator)
    assert scan.target is not None
    noise = torch.randn(scan.kspace.shape, dtype=torch.complex64, generator=generator)
    brightest = float(scan.target.abs().max())
    rows = []
    for acceleration in args.accelerations:
        mask = uniform1d(
            size,
            acceleration,
            center_fraction(acceleration),
            generator=torch.Generator().manual_seed(seed),
        )
        for level in args.levels:
            y = (scan.kspace + level * brightest * noise) * mask
            prompt = scan.metadata[0].to_prompt()
            found = reconstructions(pipe, y, mask, prompt, args.steps)
            rows.append(
                {
                    "scan": number,
                    "kind": kind,
                    "coils": coils,
                    "acceleration": acceleration,
                    "level": level,
                    "psnr": {
                        name: float(psnr(images.abs(), scan.target.abs()))
                        for name, images in found.items()
                    },
                }
            )
            bar.update()
    return rows


def phantom_table(rows: list[dict[str, Any]]) -> str:
    """Mean PSNR over the scans for each number of coils, acceleration and level."""
    keys = list(dict.fromkeys((r["coils"], r["acceleration"], r["level"]) for r in rows))
    lines = []
    for coils, acceleration, level in keys:
        chosen = [
            row["psnr"]
            for row in rows
            if (row["coils"], row["acceleration"], row["level"]) == (coils, acceleration, level)
        ]
        own, estimated = (statistics.mean(p[name] for p in chosen) for name in (OWN, ESTIMATED))
        worst = min(p[ESTIMATED] - p[OWN] for p in chosen)
        lines.append(
            [
                str(coils),
                f"×{acceleration:g}",
                f"{level:.1%}",
                f"{own:.2f}",
                f"{estimated:.2f}",
                f"{estimated - own:+.2f}",
                f"{worst:+.2f}",
            ]
        )
    header = ["coils", "", "noise", OWN, ESTIMATED, "gain", "least gain"]
    return table(header, lines)


def real_rows(pipe: ContextMRIPipeline, args: argparse.Namespace) -> list[dict[str, Any]]:
    """PSNR on the T2 brain, all coils and the first alone; prediction error on the T1 brain."""
    rows = []
    kspace = fft2c(load(args.data / T2_FILE))
    full = torch.ones((1, 1, *kspace.shape[-2:]), dtype=torch.bool)
    references = {
        kspace.shape[1]: (kspace, mvue(kspace, estimate_coil_maps(kspace, full, num_maps=1))),
        1: (kspace[:, :1], mvue(kspace[:, :1], torch.ones_like(kspace[:, :1]))),
    }
    for coils, (measured, reference) in references.items():
        for acceleration in args.accelerations:
            for number in range(args.masks if coils > 1 else 1):
                mask = uniform1d(
                    (kspace.shape[-2], kspace.shape[-1]),
                    acceleration,
                    center_fraction(acceleration),
                    generator=torch.Generator().manual_seed(args.seed + number),
                )
                found = reconstructions(pipe, measured * mask, mask, "Brain, T2", args.steps)
                scores = {n: float(psnr(x.abs(), reference.abs())) for n, x in found.items()}
                name = f"T2, {coils} coil{'s' * (coils > 1)}, ×{acceleration:g}"
                rows.append({"scan": name, "mask": number, "psnr": scores})
    kspace = load(args.data / T1_FILE)
    mask = (kspace != 0).any(dim=1, keepdim=True)
    hidden = hold_out(mask, torch.Generator().manual_seed(args.seed))
    kept = mask & ~hidden
    found = reconstructions(pipe, kspace * kept, kept, "Brain, T1", args.steps)
    maps = estimate_coil_maps(kspace * kept, kept, num_maps=1)
    errors = {name: data_error(x, maps, kspace, hidden) for name, x in found.items()}
    return [*rows, {"scan": "T1, 8 coils, hidden samples", "mask": 0, "nrmse": errors}]


def real_table(rows: list[dict[str, Any]]) -> str:
    """Means over the masks."""
    lines = []
    for name in dict.fromkeys(row["scan"] for row in rows):
        chosen = [row for row in rows if row["scan"] == name]
        key, digits = ("psnr", 2) if "psnr" in chosen[0] else ("nrmse", 4)
        own, new = (statistics.mean(row[key][n] for row in chosen) for n in (OWN, ESTIMATED))
        label = {"psnr": "PSNR in dB", "nrmse": "NRMSE"}[key]
        lines.append(
            [name, label, *(f"{v:.{digits}f}" for v in (own, new)), f"{new - own:+.{digits}f}"]
        )
    return table(["", "", OWN, ESTIMATED, "change"], lines)


def _explanation(args: argparse.Namespace) -> str:
    """What the tables show."""
    return f"""\
Plug-and-play ADMM, {args.steps} steps, the shipped prior unless the record names another, coil maps
from the undersampled scan, uniform1d masks. Phantom: {args.scans} held-out scans at
{args.resolution}², noise relative to the image maximum, PSNR in dB on magnitudes; "least gain" is
that of the worst scan. The real T2 brain: {args.masks} masks of all coils, one mask of the first
coil alone.
"""


if __name__ == "__main__":
    main()
