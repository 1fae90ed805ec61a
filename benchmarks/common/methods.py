"""Every method on one measurement."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.bart import BART_LAMBDAS, bart_coil_maps, bart_l1_wavelet
from benchmarks.common.images import Reconstruction, Score
from ctxrecon.baselines import BASELINES
from ctxrecon.coils import estimate_coil_maps
from ctxrecon.operators import sense_operator
from ctxrecon.output import ReconstructionOutput
from ctxrecon.pipelines import ContextMRIPipeline, ReconstructionPipeline, load_reconstructor
from ctxrecon.solvers import DiffusionSolver

BASELINE_NAMES = {
    "zero_filled": "zero-filled",
    "cg_sense": "CG-SENSE",
    "l1_wavelet": "L1-wavelet",
    "total_variation": "TV",
}


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
    output = network(kspace, mask, coil_maps=maps)
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
    output: ReconstructionOutput[Tensor] = pipe(
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
    drawn, spread = output.samples, output.std
    assert drawn is not None
    assert spread is not None
    each = seconds / samples
    return {
        f"{name}, one sample": Reconstruction(drawn[0].cpu(), maps, each),
        f"{name}, mean of {samples}": Reconstruction(
            output.images.cpu(), maps, seconds, std=spread[0].cpu()
        ),
    }
