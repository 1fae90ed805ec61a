"""Time and agreement of ESPIRiT coil maps from ctxrecon, SigPy and BART on the same samples.

All use the same 24×24 calibration samples, a 6×6 kernel, the same relative threshold of the
singular values (BART's applies to their squares), no crop and one set of maps. "Settings chosen" is
``estimate_coil_maps`` with its defaults, on every fourth line in addition to the calibration
samples. "BART, defaults" is ``bart ecalib`` without options, on the calibration samples.

The methods run in turn, because the load of the machine varies, after one warm-up call each. For
every call, wall-clock and processor time are recorded. On a busy machine only the processor time is
meaningful; with one thread on an idle machine the two agree. For BART, a separate program, the time
to start, read k-space and write maps is measured with ``bart scale`` and subtracted.

Agreement is ``‖S_ours − S_other‖ / ‖S_other‖`` inside the object (pixels above a tenth of the
largest root sum of squares of the calibration image), after rotating the other maps to our phase at
each pixel. For fully sampled k-space, the projection residual ``‖x − S Sᴴ x‖ / ‖x‖`` measures the
part of the coil images ``x`` that the maps cannot represent; for simulated scans, ``x`` is
noiseless.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.record import write_record
from ctxrecon.coils import (
    espirit,
    estimate_coil_maps,
    find_calibration_region,
    root_sum_of_squares,
    simulate_coil_maps,
    walsh,
)
from ctxrecon.fourier import fft2c, ifft2c

CALIBRATION = 24
KERNEL = 6
THRESHOLD = 0.02
NOISE = 0.005  # of a complex sample, relative to the largest pixel


class Case(NamedTuple):
    """k-space ``(1, coils, ny, nx)`` and, where known, the coil images."""

    kspace: Tensor
    images: Tensor | None


def simulated_case(coils: int, shape: tuple[int, int], generator: torch.Generator) -> Case:
    maps = simulate_coil_maps(coils, shape, generator=generator)
    y = torch.linspace(-1, 1, shape[0])[:, None]
    x = torch.linspace(-1, 1, shape[1])
    inside = (y / 0.75) ** 2 + (x / 0.65) ** 2 < 1
    return noisy_case(maps * inside * (1 + 0.3 * torch.sin(9 * y) * torch.cos(13 * x)), generator)


def noisy_case(images: Tensor, generator: torch.Generator) -> Case:
    kspace = fft2c(images)
    noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
    return Case(kspace + NOISE * root_sum_of_squares(images).amax() * noise, images)


def make_case(name: str, data: Path | None, seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)
    if name == "8x230x180 simulated":
        return simulated_case(8, (230, 180), generator)
    if name == "15x640x368 simulated":
        return simulated_case(15, (640, 368), generator)
    assert data is not None
    if name == "8x230x180 real T1 brain":
        kspace = np.load(data / "brain_t1_8ch_undersampled" / "cartesian_ksp.npy")
        return Case(torch.as_tensor(kspace)[None], None)
    if name == "4x256x256 real T2 brain":
        images = torch.as_tensor(np.load(data / "brain_t2_4ch" / "coil_images.npy"))[None]
        return Case(fft2c(images), images)
    maps, image = (
        np.load(data / "coil_maps_32ch" / f"{part}.npy") for part in ("coil_maps", "image")
    )
    images = torch.as_tensor((maps * image).astype(np.complex64))[None]
    return noisy_case(images, generator)


SIMULATED = ("8x230x180 simulated", "15x640x368 simulated")
REAL = ("8x230x180 real T1 brain", "4x256x256 real T2 brain", "32x128x128 real coil maps")


def calibration_block(kspace: Tensor) -> Tensor:
    """Return k-space with everything outside the central block set to zero."""
    block = torch.zeros_like(kspace)
    center = tuple(
        slice(n // 2 - CALIBRATION // 2, n // 2 + CALIBRATION // 2) for n in kspace.shape[2:]
    )
    block[:, :, center[0], center[1]] = kspace[:, :, center[0], center[1]]
    return block


class Bart:
    """BART's command-line tools on files in one folder."""

    def __init__(self, kspace: Tensor, folder: Path) -> None:
        self.folder, (_, coils, ny, nx) = folder, kspace.shape
        self.shape = (ny, nx, 1, coils)
        (folder / "k.hdr").write_text(f"# Dimensions\n{ny} {nx} 1 {coils}\n")
        kspace[0].permute(1, 2, 0)[:, :, None].numpy().ravel(order="F").tofile(folder / "k.cfl")

    def run(self, *command: str) -> None:
        """Run a tool that reads k-space and writes maps."""
        arguments = ["bart", *command, str(self.folder / "k"), str(self.folder / "s")]
        subprocess.run(arguments, check=True, capture_output=True)

    def files_only(self) -> None:
        """Start, read and write like ``ecalib``, without computing maps."""
        self.run("scale", "1")

    def ecalib(self) -> None:
        """Run ESPIRiT with the settings of the comparison."""
        size, kernel = (f"{n}:{n}:1" for n in (CALIBRATION, KERNEL))
        self.run("ecalib", "-m", "1", "-c", "0", "-r", size, "-k", kernel, "-t", str(THRESHOLD**2))

    def defaults(self) -> None:
        """Run ESPIRiT with BART's defaults: two sets of maps and a calibrated crop."""
        self.run("ecalib")

    def maps(self) -> Tensor:
        """Read the maps that ``ecalib`` wrote, ``(1, coils, ny, nx)``."""
        values = np.fromfile(self.folder / "s.cfl", dtype=np.complex64)
        maps = values.reshape(self.shape, order="F")[:, :, 0].transpose(2, 0, 1)
        return torch.as_tensor(maps.copy())[None]


