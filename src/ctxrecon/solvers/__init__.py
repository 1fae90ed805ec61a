"""Solvers: reconstruct images from a diffusion prior and a measurement, with one signature."""

from __future__ import annotations

from ctxrecon.solvers.base import DiffusionSolver, Solver
from ctxrecon.solvers.daps import DAPS
from ctxrecon.solvers.ddim import ddim_sample
from ctxrecon.solvers.ddnm import DDNM
from ctxrecon.solvers.dds import DDS
from ctxrecon.solvers.dds3d import DDS3D
from ctxrecon.solvers.diffpir import DiffPIR
from ctxrecon.solvers.dps import DPS
from ctxrecon.solvers.pigdm import PiGDM
from ctxrecon.solvers.pnp import PnPADMM, PnPHQS
from ctxrecon.solvers.posterior_dds import PosteriorDDS
from ctxrecon.solvers.predictor_corrector import ScoreMRI
from ctxrecon.solvers.red_diff import REDDiff
from ctxrecon.solvers.registry import SOLVERS, make_solver, parse_solver
from ctxrecon.solvers.steps import (
    Noise,
    Step,
    check_timesteps,
    denoise,
    on_step_end,
    schedule,
)

__all__ = [
    "DAPS",
    "DDNM",
    "DDS",
    "DDS3D",
    "DPS",
    "SOLVERS",
    "DiffPIR",
    "DiffusionSolver",
    "Noise",
    "PiGDM",
    "PnPADMM",
    "PnPHQS",
    "PosteriorDDS",
    "REDDiff",
    "ScoreMRI",
    "Solver",
    "Step",
    "check_timesteps",
    "ddim_sample",
    "denoise",
    "make_solver",
    "on_step_end",
    "parse_solver",
    "schedule",
]
