"""Solvers: a diffusion prior and a measurement in, an image out, one signature for all."""

from __future__ import annotations

from ctxrecon.solvers.base import Solver, ddim_sample
from ctxrecon.solvers.dds import DDS

__all__ = ["DDS", "Solver", "ddim_sample"]
