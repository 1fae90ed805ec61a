"""Calibration of posterior samples: coverage, correlation with the error, and gain of the mean.

    python -m benchmarks.solvers.calibration --output_dir benchmarks/results \
        --label_volumes DIR/training_seg_1[3-6].nii.gz \
        --fit_label_volumes DIR/training_seg_12.nii.gz

The error of a pixel's magnitude is compared with the standard deviation ``s`` of its K samples; the
interval around the mean is that of ``ReconstructionOutput.interval``. Its factor f is fitted on
scans of other seeds and volumes such that 80 % intervals cover 80 %; f = 1 keeps the samples
unchanged. Only pixels inside the object count.

Solvers that accept a noise level get the scan's from the pipeline, including ``posterior_dds``,
which samples the posterior with enough ``--steps``. The gain of the mean of the samples over a
single one indicates whether their spread is that of a posterior: see :func:`gain_of_posterior`.
"""

from __future__ import annotations

import argparse
import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.arguments import (
    held_out_parser,
    open_named_prior,
    parse,
    recorded_options,
)
from benchmarks.common.figures import save_figure
from benchmarks.common.held_out import NUM_COILS, SNR, held_out_scans, scan_seed, undersample
from benchmarks.common.record import Record, write_study
from benchmarks.common.words import listed
from ctxrecon.evaluation import (
    Row,
    append_rows,
    open_rows,
    solver_and_call,
    summary,
    table,
    with_error,
)
from ctxrecon.metrics import psnr
from ctxrecon.output import ReconstructionOutput, interval_width
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.scan import Scan

LEVELS = (0.5, 0.8, 0.95)
METHODS = (
    "dds",
    "dds:image=pnp_admm:strength=0.3",
    "daps:noise_std=0.01:image=pnp_admm:strength=0.3",
    "posterior_dds",
    "posterior_dds:image=pnp_admm:strength=0.3",
)
_FIT_SEED = 100
_OBJECT = 0.05
"""Threshold of the object relative to the 99 % quantile of the magnitude."""
_RATIOS = [f"ratio{level:g}" for level in LEVELS]
_COLUMNS = (
    *("method", "acceleration", "seed", "scan", "kind", "psnr_one", "psnr_mean"),
    *("correlation", "spread", "error", *_RATIOS, "ratios"),
)
# Stored quantiles of the error ratios, from which any coverage can be computed later.
_QUANTILES = 201


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = held_out_parser("solvers.calibration", __doc__)
    add, volumes = parser.add_argument, "Label volumes of the scans that f is fitted on."
    add("--fit_label_volumes", type=Path, nargs="*", default=[], help=volumes)
    add("--scans", type=int, default=33, help="Test scans.")
    add("--fit_scans", type=int, default=12, help="Scans that f is fitted on.")
    add("--methods", nargs="+", default=list(METHODS), help="Solvers with their options.")
    add("--samples", type=int, default=8, help="Posterior samples of a scan.")
    add("--steps", type=int, default=20, help="Diffusion steps.")
    add("--guidance_scale", type=float, default=1.0, help="Guidance scale γ.")
    args = parse(parser, argv)
    if args.samples < 3 or args.scans < 2 or args.seed == _FIT_SEED:
        parser.error(f"expected --samples of 3 or more, --scans of 2, --seed not {_FIT_SEED}")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    pipe, prior = open_named_prior(args)
    names = ("samples", "steps", "resolution", "guidance_scale", "dtype")
    settings: dict[str, object] = {
        "prior": prior,
        "label_volumes": [path.name for path in args.label_volumes],
        "fit_label_volumes": [path.name for path in args.fit_label_volumes],
        "coils": NUM_COILS,
        "snr": SNR,
        **{name: getattr(args, name) for name in names},
    }
    path = args.output_dir / "calibration.csv"
    rows = open_rows(path, _COLUMNS, settings)
    for seed, count, volumes in (
        (_FIT_SEED, args.fit_scans, args.fit_label_volumes),
        (args.seed, args.scans, args.label_volumes),
    ):
        scans = held_out_scans(count, args.resolution, volumes, seed)
        run_missing(path, rows, scans, seed, pipe, args)
    results = {"settings": settings, **summarize(rows, args)}
    write_study(args.output_dir / "calibration.json", results, args, page)
    draw(args, pipe)


def run_missing(
    path: Path,
    rows: list[Row],
    scans: list[tuple[str, Scan]],
    seed: int,
    pipe: ContextMRIPipeline,
    args: argparse.Namespace,
) -> None:
    """Sample the cases missing in the CSV file; append them to the file and ``rows``."""
    done = {(row["method"], row["acceleration"], row["seed"], row["scan"]) for row in rows}
    cases = list(product(args.methods, args.accelerations, range(len(scans))))
    for method, acceleration, number in tqdm(cases, unit="scan", desc=f"seed {seed}"):
        key = (method, f"{acceleration:g}", str(seed), str(number))
        if key in done:
            continue
        kind, scan = scans[number]
        measured = undersample(scan, acceleration, scan_seed(seed, number), False)
        samples, _ = draw_samples(method, measured, scan_seed(seed, number), pipe, args)
        row = dict(zip(("method", "acceleration", "seed", "scan"), key, strict=True))
        row |= {"kind": kind, **rate(samples, measured)}
        append_rows(path, _COLUMNS, [row])
        rows.append(row)


