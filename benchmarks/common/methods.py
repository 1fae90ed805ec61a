"""What the reconstruction benchmarks share: every method on one measurement, and scores."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ctxrecon.baselines import BASELINES
from ctxrecon.coils import estimate_coil_maps, find_calibration_region
from ctxrecon.io.bart import read_cfl
from ctxrecon.metrics import image_metrics
from ctxrecon.operators import CartesianSense, sense_operator
from ctxrecon.pipelines import ContextMRIPipeline, ReconstructionPipeline, load_reconstructor
from ctxrecon.solvers import DiffusionSolver

BASELINE_NAMES = {
    "zero_filled": "zero-filled",
    "cg_sense": "CG-SENSE",
    "l1_wavelet": "L1-wavelet",
    "total_variation": "TV",
}
BART_LAMBDAS = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
"""Weights of BART's L1-wavelet that are tried, in the units of its own data scaling."""

_BART_ITERATIONS = 100
_BART_READOUT = 48
_MAX_KERNEL = 6
_METRICS = ("psnr", "ssim", "nmse")

Score = Callable[[Tensor, Tensor], float]
"""Rates an image ``(1, ny, nx)`` made with coil maps ``(1, coils, ny, nx)``; higher is better."""


@dataclass(frozen=True)
class Reconstruction:
    """What a method gave for one slice.

    Attributes:
        images: ``(count, ny, nx)`` complex64 on the CPU; each is scored alone and the scores
            averaged (posterior samples), or there is just one.
        coil_maps: ``(1, coils, ny, nx)`` that it was made with.
        seconds: wall-clock time of one image, coil maps not counted.
        std: ``(ny, nx)`` over the posterior samples, or ``None``.
        chosen: weight that was chosen by looking at the score, or ``None``.
    """

    images: Tensor
    coil_maps: Tensor
    seconds: float
    std: Tensor | None = None
    chosen: float | None = None


@dataclass(frozen=True)
class Sampling:
    """How the prior is sampled.

    Attributes:
        prompt: of the slice.
        guidance_scales: every γ that is tried.
        steps: diffusion steps.
        samples: posterior samples.
        solvers: each with its further arguments of the pipeline; those that draw give
            ``samples``, the others one image.
        seed: of the posterior samples, the same for every γ.
        batch_size: images denoised at once.
    """

    prompt: str
    guidance_scales: tuple[float, ...]
    steps: int
    samples: int
    solvers: tuple[tuple[DiffusionSolver, dict[str, Any]], ...]
    seed: int
    batch_size: int


def shipped_network() -> tuple[str, ReconstructionPipeline]:
    """The network that comes with the package, and its name in tables."""
    pipe = load_reconstructor()
    pipe.set_progress_bar_config(disable=True)
    return type(pipe.reconstructor).__name__, pipe


def reconstruct_all(
    kspace: Tensor,
    mask: Tensor,
    pipe: ContextMRIPipeline,
    sampling: Sampling,
    score: Score,
    bar: tqdm,
    *,
    weights: Mapping[str, float | None] | None = None,
) -> dict[str, Reconstruction]:
    """Every method on one slice, with coil maps from the undersampled slice itself.

    Args:
        kspace: ``(1, coils, ny, nx)``, zero where ``mask`` is.
        mask: ``(1, 1, ny, nx)`` bool.
        pipe: the prior.
        sampling: how it is sampled.
        score: by which BART's weight is chosen.
        bar: says which method runs.
        weights: BART's weight for each of its names, where it has been chosen already.

    Returns:
        Name to reconstruction. BART's are left out where it is not installed.
    """
    maps = estimate_coil_maps(kspace, mask, num_maps=1)  # BART and the others take one set
    results: dict[str, Reconstruction] = {}
    for key, name in BASELINE_NAMES.items():
        bar.set_postfix_str(name)
        started = time.perf_counter()
        images = BASELINES[key](sense_operator(mask, maps), kspace)
        results[name] = Reconstruction(images, maps, time.perf_counter() - started)
    name, network = shipped_network()
    bar.set_postfix_str(name)
    started = time.perf_counter()
    output: Any = network(kspace, mask, coil_maps=maps)
    results[name] = Reconstruction(output.images, maps, time.perf_counter() - started)
    if shutil.which("bart"):
        bar.set_postfix_str("BART")
        choices = {
            "BART L1-wavelet, its own maps": bart_coil_maps(kspace, mask),
            "BART L1-wavelet, our maps": maps,
        }
        for name, bart_maps in choices.items():
            weight = None if weights is None else weights[name]
            tried = BART_LAMBDAS if weight is None else (weight,)
            results[name] = bart_l1_wavelet(kspace, mask, bart_maps, score, tried)
    for solver, call in sampling.solvers:
        for gamma in sampling.guidance_scales:
            bar.set_postfix_str(f"{type(solver).__name__} γ = {gamma:g}")
            results.update(_posterior(kspace, mask, maps, pipe, sampling, (solver, call), gamma))
    return results


