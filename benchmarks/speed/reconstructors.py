"""Time per slice of networks and compressed sensing, and memory of MoDL's gradients.

    python -m benchmarks.speed.reconstructors --output_dir benchmarks/results

- One slice of 256² with 8 coils, Poisson ×10, coil maps given: L1-wavelet of ctxrecon, SigPy and
  BART (30 iterations, as in the Wasserstein GAN paper, and BART's 100; BART's times include start
  and files, for which a user also has to wait), and every network. All run in turn in one process,
  twice in a row; the second run counts, as for the slices of a volume. Weights do not affect the
  time and are random except for the shipped network. Generators and the shipped network also run in
  bfloat16, with the change of the shipped network's image.
- MoDL: memory kept for the backward pass and relative difference of the gradients, with implicit
  and with unrolled conjugate gradients, by number of iterations.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.bart import bart_l1_wavelet
from benchmarks.common.methods import shipped_network
from benchmarks.common.record import Record, write_study
from benchmarks.common.sigpy_apps import sigpy_image
from benchmarks.common.timing import timed
from ctxrecon.baselines import l1_wavelet
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.evaluation import table
from ctxrecon.linalg import conjugate_gradient, damped_solve
from ctxrecon.masks import make_mask
from ctxrecon.operators import CartesianSense
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import ReconstructionPipeline
from ctxrecon.reconstructors import RECONSTRUCTORS

_ACCELERATION = 10.0
_PAPER_ITERATIONS = 30
_WEIGHT = 0.01
_DAMPING = 0.05
_WAVELET, _SHIPPED, _HALF = "CS-wavelet", "shipped", "bfloat16"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("speed.reconstructors", __doc__)
    add, counts = parser.add_argument, [5, 10, 20, 40, 80]
    add("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    add("--size", type=int, default=256, help="Matrix size.")
    add("--coils", type=int, default=8, help="Number of coils.")
    add("--width", type=int, default=32, help="Features of both generators.")
    add("--turns", type=int, default=9, help="Timed runs of each method.")
    add("--cg_iterations", type=int, nargs="+", default=counts, help="Conjugate-gradient steps.")
    add("--seed", type=int, default=0, help="Random seed.")
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    kspace, operator = measure(args)
    found = entries(kspace, operator, args)
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(args.turns):
        for name, entry in found.items():
            seconds[name] += timed({name: entry}, 1)[name]
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    results: dict[str, Any] = {name: getattr(args, name) for name in ("size", "coils", "width")}
    results |= {
        "seconds": seconds,
        "median_seconds": medians,
        "rounding": cost_of_rounding(kspace, operator),
        "modl": [compare_gradients(kspace, operator, count) for count in args.cg_iterations],
    }
    write_study(args.output_dir / "reconstructor_speed.json", results, args, page)


def page(record: Record) -> str:
    """Return the page: a verdict, times per slice and memory of MoDL's gradients."""
    found = record["results"]
    medians = found["median_seconds"]
    wavelets = {name: value for name, value in medians.items() if name.startswith(_WAVELET)}
    networks = {name: value for name, value in medians.items() if name not in wavelets}
    fastest = min(networks, key=lambda name: networks[name])
    first = next(iter(wavelets))
    text = [
        "# Time of networks and compressed sensing\n",
        f"The fastest network, “{fastest}”, takes {1e3 * networks[fastest]:.0f} ms per slice, "
        f"“{first}” {1e3 * wavelets[first]:.0f} ms.\n",
        f"One slice, {found['size']}², {found['coils']} coils, Poisson ×{_ACCELERATION:g}, given "
        "coil maps. The last columns show the speed-up over each compressed-sensing "
        "reconstruction.\n",
        table(
            ["method", "ms", *(f"speed-up over {name}" for name in wavelets)],
            [
                [
                    name,
                    f"{1e3 * value:.0f}",
                    *(f"{wavelet / value:.1f}" for wavelet in wavelets.values()),
                ]
                for name, value in medians.items()
            ],
        ),
        f"In bfloat16, the image of the shipped network changes by {found['rounding']:.1e} of its "
        "norm.\n",
        "## Memory of MoDL's gradients\n",
        "Memory kept for the backward pass of one linear system, with implicit and with unrolled "
        "conjugate gradients, and the relative difference of the gradients:\n",
        table(
            ["CG iterations", "implicit (MiB)", "unrolled (MiB)", "difference"],
            [
                [
                    str(entry["cg_iterations"]),
                    f"{entry['implicit_bytes'] / 2**20:.1f}",
                    f"{entry['unrolled_bytes'] / 2**20:.1f}",
                    f"{entry['difference']:.1e}",
                ]
                for entry in found["modl"]
            ],
        ),
    ]
    return "\n".join(text)