def draw_samples(
    method: str, scan: Scan, seed: int, pipe: ContextMRIPipeline, args: argparse.Namespace
) -> tuple[Tensor, Tensor]:
    """Draw samples ``(K, ny, nx)``; return them and their mean ``(ny, nx)``, complex."""
    solver, call = solver_and_call(method)
    output: ReconstructionOutput[Tensor] = pipe(
        scan.kspace,
        scan.mask,
        scan.metadata[0].to_prompt(),
        coil_maps=scan.coil_maps,
        guidance_scale=args.guidance_scale,
        num_inference_steps=args.steps,
        solver=solver,
        generator=torch.Generator().manual_seed(seed),
        num_samples=args.samples,
        batch_size=args.batch_size,
        **call,
    )
    assert output.samples is not None
    return output.samples[0].cpu(), output.images[0].cpu()


def spread_and_error(samples: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return standard deviation of the magnitude, error of its mean, and object mask."""
    magnitudes = samples.abs()
    true = target.abs()
    inside = true > _OBJECT * true.quantile(0.99)
    return magnitudes.std(dim=0), (magnitudes.mean(dim=0) - true).abs(), inside


def rate(samples: Tensor, scan: Scan) -> Row:
    """Return the row of one scan's samples."""
    assert scan.target is not None
    target = scan.target[0]
    spread, error, inside = spread_and_error(samples, target)
    s, e = spread[inside].double(), error[inside].double()
    ratios = e / s.clamp(min=1e-12)
    quantiles = torch.quantile(ratios, torch.linspace(0, 1, _QUANTILES, dtype=torch.float64))
    each = psnr(samples, target.expand_as(samples))
    wanted = {
        name: float(torch.quantile(ratios, level)) / interval_width(level, len(samples))
        for name, level in zip(_RATIOS, LEVELS, strict=True)
    }
    return {
        "psnr_one": repr(float(each.mean())),
        "psnr_mean": repr(float(psnr(samples.mean(dim=0)[None], target[None])[0])),
        "correlation": repr(float(torch.corrcoef(torch.stack([s, e]))[0, 1])),
        "spread": repr(float(s.square().mean().sqrt())),
        "error": repr(float(e.square().mean().sqrt())),
        **{name: repr(value) for name, value in wanted.items()},
        "ratios": json.dumps([float(f"{value:.5g}") for value in quantiles]),
    }


def coverage(row: Row, level: float, factor: float, samples: int) -> float:
    """Return the share of pixels inside the interval, from the stored quantiles."""
    limit = factor * interval_width(level, samples)
    return float(np.interp(limit, json.loads(row["ratios"]), np.linspace(0, 1, _QUANTILES)))


def gain_of_posterior(samples: int) -> float:
    """Return ``10 log10(2 / (1 + 1/K))``, the gain in dB of the mean of K exact posterior samples.

    The ground truth is one more posterior sample. A sample therefore has an expected squared error
    of twice the posterior variance, and the mean of K samples of ``1 + 1/K`` times that variance:
    a gain of 2.5 dB for 8 samples and 3.0 dB for many. Samples that gain less agree with each other
    more than with the ground truth. The formula holds for complex images and approximately for
    magnitudes.
    """
    return 10 * math.log10(2 / (1 + 1 / samples))


def summarize(rows: list[Row], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return the statistics of every method at each acceleration."""
    results: dict[str, dict[str, Any]] = {}
    for acceleration in args.accelerations:
        for method in args.methods:
            mine = [
                row
                for row in rows
                if row["method"] == method and row["acceleration"] == f"{acceleration:g}"
            ]
            fit = _first_scans(mine, _FIT_SEED, args.fit_scans)
            test = _first_scans(mine, args.seed, args.scans)
            factor = float(np.mean([float(row["ratio0.8"]) for row in fit]))
            entry: dict[str, Any] = {"factor": factor, "fitted_on": len(fit)}
            columns = ("psnr_one", "psnr_mean", "correlation")
            found = {name: summary([float(row[name]) for row in test]) for name in columns}
            gain = [float(row["psnr_mean"]) - float(row["psnr_one"]) for row in test]
            found["gain"] = summary(gain)
            scans = np.array([[float(row["spread"]), float(row["error"])] for row in test])
            entry["correlation_over_scans"] = float(np.corrcoef(scans.T)[0, 1])
            for name, f in (("coverage", 1.0), ("recalibrated", factor)):
                for level in LEVELS:
                    found[f"{name} {level:g}"] = summary(
                        [coverage(row, level, f, args.samples) for row in test]
                    )
            results[f"x{acceleration:g} {method}"] = entry | found
    return results


def _first_scans(rows: list[Row], seed: int, count: int) -> list[Row]:
    """Return the rows of the first scans of a seed; an earlier run may have measured more."""
    return [row for row in rows if row["seed"] == str(seed) and int(row["scan"]) < count]


def page(record: Record) -> str:
    """Return the page: a verdict, the setting and a table for each acceleration."""
    args, results = parse_args(recorded_options(record["command"])), record["results"]
    text = ["# Calibration of posterior samples\n", _verdict(args, results)]
    text.append(_explanation(args, results["settings"]))
    header = ["solver", "PSNR, one sample (dB)", f"PSNR, mean of {args.samples} (dB)"]
    header += ["gain of the mean (dB)", *(f"in {level:.0%} interval" for level in LEVELS), "f"]
    header += [f"in {level:.0%} with f" for level in LEVELS]
    header += ["correlation over pixels", "correlation over scans"]
    for acceleration in args.accelerations:
        lines = [_line(method, results[f"x{acceleration:g} {method}"]) for method in args.methods]
        text += [f"## uniform1d ×{acceleration:g}, n = {args.scans}\n", table(header, lines)]
    text.append("![Error and spread of one scan](calibration.png)\n")
    return "\n".join(text)


def _verdict(args: argparse.Namespace, results: dict[str, dict[str, Any]]) -> str:
    """Return the coverage of nominal 95 % intervals of every method, in words."""
    level = max(LEVELS)
    lines = []
    for method in args.methods:
        each = [
            f"{results[f'x{factor:g} {method}'][f'coverage {level:g}']['mean']:.0%} at ×{factor:g}"
            for factor in args.accelerations
        ]
        lines.append(
            f"- `{method}`: intervals with a nominal coverage of {level:.0%} cover {listed(each)}."
        )
    return "\n".join(lines) + "\n"


def _line(method: str, found: dict[str, Any]) -> list[str]:
    """Return the row of a method."""
    return [
        f"`{method}`",
        with_error(found["psnr_one"], 2),
        with_error(found["psnr_mean"], 2),
        with_error(found["gain"], 2, sign=True),
        *(f"{found[f'coverage {level:g}']['mean']:.0%}" for level in LEVELS),
        f"{found['factor']:.2f}",
        *(f"{found[f'recalibrated {level:g}']['mean']:.0%}" for level in LEVELS),
        with_error(found["correlation"], 2),
        f"{found['correlation_over_scans']:.2f}",
    ]


def draw(args: argparse.Namespace, pipe: ContextMRIPipeline) -> None:
    """Draw error and spread of the first brain at the largest acceleration."""
    scans = held_out_scans(2, args.resolution, [], args.seed)
    seed, acceleration = scan_seed(args.seed, 1), max(args.accelerations)
    measured = undersample(scans[1][1], acceleration, seed, False)
    assert measured.target is not None
    target = measured.target[0]
    figure, panels = plt.subplots(
        len(args.methods), 4, figsize=(11, 2.9 * len(args.methods)), squeeze=False
    )
    for line, method in zip(panels, args.methods, strict=True):
        samples, mean = draw_samples(method, measured, seed, pipe, args)
        spread, error, inside = spread_and_error(samples, target)
        white, most = float(target.abs().quantile(0.995)), float(error[inside].quantile(0.99))
        images = {
            "ground truth": target.abs(),
            f"mean of {len(samples)}": mean.abs(),
            "error of the mean": error,
            "standard deviation": spread,
        }
        for panel, (name, image) in zip(line, images.items(), strict=True):
            limit, colors = (white, "gray") if panel in line[:2] else (most, "magma")
            panel.imshow(image.numpy(), vmin=0, vmax=limit, cmap=colors)
            panel.set_title(name, fontsize=9)
            panel.axis("off")
        line[0].text(0, len(target) + 8, method, fontsize=8)
    figure.suptitle(f"Held-out brain, uniform1d ×{acceleration:g}: error and spread on one scale")
    figure.tight_layout()
    save_figure(args.output_dir / "calibration.png", figure, dpi=110)
    plt.close(figure)


def _explanation(args: argparse.Namespace, settings: dict[str, object]) -> str:
    """Return the description of setting and columns."""
    return f"""\
{args.samples} posterior samples of each held-out phantom scan, {args.resolution}², {NUM_COILS}
coils, complex noise of {1 / SNR:.0%} of the bright signal; prior `{settings["prior"]}`,
{args.steps} steps with quadratic spacing, γ = {args.guidance_scale:g}, network in {args.dtype}.
Values are means over the scans, ± standard error.

The interval columns show the share of the object's pixels whose true magnitude lies inside the
50, 80 and 95 % interval, for the unmodified samples and with the spread multiplied by f, which was
fitted on {args.fit_scans} scans of other seeds and volumes. The correlations are those of the
spread with the absolute error: over the pixels of a scan, and over the scans between their root
mean squares. For an exact posterior, the mean of {args.samples} samples gains
{gain_of_posterior(args.samples):.1f} dB over one sample (3.0 dB for many samples), because the
ground truth is one more sample; a smaller gain means that the samples agree too much.
"""


if __name__ == "__main__":
    main()
