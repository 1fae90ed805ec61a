"""Downstream tasks on reconstructed images: T2* maps, and the foreground they are judged on."""

from __future__ import annotations

from ctxrecon.tasks.decays import LONGEST_T2_STAR, simulate_decays
from ctxrecon.tasks.entropy import KSpaceStatistics, SampleEntropies, marginal_entropy
from ctxrecon.tasks.foreground import foreground_mask
from ctxrecon.tasks.t2star import T2StarMLP, fit_t2star, train_t2star_mlp

__all__ = [
    "LONGEST_T2_STAR",
    "KSpaceStatistics",
    "SampleEntropies",
    "T2StarMLP",
    "fit_t2star",
    "foreground_mask",
    "marginal_entropy",
    "simulate_decays",
    "train_t2star_mlp",
]