def measure(args: argparse.Namespace) -> tuple[Tensor, CartesianSense]:
    """Return k-space of a phantom slice and its operator."""
    generator = torch.Generator().manual_seed(args.seed)
    shape = (args.size, args.size)
    target = phantom_scan("knee", shape=shape, generator=generator).target
    assert target is not None
    maps = simulate_coil_maps(args.coils, shape, generator=generator)
    mask = make_mask("poisson_disk2d", shape, _ACCELERATION, generator=generator)
    operator = CartesianSense(mask, maps)
    return operator(target), operator


def entries(
    kspace: Tensor, operator: CartesianSense, args: argparse.Namespace
) -> dict[str, Callable[[], object]]:
    """Return the timed calls by name."""
    mask, maps = operator.mask, operator.coil_maps
    assert maps is not None
    found: dict[str, Callable[[], object]] = {
        f"{_WAVELET}, ours, {_PAPER_ITERATIONS} iterations": partial(
            l1_wavelet, operator, kspace, num_iterations=_PAPER_ITERATIONS
        )
    }
    found[f"{_WAVELET}, SigPy, {_PAPER_ITERATIONS} iterations"] = partial(
        sigpy_image, "L1WaveletRecon", kspace, mask, maps, _WEIGHT, _PAPER_ITERATIONS
    )
    if shutil.which("bart"):
        for count in (_PAPER_ITERATIONS, 100):
            found[f"{_WAVELET}, BART, {count} iterations"] = partial(
                bart_l1_wavelet, kspace, mask, maps, lambda *_: 0.0, (_WEIGHT,), iterations=count
            )
    for name, kind in RECONSTRUCTORS.items():
        generator = name in ("resnet", "unrolled")
        pipe = ReconstructionPipeline(kind(**{"width": args.width} if generator else {}).eval())
        pipe.set_progress_bar_config(disable=True)
        found[kind.__name__] = partial(pipe, kspace, mask, coil_maps=maps)
        if generator:
            found[f"{kind.__name__}, {_HALF}"] = partial(halved(pipe), kspace, mask, coil_maps=maps)
    name, shipped = shipped_network()
    found[f"{name}, {_SHIPPED}"] = partial(shipped, kspace, mask, coil_maps=maps)
    found[f"{name}, {_SHIPPED}, {_HALF}"] = partial(halved(shipped), kspace, mask, coil_maps=maps)
    return found


def halved(pipe: ReconstructionPipeline) -> ReconstructionPipeline:
    """Return the pipeline with its network in bfloat16."""
    half = ReconstructionPipeline(copy.deepcopy(pipe.reconstructor).to(torch.bfloat16))
    half.set_progress_bar_config(disable=True)
    return half


def cost_of_rounding(kspace: Tensor, operator: CartesianSense) -> float:
    """Return ``‖x̂ − x‖ / ‖x‖`` for ``x̂`` of the shipped network in bfloat16."""
    _, pipe = shipped_network()
    outputs: list[Any] = [
        each(kspace, operator.mask, coil_maps=operator.coil_maps) for each in (pipe, halved(pipe))
    ]
    x, rounded = (output.images for output in outputs)
    return float((rounded - x).norm() / x.norm())


def damped_normal(operator: CartesianSense, damping: Tensor, x: Tensor) -> Tensor:
    """Return ``(AᴴA + λ) x``."""
    return operator.normal(x) + damping * x


def compare_gradients(kspace: Tensor, operator: CartesianSense, iterations: int) -> dict[str, Any]:
    """Compare memory and gradients of ``‖x‖²/2`` for ``x`` of ``(AᴴA + λ) x = Aᴴy``."""
    kept: dict[str, int] = {}
    gradients: dict[str, Tensor] = {}
    for name in ("implicit", "unrolled"):
        rhs = operator.adjoint(kspace).requires_grad_()
        damping = torch.tensor(_DAMPING, requires_grad=True)
        sizes: list[int] = []

        def keep(value: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(value.numel() * value.element_size())
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            if name == "implicit":
                x = damped_solve(operator.normal, rhs, damping, iterations)
            else:
                x = conjugate_gradient(
                    partial(damped_normal, operator, damping), rhs, num_iterations=iterations
                )
        (x.abs().square().sum() / 2).backward()
        kept[name] = sum(sizes)
        assert rhs.grad is not None
        gradients[name] = rhs.grad
    difference = (gradients["implicit"] - gradients["unrolled"]).norm()
    return {
        "cg_iterations": iterations,
        "implicit_bytes": kept["implicit"],
        "unrolled_bytes": kept["unrolled"],
        "difference": float(difference / gradients["unrolled"].norm()),
    }


if __name__ == "__main__":
    main()