def _posterior(
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    pipe: ContextMRIPipeline,
    sampling: Sampling,
    solver_and_call: tuple[DiffusionSolver, dict[str, Any]],
    gamma: float,
) -> dict[str, Reconstruction]:
    """An estimate, or one posterior sample (each of those drawn) and the mean of all of them."""
    solver, call = solver_and_call
    estimate = solver.deterministic
    samples = 1 if estimate else sampling.samples
    started = time.perf_counter()
    output: Any = pipe(
        kspace,
        mask,
        sampling.prompt if gamma else None,
        coil_maps=maps,
        guidance_scale=gamma,
        num_inference_steps=sampling.steps,
        solver=solver,
        generator=torch.Generator().manual_seed(sampling.seed),
        num_samples=samples,
        batch_size=sampling.batch_size,
        **call,
    )
    seconds = time.perf_counter() - started
    start = f" from {call['image']}" if "image" in call else ""
    name = f"{type(solver).__name__}{start} γ = {gamma:g}"
    if samples == 1:
        name += "" if estimate else ", one sample"
        return {name: Reconstruction(output.images.cpu(), maps, seconds)}
    each = seconds / samples
    return {
        f"{name}, one sample": Reconstruction(output.samples[0].cpu(), maps, each),
        f"{name}, mean of {samples}": Reconstruction(
            output.images.cpu(), maps, seconds, std=output.std[0].cpu()
        ),
    }


def bart_coil_maps(kspace: Tensor, mask: Tensor) -> Tensor:
    """BART's ESPIRiT with a calibration region as long in the readout as the scan allows.

    Args:
        kspace: ``(1, coils, ny, nx)``.
        mask: ``(1, 1, ny, nx)`` bool.

    Returns:
        ``(1, coils, ny, nx)``; BART's other options at their defaults.
    """
    region = find_calibration_region(mask, max_size=(_BART_READOUT, _BART_READOUT // 2))
    size = [part.stop - part.start for part in region]
    kernel = [min(_MAX_KERNEL, n // 2) for n in size]
    options = ["-m1", "-r", f"{size[0]}:{size[1]}:1", "-k", f"{kernel[0]}:{kernel[1]}:1"]
    return _bart(["ecalib", *options], kspace)


def bart_l1_wavelet(
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    score: Score,
    tried: Sequence[float],
    *,
    iterations: int = _BART_ITERATIONS,
) -> Reconstruction:
    """``bart pics`` with an L1-wavelet penalty, its weight the best of those that are tried.

    The weight is chosen for each scan by ``score``, which a user could not compute: this favours
    BART. The time is that of one run.
    """
    best: Reconstruction | None = None
    best_score = -np.inf
    for weight in tried:
        options = ["-S", f"-i{iterations}", "-R", f"W:3:0:{weight:g}"]
        started = time.perf_counter()
        images = _bart(["pics", *options], kspace, maps)[:, 0]
        seconds = time.perf_counter() - started
        # Where a size is not a multiple of four, BART's Fourier transform has another sign.
        images = images * _phase_to(CartesianSense(mask, maps)(images), kspace)
        value = score(images, maps)
        if best is None or value > best_score:
            best, best_score = Reconstruction(images, maps, seconds, chosen=weight), value
    assert best is not None
    return best


def _bart(command: Sequence[str], *inputs: Tensor) -> Tensor:
    """Run one BART tool on ``(1, coils, ny, nx)`` arrays; what it writes, in the same shape."""
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, value in enumerate(inputs):
            array = value[0].permute(1, 2, 0)[:, :, None].cpu().numpy().astype("<c8")
            path = Path(folder, f"in{number}")
            path.with_suffix(".hdr").write_text(
                "# Dimensions\n" + " ".join(map(str, array.shape)) + "\n", encoding="ascii"
            )
            path.with_suffix(".cfl").write_bytes(array.tobytes(order="F"))
            names.append(str(path))
        written = Path(folder, "out")
        subprocess.run(
            ["bart", *command, *names, str(written)], check=True, capture_output=True, text=True
        )
        array = np.array(read_cfl(written.with_suffix(".cfl")))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)[None].copy())


def _phase_to(predicted: Tensor, kspace: Tensor) -> Tensor:
    """The unit complex number that turns the prediction to the measurement."""
    return torch.vdot(predicted.flatten(), kspace.flatten()).sgn()


def scores(images: Tensor, reference: Tensor) -> dict[str, float]:
    """PSNR, SSIM and NMSE of each ``(count, ny, nx)`` against one ``(1, ny, nx)``, averaged."""
    values = image_metrics(images, reference.expand(len(images), -1, -1))
    return {name: float(values[name].mean()) for name in _METRICS}


def data_error(images: Tensor, maps: Tensor, kspace: Tensor, where: Tensor) -> float:
    """``‖M (F S x − y)‖ / ‖M y‖`` at the samples ``where``, averaged over the images.

    Args:
        images: ``(count, ny, nx)``.
        maps: ``(1, coils, ny, nx)`` that they were made with.
        kspace: ``(1, coils, ny, nx)``.
        where: ``(1, 1, ny, nx)`` bool, ``M``.
    """
    y = kspace * where
    error = CartesianSense(where, maps)(images) - y
    return float((error.flatten(1).norm(dim=1) / y.norm()).mean())
