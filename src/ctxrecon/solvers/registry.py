"""Solvers by name."""

from __future__ import annotations

from typing import Any

from ctxrecon.errors import InputError
from ctxrecon.options import split_options
from ctxrecon.registry import Registry
from ctxrecon.solvers.base import DiffusionSolver, Solver, as_solver
from ctxrecon.solvers.daps import DAPS
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

SOLVERS: Registry[type[Any]] = Registry("solver")
"""Name -> class, a :class:`DiffusionSolver` whose dataclass fields are its options."""

SOLVERS.register("dds", DDS, title="DDS")
SOLVERS.register("posterior_dds", PosteriorDDS, title="posterior DDS")
SOLVERS.register("ddnm", DDNM, title="DDNM")
SOLVERS.register("dps", DPS, title="DPS")
SOLVERS.register("pigdm", PiGDM, title="ΠGDM")
SOLVERS.register("diffpir", DiffPIR, title="DiffPIR")
SOLVERS.register("red_diff", REDDiff, title="RED-diff")
SOLVERS.register("daps", DAPS, title="DAPS")
SOLVERS.register("pnp_admm", PnPADMM, title="PnP-ADMM")
SOLVERS.register("pnp_hqs", PnPHQS, title="PnP-HQS")
SOLVERS.register("score_mri", ScoreMRI, title="Score-MRI")
SOLVERS.register("dds3d", DDS3D, title="DDS-3D")


def make_solver(solver: str | Solver, **options: Any) -> DiffusionSolver:
    """Make a solver from its name, or check one that is made.

    Args:
        solver: a name of :data:`SOLVERS`, in any case, or a solver. A
            :class:`~ctxrecon.solvers.DiffusionSolver` is returned as it is; whatever else can be
            called as a :class:`~ctxrecon.solvers.Solver` gets the default of each trait.
        **options: of the solver, such as ``data_weight=5.0``; not with a solver that is made.

    Returns:
        The solver.

    Raises:
        InputError: a name or an option that there is not, a class, options for a solver that is
            made, or something that cannot be called as a solver is.
    """
    if not isinstance(solver, str):
        if isinstance(solver, type) or not callable(solver):
            given = solver.__name__ if isinstance(solver, type) else type(solver).__name__
            raise InputError(
                f"expected a solver's name or a solver such as DDS(), got {given}: give one of "
                f"{', '.join(SOLVERS)}"
            )
        if options:
            raise InputError(
                f"the solver {type(solver).__name__} is made already: give {', '.join(options)} "
                "where it is made, or its name here"
            )
        return as_solver(solver)
    made: DiffusionSolver = SOLVERS.make(solver, options)
    return made


def parse_solver(text: str) -> DiffusionSolver:
    """Make a solver from a name with options, such as ``"dds:data_weight=50:eta=0.5"``.

    Raises:
        InputError: what :func:`split_options` and :func:`make_solver` refuse.
    """
    name, options = split_options(text)
    return make_solver(name, **options)
