"""Diffusion prior on the test scans, alone and started from a synthetic T2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.cross_modal.scans import TestScans
from ctxrecon.pipelines import ContextMRIPipeline

TITLE, STARTED = "prior", "prior, from the synthetic T2"


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


def _run(prior: ContextMRIPipeline, scans: TestScans, batch_size: int, **call: Any) -> Tensor:
    prompts = [scan.metadata[0].to_prompt() for scan in scans.moved]
    generator = torch.Generator().manual_seed(0)
    return prior(
        scans.kspace,
        scans.masks,
        prompt=prompts,
        generator=generator,
        batch_size=batch_size,
        **call,
    ).images.cpu()
