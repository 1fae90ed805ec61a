"""Time and quality of L1-wavelet and total variation, compared with SigPy and BART.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.baselines --slices 1 8

Phantom slices of 320² with 8 coils, Poisson ×6, coil maps given: one slice, and a batch of slices.
All use the same weight, scaled data and number of iterations, and Daubechies-2 wavelets; SigPy and
BART otherwise keep their defaults and run one slice after the other. SigPy runs on the CPU; the
time of BART includes the start of the program and its files. Competitors take turns, because other
work comes and goes on the machine: times are medians, and ratios are medians of the ratios within a
turn. CPU seconds, which other work disturbs less, include those of BART's processes.

The time of importing each implementation is that of fresh Python processes, which all load torch.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.bart import bart_pics
from benchmarks.common.record import Record, write_study
from benchmarks.common.sigpy_apps import sigpy_image
from benchmarks.common.timing import synchronize
from benchmarks.common.words import listed
from ctxrecon.baselines import BASELINES, zero_filled
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.evaluation import table
from ctxrecon.intensity import intensity_scale
from ctxrecon.masks import make_mask
from ctxrecon.metrics import psnr
from ctxrecon.operators import CartesianSense
from ctxrecon.phantom import phantom_scan

METHODS = ("l1_wavelet", "total_variation")
OURS, SIGPY, BART = "ctxrecon", "SigPy", "BART"
_ACCELERATION = 6.0
_NOISE = 0.005  # of the largest magnitude
_WEIGHT = 2e-3
_IMPORTS = {
    OURS: "import ctxrecon.baselines",
    "ctxrecon and SigPy": "import ctxrecon.baselines, sigpy.mri.app",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("speed.baselines", __doc__)
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    parser.add_argument("--size", type=int, default=320, help="Matrix size (default: 320).")
    parser.add_argument("--coils", type=int, default=8, help="Number of coils (default: 8).")
    parser.add_argument("--slices", type=int, nargs="+", default=[1, 8], help="Batch sizes.")
    parser.add_argument(
        "--iterations", type=int, nargs="+", default=[100, 100], help="For each batch size."
    )
    parser.add_argument(
        "--turns", type=int, nargs="+", default=[3, 3], help="Timed runs for each batch size."
    )
    parser.add_argument("--device", default="cpu", help="Device of ctxrecon (default: cpu).")
    parser.add_argument("--seed", type=int, default=0)
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    operator, kspace, target = measure(args)
    import sigpy.mri.app  # noqa: F401  (its import is timed separately)

    results: dict[str, Any] = {name: getattr(args, name) for name in ("size", "coils", "device")}
    results["versions"] = versions()
    results["import_seconds"] = import_seconds(max(args.turns))
    results["cases"] = [
        compare(method, operator, kspace[:count], target[:count], args.device, iterations, turns)
        for count, iterations, turns in zip(args.slices, args.iterations, args.turns, strict=True)
        for method in METHODS
    ]
    write_study(args.output_dir / "baseline_speed.json", results, args, page)


def page(record: Record) -> str:
    """Make a table for each method and batch size."""
    found = record["results"]
    rows = [
        [
            BASELINES.title(case["method"]),
            str(case["slices"]),
            str(case["iterations"]),
            str(case["turns"]),
            name,
            f"{entry['median_seconds']:.2f}",
            f"{entry['time_ratio']:.1f}",
            f"{entry['median_cpu_seconds']:.2f}",
            f"{entry['cpu_ratio']:.1f}",
            f"{entry['psnr']:.2f}",
        ]
        for case in found["cases"]
        for name, entry in case["entries"].items()
    ]
    times = ["seconds", "× ctxrecon", "CPU seconds", "× ctxrecon"]
    head = ["method", "slices", "iterations", "turns", "program", *times, "PSNR (dB)"]
    versions = ", ".join(f"{name} {value}" for name, value in found["versions"].items())
    imports = [[name, f"{value:.1f}"] for name, value in found["import_seconds"].items()]
    return "\n".join(
        [
            "# Time of baselines\n",
            *map(_verdict, found["cases"]),
            "",
            f"Phantom slices, {found['size']}², {found['coils']} coils, Poisson "
            f"×{_ACCELERATION:g}, λ = {_WEIGHT:g}; ctxrecon on "
            f"{found['device']}, {record['hardware']['torch_threads']} thread(s). Medians of the "
            f"turns, ratios within a turn. {versions}.\n",
            "With few iterations only the time counts: total variation is then far from its "
            "minimum.\n",
            table(head, rows),
            "Importing in a fresh process:\n",
            table(["import of", "seconds"], imports),
        ]
    )


def _verdict(case: dict[str, Any]) -> str:
    """Return in words how much CPU time others take for a method and batch size."""
    others = [
        f"{name} takes {entry['cpu_ratio']:.1f} times"
        for name, entry in case["entries"].items()
        if name != OURS
    ]
    title, slices = BASELINES.title(case["method"]), case["slices"]
    plural = "s" if slices > 1 else ""
    return f"- {title}, {slices} slice{plural}: {listed(others)} the CPU time of ctxrecon."


def measure(args: argparse.Namespace) -> tuple[CartesianSense, Tensor, Tensor]:
    """Return operator, scaled k-space and magnitudes of noisy phantom slices."""
    generator = torch.Generator().manual_seed(args.seed)
    shape = (args.size, args.size)
    targets = [
        phantom_scan("brain", shape=shape, generator=generator).target
        for _ in range(max(args.slices))
    ]
    target = torch.cat([each for each in targets if each is not None])
    target = target / target.abs().amax(dim=(1, 2), keepdim=True)
    maps = simulate_coil_maps(args.coils, shape, generator=generator)
    mask = make_mask("poisson_disk2d", shape, _ACCELERATION, generator=generator)
    operator = CartesianSense(mask, maps)
    clean = operator(target)
    noise = torch.randn(clean.shape, dtype=clean.dtype, generator=generator)
    kspace = clean + _NOISE * mask * noise
    scale = intensity_scale(zero_filled(operator, kspace), interpolation="linear")
    return operator, kspace / scale[:, None, None, None], target.abs() / scale[:, None, None]


def compare(
    method: str,
    operator: CartesianSense,
    kspace: Tensor,
    target: Tensor,
    device: str,
    iterations: int,
    turns: int,
) -> dict[str, Any]:
    """Measure every implementation of a method by turns."""
    others = {SIGPY: by_sigpy} | ({BART: by_bart} if shutil.which("bart") else {})
    runs: dict[str, Callable[[], Tensor]] = {
        OURS: partial(
            BASELINES[method],
            operator.to(device),
            kspace.to(device),
            num_iterations=iterations,
            regularization=_WEIGHT,
        )
    }
    for name, one in others.items():
        runs[name] = partial(one_by_one, partial(one, method, iterations), operator, kspace)
    images: dict[str, Tensor] = {}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            images[name], *seconds = timed(run)
            times[name].append((seconds[0], seconds[1]))
    entries = {
        name: {
            "seconds": [clock for clock, _ in pairs],
            "cpu_seconds": [cpu for _, cpu in pairs],
            "median_seconds": statistics.median(clock for clock, _ in pairs),
            "median_cpu_seconds": statistics.median(cpu for _, cpu in pairs),
            "time_ratio": ratio(pairs, times[OURS], 0),
            "cpu_ratio": ratio(pairs, times[OURS], 1),
            "psnr": float(psnr(images[name], target).mean()),
        }
        for name, pairs in times.items()
    }
    case = {"method": method, "slices": len(kspace), "iterations": iterations, "turns": turns}
    return case | {"entries": entries}


def timed(run: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    """Return the image of a run, its seconds, and its CPU seconds with those of its processes."""
    before, started = cpu_seconds(), time.perf_counter()
    image = run()
    synchronize()
    return image.cpu(), time.perf_counter() - started, cpu_seconds() - before


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its finished children."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def ratio(
    turns: list[tuple[float, float]], reference: list[tuple[float, float]], which: int
) -> float:
    """Return the median ratio of the times of the same turns."""
    pairs = zip(turns, reference, strict=True)
    return statistics.median(one[which] / other[which] for one, other in pairs)


def one_by_one(
    run: Callable[[Tensor, Tensor, Tensor], Tensor], operator: CartesianSense, kspace: Tensor
) -> Tensor:
    """Reconstruct one slice after the other."""
    maps = operator.coil_maps
    assert maps is not None
    return torch.cat([run(one[None], operator.mask, maps) for one in kspace])


def by_sigpy(method: str, iterations: int, kspace: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
    """Reconstruct one slice by SigPy's own application, ``(1, ny, nx)``."""
    if method == "l1_wavelet":
        more = {"wave_name": "db2"}
        return sigpy_image("L1WaveletRecon", kspace, mask, maps, _WEIGHT, iterations, **more)
    return sigpy_image("TotalVariationRecon", kspace, mask, maps, _WEIGHT, iterations)


def by_bart(method: str, iterations: int, kspace: Tensor, mask: Tensor, maps: Tensor) -> Tensor:
    """Reconstruct one slice by ``bart pics`` without its data scaling, ``(1, ny, nx)``."""
    penalty = {"l1_wavelet": "W", "total_variation": "T"}[method]
    options = ["-w1", f"-i{iterations}", "-R", f"{penalty}:3:0:{_WEIGHT:g}"]
    return bart_pics(kspace * mask, maps, options)


def versions() -> dict[str, str]:
    """Return the versions of the implementations that are compared."""
    found = {"torch": torch.__version__, SIGPY: importlib.metadata.version("sigpy")}
    if shutil.which("bart"):
        version = subprocess.run(["bart", "version"], check=True, capture_output=True, text=True)
        found[BART] = version.stdout.strip()
    return found


def import_seconds(turns: int) -> dict[str, float]:
    """Return median seconds of fresh Python processes that import each implementation."""
    seconds: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    for _ in range(turns):
        for name, statement in _IMPORTS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", statement], check=True)
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


if __name__ == "__main__":
    main()
