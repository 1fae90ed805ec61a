"""Reconstruction quality with coil maps from ctxrecon, SigPy and BART on difficult scans.

The scans are those of ``benchmarks.coils.scans``: fields of view smaller than the head along either
axis, dark regions, objects at the edge, 4 to 16 coils, four kinds of masks at x2 to x6, and noise
of 0.2 to 5 % of the maximum. Every estimate of the maps is used by the same CG-SENSE and the same
L1-wavelet reconstruction. PSNR compares magnitudes with the root sum of squares of the noiseless
coil images. BART's ``ecalib`` returns two sets of maps by default and one with ``-m1``; SigPy uses
the largest fully sampled square as calibration region. Times are processor times. BART's start-up
and file access are measured with ``bart scale`` and subtracted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.coils.scans import coil_scan
from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.figures import save_figure
from benchmarks.common.record import Record, write_study
from benchmarks.common.words import listed, number
from ctxrecon.coils import estimate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.evaluation import table
from ctxrecon.io.bart import read_cfl
from ctxrecon.metrics import psnr
from ctxrecon.pipelines import BaselinePipeline

OURS, SIGPY, BART_ONE, BART_TWO = "ctxrecon", "sigpy", "BART, one set", "BART"
METHODS = {"cg_sense": "CG-SENSE", "l1_wavelet": "L1-wavelet"}
TOLERANCE = 0.3  # dB


def timed(call: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """Return the result of a call and its processor time in milliseconds."""
    started = time.process_time()
    maps = call()
    return maps, 1e3 * (time.process_time() - started)


def warm_up() -> None:
    """Run one small estimate, so that lazy imports are not timed."""
    torch.set_num_threads(1)
    kspace = torch.randn(1, 2, 32, 32, dtype=torch.complex64)
    estimate_coil_maps(kspace, torch.ones(1, 1, 32, 32, dtype=torch.bool))


def bart_maps(kspace: Tensor, sets: int) -> tuple[Tensor, float]:
    """Return BART's maps ``(1, [2,] coils, ny, nx)`` and the processor time in milliseconds."""
    _, coils, ny, nx = kspace.shape
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        folder = Path(name)
        (folder / "k.hdr").write_text(f"# Dimensions\n{ny} {nx} 1 {coils}\n")
        kspace[0].permute(1, 2, 0).numpy().ravel(order="F").tofile(folder / "k.cfl")

        def run(*command: str) -> float:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            arguments = ["bart", *command, str(folder / "k"), str(folder / "s")]
            subprocess.run(arguments, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            return 1e3 * spent

        files = run("scale", "1")
        spent = run("ecalib", f"-m{sets}")
        values = np.array(read_cfl(folder / "s.cfl")).reshape(ny, nx, coils, sets)
    maps = torch.from_numpy(values.transpose(3, 2, 0, 1)[None].copy())
    return maps[:, 0] if sets == 1 else maps, spent - files


def measure(number: int, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Score all maps on one scan; return ``None`` if its mask has no calibration region."""
    torch.set_num_threads(1)
    scan = coil_scan(number, arguments.data, seed=arguments.seed)
    try:
        ours, milliseconds = timed(partial(estimate_coil_maps, scan.kspace, scan.mask))
    except InputError:
        return None
    sigpy, sigpy_time = timed(partial(estimate_coil_maps, scan.kspace, scan.mask, method="sigpy"))
    one, one_time = bart_maps(scan.kspace, 1)
    two, two_time = bart_maps(scan.kspace, 2)
    estimates = {OURS: ours, SIGPY: sigpy, BART_ONE: one, BART_TWO: two}
    times = {OURS: milliseconds, SIGPY: sigpy_time, BART_ONE: one_time, BART_TWO: two_time}
    row: dict[str, Any] = {
        "number": number,
        **scan.about,
        "sets": ours.shape[1] if ours.ndim == 5 else 1,
        "milliseconds": times,
    }
    for method in METHODS:
        row[method] = {}
        for name, maps in estimates.items():
            try:
                output = BaselinePipeline(method)(scan.kspace, scan.mask, coil_maps=maps)
            except InputError:  # maps that are zero everywhere
                row[method][name] = None
                continue
            row[method][name] = float(psnr(output.images.abs(), scan.reference))
    return row


def gains(rows: list[dict[str, Any]], method: str, others: tuple[str, ...]) -> np.ndarray:
    """Return the gain in dB of our maps over the best of the others, scan by scan."""
    return np.array(
        [
            row[method][OURS]
            - max(row[method][name] for name in others if row[method][name] is not None)
            for row in rows
        ]
    )


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return gains by method and by kind of scan, and ratios of processor time."""
    result: dict[str, Any] = {"scans": len(rows)}
    rivals = {
        "sigpy": (SIGPY,),
        "BART, one set": (BART_ONE,),
        "BART": (BART_TWO,),
        "better of sigpy and BART": (SIGPY, BART_TWO),
        "best of all three": (SIGPY, BART_ONE, BART_TWO),
    }
    for method in METHODS:
        result[method] = {}
        for name, others in rivals.items():
            values = gains(rows, method, others)
            result[method][name] = {
                "mean": float(values.mean()),
                "worst": float(values.min()),
                "5 %": float(np.quantile(values, 0.05)),
                "median": float(np.median(values)),
                "below tolerance": int((values < -TOLERANCE).sum()),
            }
    result["by kind"] = {
        kind: {
            method: float(
                gains([r for r in rows if r["kind"] == kind], method, (SIGPY, BART_TWO)).mean()
            )
            for method in METHODS
        }
        | {"two sets": sum(r["sets"] == 2 for r in rows if r["kind"] == kind)}
        for kind in sorted({row["kind"] for row in rows})
    }
    for name in (BART_ONE, BART_TWO, SIGPY):
        ratios = [row["milliseconds"][name] / row["milliseconds"][OURS] for row in rows]
        result[f"time of {name} / ours"] = {
            "median": float(np.median(ratios)),
            "lowest": float(np.min(ratios)),
        }
    return result


def page(record: Record) -> str:
    """Return the page: a table for each reconstruction, kinds of scans and times."""
    found, parts = record["results"], [_explanation(record["results"])]
    for method, title in METHODS.items():
        rows = [
            [
                name.replace("sigpy", "SigPy"),
                *(f"{values[key]:+.2f}" for key in ("mean", "median", "5 %", "worst")),
                f"{values['below tolerance']} of {found['scans']}",
            ]
            for name, values in found[method].items()
        ]
        heads = ["compared with", "mean", "median", "5 % quantile", "worst", "below −0.3 dB"]
        parts.append(f"## {title}: gain of our maps in dB\n\n{table(heads, rows)}")
    rows = [
        [kind, *(f"{values[method]:+.2f}" for method in METHODS), str(values["two sets"])]
        for kind, values in found["by kind"].items()
    ]
    heads = ["kind of scan", *(f"{title} (dB)" for title in METHODS.values())]
    heads.append("scans with two sets of our maps")
    parts.append(f"## Mean gain over the better of SigPy and BART\n\n{table(heads, rows)}")
    rows = [
        [
            name.removeprefix("time of ").removesuffix(" / ours").replace("sigpy", "SigPy"),
            f"{values['median']:.1f}",
            f"{values['lowest']:.1f}",
        ]
        for name, values in found.items()
        if name.startswith("time of")
    ]
    times = table(["time relative to ours", "median", "lowest"], rows)
    parts.append(f"## Processor time\n\n{times}")
    return "\n".join(parts)


def _explanation(found: dict[str, Any]) -> str:
    """Return heading, verdict and description of the scans."""
    best = {title: found[method]["better of sigpy and BART"] for method, title in METHODS.items()}
    means = [f"{number(values['mean'], 2)} dB with {title}" for title, values in best.items()]
    worse = [f"{values['below tolerance']} ({title})" for title, values in best.items()]
    return f"""\
# Quality of coil maps

Compared with the better of SigPy's and BART's maps on each scan, our maps change the mean PSNR of
the reconstruction by {listed(means)}; they are more than {TOLERANCE:g} dB worse on
{listed(worse)} of {found["scans"]} scans.

The scans are difficult on purpose: fields of view smaller than the head (“wraps”), dark regions,
objects at the edge of the field of view, 4 to 16 coils, four kinds of masks at ×2 to ×6, and noise
of 0.2 to 5 % of the maximum. Every method reconstructs from the same data; only the maps differ.
PSNR compares magnitudes with the root sum of squares of the noiseless coil images. “BART” uses the
two sets of maps that `ecalib` returns by default, “BART, one set” the option `-m1`.
"""


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot our PSNR against that of the better of SigPy's and BART's maps, one dot per scan."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    for axes, (method, title) in zip(figure.subplots(1, 2), METHODS.items(), strict=True):
        ours = np.array([row[method][OURS] for row in rows])
        other = ours - gains(rows, method, (SIGPY, BART_TWO))
        for kind in sorted({row["kind"] for row in rows}):
            chosen = [row["kind"] == kind for row in rows]
            axes.scatter(other[chosen], ours[chosen], s=12, label=kind)
        limits = [min(ours.min(), other.min()) - 1, max(ours.max(), other.max()) + 1]
        axes.plot(limits, limits, color="0.6", linewidth=1)
        axes.set(
            title=title,
            xlabel="better of sigpy's and BART's maps, PSNR in dB",
            ylabel="our maps, PSNR in dB",
        )
    axes.legend(fontsize=8)
    save_figure(path, figure, dpi=110)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("coils.quality", __doc__)
    parser.add_argument("--data", type=Path, required=True, help="Folder of the real data.")
    parser.add_argument("--scans", type=int, default=200, help="Number of scans.")
    parser.add_argument("--processes", type=int, default=1, help="Parallel processes.")
    parser.add_argument("--seed", type=int, default=2027, help="Random seed.")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "coil_map_quality.json", help="JSON file."
    )
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_args(argv)
    # NumPy and BART read the number of threads at start-up.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    rows: list[dict[str, Any]] = []
    number = 0
    with (
        multiprocessing.get_context("spawn").Pool(arguments.processes, initializer=warm_up) as pool,
        tqdm(total=arguments.scans) as bar,
    ):
        while len(rows) < arguments.scans:
            wanted = range(number, number + arguments.scans - len(rows))
            number = wanted.stop
            for row in pool.imap(partial(measure, arguments=arguments), wanted):
                if row is not None:
                    rows.append(row)
                    bar.update()
    found = summary(rows)
    torch.set_num_threads(1)
    write_study(arguments.output, {**found, "rows": rows}, arguments, page)
    draw(rows, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