def every_fourth_line(mask: Tensor) -> Tensor:
    """Return a mask of the calibration region and every fourth line, ``(1, 1, ny, nx)``."""
    nx = mask.shape[-1]
    lines = (torch.arange(nx) % 4 == 0) | mask[0, 0].any(dim=0)
    return lines.expand_as(mask).clone()


def relative_error(ours: Tensor, other: Tensor, inside: Tensor) -> float:
    """Return ``‖S_ours − S_other‖ / ‖S_other‖`` inside, with the best phase at each pixel."""
    turn = (other.conj() * ours).sum(dim=1, keepdim=True)
    aligned = other * turn / turn.abs().clamp_min(1e-20)
    difference = (ours - aligned)[:, :, inside]
    return float(difference.norm() / other[:, :, inside].norm())


def projection_residual(images: Tensor, maps: Tensor) -> float:
    """Return the relative norm of the coil images outside the span of the maps."""
    rest = images - maps * (maps.conj() * images).sum(dim=1, keepdim=True)
    return float(rest.norm() / images.norm())


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock and processor time in ms of this process and its subprocesses."""

    def processors() -> float:
        usages = [
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    clock, spent = time.perf_counter(), processors()
    call()
    return 1e3 * (time.perf_counter() - clock), 1e3 * (processors() - spent)


def measure_case(name: str, arguments: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Measure one case in this process; return a row for each method."""
    torch.set_num_threads(arguments.threads)
    case = make_case(name, arguments.data, arguments.seed)
    block = calibration_block(case.kspace)
    mask = (block != 0).any(dim=1, keepdim=True)
    maps: dict[str, Tensor] = {}

    shape = (block.shape[2], block.shape[3])
    region = find_calibration_region(mask)
    calibration = block[:, :, region[0], region[1]]
    lines = every_fourth_line(mask)

    def espirit_maps(label: str, threshold: float | Literal["auto"]) -> None:
        maps[label] = espirit(calibration, shape, threshold=threshold, crop=0).coil_maps

    def walsh_maps(label: str) -> None:
        maps[label] = walsh(calibration, shape, crop=0)

    def sigpy_maps(label: str) -> None:
        maps[label] = estimate_coil_maps(
            block, mask, method="sigpy", threshold=THRESHOLD, crop=0, num_maps=1
        )

    def default_maps() -> None:
        """Estimate with defaults, which may return two sets and is only timed."""
        estimate_coil_maps(case.kspace * lines, lines)

    entries: dict[str, Callable[[], object]] = {
        "ctxrecon": partial(espirit_maps, "ctxrecon", THRESHOLD),
        "ctxrecon, threshold from the data": partial(
            espirit_maps, "ctxrecon, threshold from the data", "auto"
        ),
        "ctxrecon, Walsh": partial(walsh_maps, "ctxrecon, Walsh"),
        "ctxrecon, settings chosen": default_maps,
    }
    turns = dict.fromkeys(entries, arguments.turns)
    if arguments.sigpy_turns:
        entries["sigpy"] = partial(sigpy_maps, "sigpy")
        turns["sigpy"] = arguments.sigpy_turns
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        if shutil.which("bart"):
            bart = Bart(block, Path(folder))
            entries |= {
                "BART, files only": bart.files_only,
                "BART, defaults": bart.defaults,
                "BART": bart.ecalib,
            }
            turns |= dict.fromkeys(("BART, files only", "BART, defaults", "BART"), arguments.turns)
        times: dict[str, list[tuple[float, float]]] = {label: [] for label in entries}
        for label, entry in entries.items():
            if label != "sigpy":  # slow, and has nothing to warm up
                entry()
        for turn in range(arguments.turns):
            for label, entry in entries.items():
                if turn < turns[label]:
                    times[label].append(timed(entry))
        if shutil.which("bart"):
            maps["BART"] = bart.maps()
    rows = summary(times)
    image = root_sum_of_squares(ifft2c(block))[0]
    inside = image > 0.1 * image.max()
    for label, estimate in maps.items():
        rows[label]["relative difference to ctxrecon"] = relative_error(
            maps["ctxrecon"], estimate, inside
        )
        if case.images is not None:
            rows[label]["projection residual"] = projection_residual(case.images, estimate)
    return rows


