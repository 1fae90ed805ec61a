"""Reconstruction of one measurement by every method."""

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
from benchmarks.common.images import Score, SliceResult
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
class PriorSettings:
    """Settings of the prior.

    Attributes:
        prompt: Prompt of the slice.
        guidance_scales: Guidance scales γ.
        steps: Diffusion steps.
        samples: Number of posterior samples.
        solvers: Solvers, each with further arguments of the pipeline call. Solvers that sample
            draw ``samples`` images, deterministic ones return one.
        seed: Random seed of the posterior samples, the same for every γ.
        batch_size: Images denoised at once.
    """

    prompt: str
    guidance_scales: tuple[float, ...]
    steps: int
    samples: int
    solvers: tuple[tuple[DiffusionSolver, dict[str, Any]], ...]
    seed: int
    batch_size: int


def shipped_network() -> tuple[str, ReconstructionPipeline]:
    """Return the shipped reconstruction network, preceded by its name in tables."""
    pipe = load_reconstructor()
    pipe.set_progress_bar_config(disable=True)
    return type(pipe.reconstructor).__name__, pipe


def reconstruct_all(
    kspace: Tensor,
    mask: Tensor,
    pipe: ContextMRIPipeline,
    sampling: PriorSettings,
    score: Score,
    bar: tqdm,
    *,
    weights: Mapping[str, float | None] | None = None,
) -> dict[str, SliceResult]:
    """Reconstruct one slice by every method, with coil maps from the undersampled slice.

    Args:
        kspace: k-space of shape ``(1, coils, ny, nx)``, zero outside ``mask``.
        mask: Sampling mask of shape ``(1, 1, ny, nx)``, bool.
        pipe: Diffusion prior.
        sampling: Settings of the prior.
        score: Score by which BART's weight is chosen.
        bar: Progress bar that shows the running method.
        weights: BART's weight by method name, if it has been chosen already.

    Returns:
        Reconstructions by method name, without BART's if BART is not installed.
    """
    maps = estimate_coil_maps(kspace, mask, num_maps=1)  # not every method accepts two sets
    results: dict[str, SliceResult] = {}
    for key, name in BASELINE_NAMES.items():
        bar.set_postfix_str(name)
        started = time.perf_counter()
        images = BASELINES[key](sense_operator(mask, maps), kspace)
        results[name] = SliceResult(images, maps, time.perf_counter() - started)
    name, network = shipped_network()
    bar.set_postfix_str(name)
    started = time.perf_counter()
    output = network(kspace, mask, coil_maps=maps)
    results[name] = SliceResult(output.images, maps, time.perf_counter() - started)
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
    sampling: PriorSettings,
    solver_and_call: tuple[DiffusionSolver, dict[str, Any]],
    gamma: float,
) -> dict[str, SliceResult]:
    """Return a deterministic estimate, or the posterior samples and their mean."""
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
        return {name: SliceResult(output.images.cpu(), maps, seconds)}
    drawn, spread = output.samples, output.std
    assert drawn is not None
    assert spread is not None
    each = seconds / samples
    return {
        f"{name}, one sample": SliceResult(drawn[0].cpu(), maps, each),
        f"{name}, mean of {samples}": SliceResult(
            output.images.cpu(), maps, seconds, std=spread[0].cpu()
        ),
    }
