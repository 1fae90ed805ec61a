"""Gain of the noise level that is estimated by default over the solver's own level.

    python -m benchmarks.solvers.noise_default --output_dir benchmarks/results [--data DIR]

Held-out phantom scans with one and with several coils at several noise levels (relative to the
image maximum) and, with ``--data``, the two real scans of ``benchmarks.real_scans``. Plug-and-play
ADMM runs at its own default noise level and at the level that the pipeline estimates by default.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common import words
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
    add, levels = parser.add_argument, [0, 0.001, 0.01, 0.05, 0.1]
    add("--data", type=Path, help="Folder of the two real scans.")
    add("--levels", type=float, nargs="+", default=levels, help="Noise levels of the phantom.")
    add("--coils", type=int, nargs="+", default=[1, 8], help="Numbers of coils of the phantom.")
    add("--accelerations", type=float, nargs="+", default=[4.0, 8.0], help="Acceleration factors.")
    add("--scans", type=int, default=2, help="Phantom scans, knees and brains in turn.")
    add("--masks", type=int, default=3, help="Masks of the real T2 scan.")
    add("--resolution", type=int, default=128, help="Matrix size of the phantom.")
    add("--steps", type=int, default=30, help="Solver steps.")
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
    """Return the page: a verdict, the setting and tables."""
    results = record["results"]
    text = ["# Default noise level\n", _verdict(results["phantom"])]
    text.append(_explanation(parse_args(recorded_options(record["command"]))))
    text += ["## Phantom\n", phantom_table(results["phantom"])]
    if "real" in results:
        text += ["## Real scans\n", real_table(results["real"])]
    return "\n".join(text)


def _verdict(rows: list[dict[str, Any]]) -> str:
    """Return the range of mean gains on the phantom and the largest loss of a scan, in words."""
    cells: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        key = (row["coils"], row["acceleration"], row["level"])
        cells.setdefault(key, []).append(row["psnr"][ESTIMATED] - row["psnr"][OWN])
    gains = [statistics.mean(values) for values in cells.values()]
    worst = min(min(values) for values in cells.values())
    return (
        "On the phantom, the estimated noise level changes the mean PSNR by "
        f"{words.span(gains)} dB\ncompared with the solver's default; the worst single scan "
        f"changes by {words.number(worst, 2)} dB.\n"
    )


def reconstructions(
    pipe: ContextMRIPipeline,
    kspace: Tensor,
    mask: Tensor,
    prompt: str,
    steps: int,
) -> dict[str, Tensor]:
    """Reconstruct at each noise level, ``(batch, ny, nx)``, with maps from the measurement."""
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
    """Return the PSNR of each scan, number of coils, acceleration and noise level."""
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
    """Return the rows of one scan with a number of coils."""
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
    """Return the table of mean PSNR by number of coils, acceleration and noise level."""
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
    header = ["coils", "acceleration", "noise", f"{OWN} (dB)", f"{ESTIMATED} (dB)"]
    header += ["gain (dB)", "least gain (dB)"]
    return table(header, lines)


def real_rows(pipe: ContextMRIPipeline, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return PSNR on the T2 brain (all coils, first coil) and prediction error on the T1 brain."""
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
    """Return the table of means over the masks."""
    lines = []
    for name in dict.fromkeys(row["scan"] for row in rows):
        chosen = [row for row in rows if row["scan"] == name]
        key, digits = ("psnr", 2) if "psnr" in chosen[0] else ("nrmse", 4)
        own, new = (statistics.mean(row[key][n] for row in chosen) for n in (OWN, ESTIMATED))
        label = {"psnr": "PSNR (dB)", "nrmse": "NRMSE"}[key]
        lines.append(
            [name, label, *(f"{v:.{digits}f}" for v in (own, new)), f"{new - own:+.{digits}f}"]
        )
    return table(["scan", "metric", OWN, ESTIMATED, "change"], lines)


def _explanation(args: argparse.Namespace) -> str:
    """Return the description of setting and columns."""
    return f"""\
Plug-and-play ADMM, {args.steps} steps, the prior that was shipped at the date of the record, coil
maps from the undersampled scan, uniform1d masks. Phantom: {args.scans} held-out scans at
{args.resolution}², noise relative to the image maximum, PSNR on magnitudes; “least gain” is that of
the worst scan. Real T2 brain: mean over {args.masks} masks with all coils, and one mask with the
first coil alone. Real T1 brain: NRMSE of hidden samples, lower is better.
"""


if __name__ == "__main__":
    main()
