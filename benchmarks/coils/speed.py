"""Time and agreement of coil maps: ours beside sigpy's and BART's ESPIRiT, from the same samples.

All get the same 24×24 calibration samples, a 6×6 kernel, the same relative threshold of singular
values (BART's is that of their squares), no crop and one set of maps. "Settings chosen" is what
``estimate_coil_maps`` does by itself, with every fourth line beside the calibration samples, and
"BART, defaults" what ``bart ecalib`` does without options, from the calibration samples.

The competitors take turns, since other work on the machine comes and goes, and each has been called
once before. Of every call two times are kept, by the clock and of the processors; on a busy machine
only the second says something, and with one thread the two are the same on a quiet one. BART is a
program: the time of its start, of reading k-space and of writing maps is measured with
``bart scale`` and taken off.

Agreement is measured where the object is (a tenth of the largest root-sum-of-squares of the
calibration image), after turning the other's maps to our phase at each pixel:
``‖S_ours − S_other‖ / ‖S_other‖``. Where k-space is fully sampled, the projection residual
``‖x − S Sᴴ x‖ / ‖x‖`` of the coil images ``x`` says what the maps cannot explain of them; the
simulated scans compare with the coil images before noise was added.
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
    """k-space ``(1, coils, ny, nx)``, and the coil images where they are known."""

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
    """k-space with everything but the central block set to zero."""
    block = torch.zeros_like(kspace)
    center = tuple(
        slice(n // 2 - CALIBRATION // 2, n // 2 + CALIBRATION // 2) for n in kspace.shape[2:]
    )
    block[:, :, center[0], center[1]] = kspace[:, :, center[0], center[1]]
    return block


class Bart:
    """BART's programs on a folder in memory, if there is one."""

    def __init__(self, kspace: Tensor, folder: Path) -> None:
        self.folder, (_, coils, ny, nx) = folder, kspace.shape
        self.shape = (ny, nx, 1, coils)
        (folder / "k.hdr").write_text(f"# Dimensions\n{ny} {nx} 1 {coils}\n")
        kspace[0].permute(1, 2, 0)[:, :, None].numpy().ravel(order="F").tofile(folder / "k.cfl")

    def run(self, *command: str) -> None:
        """A program with its options, from k-space to maps."""
        arguments = ["bart", *command, str(self.folder / "k"), str(self.folder / "s")]
        subprocess.run(arguments, check=True, capture_output=True)

    def files_only(self) -> None:
        """Start, read and write as ``ecalib`` does, and nothing between."""
        self.run("scale", "1")

    def ecalib(self) -> None:
        """ESPIRiT."""
        size, kernel = (f"{n}:{n}:1" for n in (CALIBRATION, KERNEL))
        self.run("ecalib", "-m", "1", "-c", "0", "-r", size, "-k", kernel, "-t", str(THRESHOLD**2))

    def defaults(self) -> None:
        """ESPIRiT as BART runs it if nothing is said: two sets of maps, a calibrated crop."""
        self.run("ecalib")

    def maps(self) -> Tensor:
        """What ``ecalib`` wrote, ``(1, coils, ny, nx)``."""
        values = np.fromfile(self.folder / "s.cfl", dtype=np.complex64)
        maps = values.reshape(self.shape, order="F")[:, :, 0].transpose(2, 0, 1)
        return torch.as_tensor(maps.copy())[None]


def every_fourth_line(mask: Tensor) -> Tensor:
    """A mask of every fourth line beside the calibration region, ``(1, 1, ny, nx)``."""
    nx = mask.shape[-1]
    lines = (torch.arange(nx) % 4 == 0) | mask[0, 0].any(dim=0)
    return lines.expand_as(mask).clone()


def relative_error(ours: Tensor, other: Tensor, inside: Tensor) -> float:
    """``‖S_ours − S_other‖ / ‖S_other‖`` inside, with the phase of each pixel that fits best."""
    turn = (other.conj() * ours).sum(dim=1, keepdim=True)
    aligned = other * turn / turn.abs().clamp_min(1e-20)
    difference = (ours - aligned)[:, :, inside]
    return float(difference.norm() / other[:, :, inside].norm())


def projection_residual(images: Tensor, maps: Tensor) -> float:
    """What the maps cannot explain of the coil images, relative."""
    rest = images - maps * (maps.conj() * images).sum(dim=1, keepdim=True)
    return float(rest.norm() / images.norm())


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds by the clock and of the processors, of this process and its programs."""

    def processors() -> float:
        usages = [
            resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        ]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)

    clock, spent = time.perf_counter(), processors()
    call()
    return 1e3 * (time.perf_counter() - clock), 1e3 * (processors() - spent)


def measure_case(name: str, arguments: argparse.Namespace) -> dict[str, dict[str, object]]:
    """One case in this process: a row for each competitor."""
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
        """All that is chosen by itself; with one or two sets it is not compared with the others."""
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
            if label != "sigpy":  # it takes long, and has nothing to warm up
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
    """Medians, and how many times as long as ours; BART's without its files."""
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
        "--data", type=Path, help="folder with the real data; simulated only without"
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sigpy_turns", type=int, default=1, help="0 leaves sigpy out")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULTS / "coil_maps.json")
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse_args(argv)
    # NumPy and BART read the number of threads when they start.
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