def summary(times: dict[str, list[tuple[float, float]]]) -> dict[str, dict[str, object]]:
    """Return median times and their ratios to ours, BART's without its file access."""
    rows: dict[str, dict[str, object]] = {}
    clock, spent = (
        {
            label: statistics.median(value[kind] for value in values)
            for label, values in times.items()
        }
        for kind in (0, 1)
    )
    for label in times:
        files = "BART, files only" if label in ("BART", "BART, defaults") else None
        net = spent[label] - (spent[files] if files else 0)
        net_clock = clock[label] - (clock[files] if files else 0)
        rows[label] = {
            "calls": len(times[label]),
            "clock_ms": clock[label],
            "cpu_ms": spent[label],
            "clock / ctxrecon": net_clock / clock["ctxrecon"],
            "cpu / ctxrecon": net / spent["ctxrecon"],
        }
    return rows


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("coils.speed", __doc__)
    parser.add_argument(
        "--data", type=Path, help="Folder of the real data (default: simulated scans only)."
    )
    parser.add_argument("--turns", type=int, default=5, help="Timed calls of each method.")
    parser.add_argument("--sigpy_turns", type=int, default=1, help="Calls of SigPy; 0 skips it.")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "coil_maps.json", help="JSON file."
    )
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_args(argv)
    # NumPy and BART read the number of threads at start-up.
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(arguments.threads)
    results = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in SIMULATED + (REAL if arguments.data else ()):
            rows = results[name] = pool.apply(measure_case, (name, arguments))
            print(f"\n{name}, {arguments.threads} thread(s)")
            print(f"{'':36}{'clock':>11}{'CPU':>11}{'/ ours':>8}{'differs':>9}{'residual':>10}")
            for label, row in rows.items():
                agreement = "".join(
                    f"{row[key]:{width}.4f}" if key in row else " " * width
                    for key, width in (
                        ("relative difference to ctxrecon", 9),
                        ("projection residual", 10),
                    )
                )
                print(
                    f"{label:36}{row['clock_ms']:8.0f} ms{row['cpu_ms']:8.0f} ms"
                    f"{row['cpu / ctxrecon']:8.1f}{agreement}",
                    flush=True,
                )
    torch.set_num_threads(arguments.threads)
    write_record(arguments.output, results, arguments)
    print(f"\nwritten: {arguments.output}")


if __name__ == "__main__":
    main()
