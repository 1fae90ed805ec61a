"""Diffusion prior on the test scans: alone, started from a synthetic T2, and drawn to it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.cross_modal.scans import TestScans
from ctxrecon.operators import CartesianSense, Identity, StackedOperator
from ctxrecon.pipelines import ContextMRIPipeline

TITLE, STARTED = "prior", "prior, from the synthetic T2"
PROXIMAL = "prior, near the synthetic T2"


def alone(prior: ContextMRIPipeline, scans: TestScans, batch_size: int) -> Tensor:
    """Reconstruct with the prior's default solver from data and prompt, without a reference."""
    return _run(prior, scans, batch_size)


def started(
    prior: ContextMRIPipeline, scans: TestScans, synthetic: Tensor, strength: float, batch_size: int
) -> Tensor:
    """Reconstruct by DDS started from ``x_t = √ᾱ_t x_G + √(1−ᾱ_t) z``.

    Args:
        prior: Diffusion prior.
        scans: Test scans.
        synthetic: Synthetic images ``x_G``, ``(scans, n, n)``, complex64.
        strength: Fraction of the diffusion that remains at ``t``.
        batch_size: Images denoised at once.
    """
    return _run(prior, scans, batch_size, solver="dds", image=synthetic, strength=strength)


def near(
    prior: ContextMRIPipeline, scans: TestScans, synthetic: Tensor, weight: float, batch_size: int
) -> Tensor:
    """Reconstruct with the default solver and the data term ``‖A x − y‖² + λ ‖x − x_G‖²``.

    Args:
        prior: Diffusion prior.
        scans: Test scans.
        synthetic: Synthetic images ``x_G``, ``(scans, n, n)``, complex64.
        weight: Weight ``λ`` of the proximal term.
        batch_size: Images denoised at once.
    """
    root = weight**0.5
    images = Identity((len(synthetic), *synthetic.shape[1:]))
    operator = StackedOperator(CartesianSense(scans.masks), root * images)
    data = operator.join(scans.kspace, root * synthetic)
    return _run(prior, scans, batch_size, data, operator=operator)


def _run(
    prior: ContextMRIPipeline,
    scans: TestScans,
    batch_size: int,
    samples: Tensor | None = None,
    **call: Any,
) -> Tensor:
    """Reconstruct all scans, or other samples of them that ``operator`` explains."""
    prompts = [scan.metadata[0].to_prompt() for scan in scans.moved]
    generator = torch.Generator().manual_seed(0)
    return prior(
        scans.kspace if samples is None else samples,
        scans.masks if samples is None else None,
        prompt=prompts,
        generator=generator,
        batch_size=batch_size,
        **call,
    ).images.cpu()
