"""Time of the data-consistency step: conjugate gradients on ``(I + ξ AᴴA) x = b``.

The reference is the time of the FFTs that the step needs at least, one forward and one inverse per
coil and iteration: 2-D for the 2-D mask, along nx for the mask that is constant along ny. They are
timed for the whole coil stack and for a few coils at a time, which stay in cache. The methods run
in turn, because the load of the machine varies; each runs once for warm-up and then five times.
Medians are over the turns of several new processes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.record import write_record
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.linalg import conjugate_gradient, squared_norm
from ctxrecon.masks import make_mask
from ctxrecon.operators import CartesianSense

DATA_WEIGHT = 5.0
CALLS = 5


def ffts(maps: Tensor, axes: tuple[int, ...], coils: int, iterations: int) -> None:
    for _ in range(iterations):
        for some in maps[0].split(coils):
            torch.fft.ifftn(torch.fft.fftn(some, dim=axes), dim=axes)


def step(operator: CartesianSense, rhs: Tensor, iterations: int) -> Tensor:
    return conjugate_gradient(
        lambda x: torch.add(x, operator.normal(x), alpha=DATA_WEIGHT),
        rhs,
        num_iterations=iterations,
        quadratic=lambda x: squared_norm(x) + DATA_WEIGHT * operator.squared_norm(x),
    )


def shifted_step(mask: Tensor, maps: Tensor, rhs: Tensor, iterations: int) -> Tensor:
    """Run the step with ``AᴴA`` as often written, by centered FFTs with four shifted copies."""

    def normal(x: Tensor) -> Tensor:
        return x + DATA_WEIGHT * (maps.conj() * ifft2c(mask * fft2c(maps * x[:, None]))).sum(dim=1)

    return conjugate_gradient(normal, rhs, num_iterations=iterations)


def deepinv_step(
    mask: Tensor, maps: Tensor, rhs: Tensor, iterations: int
) -> Callable[[], object] | None:
    """Return deepinv's proximal step with its multi-coil MRI physics, if it is installed."""
    try:
        from deepinv.physics import MultiCoilMRI
    except ImportError:
        return None
    size = tuple(rhs.shape[-2:])
    physics = MultiCoilMRI(mask=mask.float(), coil_maps=maps, img_size=size)
    image = torch.view_as_real(rhs).movedim(-1, 1).contiguous()
    y = physics.A(image)
    return lambda: physics.prox_l2(
        image, y, gamma=DATA_WEIGHT, solver="CG", max_iter=iterations, tol=0.0
    )


def competitors(
    mask: Tensor, maps: Tensor, rhs: Tensor, iterations: int
) -> dict[str, Callable[[], object]]:
    operator = CartesianSense(mask, maps)
    operator.normal(rhs)
    axes = (-1,) if bool((mask == mask[..., :1, :]).all()) else (-2, -1)
    threads = torch.get_num_threads()
    entries: dict[str, Callable[[], object] | None] = {
        "FFTs alone, whole stack": lambda: ffts(maps, axes, maps.shape[1], iterations),
        "FFTs alone, a coil per thread": lambda: ffts(maps, axes, threads, iterations),
        "ctxrecon": lambda: step(operator, rhs, iterations),
        "shifted copies": lambda: shifted_step(mask, maps, rhs, iterations),
        "deepinv prox_l2": deepinv_step(mask, maps, rhs, iterations),
    }
    return {name: entry for name, entry in entries.items() if entry is not None}


def measure(entries: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Measure the milliseconds of each turn."""
    times: dict[str, list[float]] = {name: [] for name in entries}
    for _ in range(repeats):
        for name, entry in entries.items():
            entry()
            start = time.perf_counter()
            for _ in range(CALLS):
                entry()
            times[name].append(1e3 * (time.perf_counter() - start) / CALLS)
    return times


def measure_cases(arguments: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Measure every method for every mask in this process."""
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(arguments.seed)
    shape = (arguments.size, arguments.size)
    smooth = simulate_coil_maps(arguments.coils, shape, generator=generator)
    noise = torch.randn(smooth.shape, dtype=torch.complex64, generator=generator)
    rhs = torch.randn(1, *shape, dtype=torch.complex64, generator=generator)
    lines = make_mask("uniform1d", shape, 4, center_fraction=0.08, generator=generator)
    points = make_mask("variable_density2d", shape, 4, center_fraction=0.08, generator=generator)
    cases = {
        "2-D mask": (points, smooth),
        "1-D mask": (lines, smooth),
        "1-D mask, random coil maps (no virtual coil can be spared)": (lines, noise),
    }
    with torch.no_grad():
        return {
            case: measure(competitors(mask, maps, rhs, arguments.iterations), arguments.repeats)
            for case, (mask, maps) in cases.items()
        }


def compare(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return medians, minima and ratios to both reference times."""
    result = {}
    for name, values in times.items():
        row = {"median_ms": statistics.median(values), "minimum_ms": min(values)}
        for yardstick in (name for name in times if name.startswith("FFTs")):
            ratios = [a / b for a, b in zip(values, times[yardstick], strict=True)]
            row[f"median ratio to {yardstick}"] = statistics.median(ratios)
            row[f"ratio of minima to {yardstick}"] = min(values) / min(times[yardstick])
        result[name] = row
    return result


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("speed.data_consistency", __doc__)
    add, output = parser.add_argument, RESULTS / "data_consistency.json"
    add("--coils", type=int, default=15, help="Number of coils.")
    add("--size", type=int, default=320, help="Matrix size.")
    add("--iterations", type=int, default=5, help="Conjugate-gradient iterations.")
    add("--repeats", type=int, default=3, help="Turns in each process.")
    add("--processes", type=int, default=7, help="Number of processes, one after the other.")
    add("--threads", type=int, default=2, help="CPU threads.")
    add("--seed", type=int, default=0, help="Random seed.")
    add("--output", type=Path, default=output, help="JSON file.")
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_args(argv)
    # Some processes are slower than others throughout, so a single one is not representative.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        processes = pool.map(measure_cases, [arguments] * arguments.processes, chunksize=1)

    results = {}
    for case in processes[0]:
        names = processes[0][case]
        results[case] = compare(
            {name: [t for p in processes for t in p[case][name]] for name in names}
        )
        print(f"\n{case}: {arguments.iterations} iterations, {arguments.coils} coils")
        print(f"{'':32}{'median':>10}{'minimum':>10}{'/ stack':>9}{'/ chunks':>9}{'(minima)':>18}")
        for name, row in results[case].items():
            median, minimum, stack, stack_min, chunks, chunks_min = row.values()
            print(
                f"{name:32}{median:7.1f} ms{minimum:7.1f} ms{stack:9.2f}{chunks:9.2f}"
                f"{stack_min:9.2f}{chunks_min:9.2f}"
            )
    write_record(arguments.output, results, arguments)
    print(f"\nwritten: {arguments.output}")


if __name__ == "__main__":
    main()
