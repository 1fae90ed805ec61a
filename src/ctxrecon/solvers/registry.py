"""Registry of the solvers by name."""

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
"""Solver classes by name; each is a :class:`DiffusionSolver` with its options as fields."""

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
    """Make a solver from its name, or validate an existing one.

    Example:
        >>> from ctxrecon.solvers import make_solver
        >>> make_solver("dds", data_weight=10.0).data_weight
        10.0

    Args:
        solver: Name in :data:`SOLVERS`, in upper or lower case, or a solver. A
            :class:`~ctxrecon.solvers.DiffusionSolver` is returned unchanged; any other callable
            with the signature of :class:`~ctxrecon.solvers.Solver` gets the default traits.
        **options: Options of the solver, such as ``data_weight=5.0``; only together with a name.

    Returns:
        The solver.

    Raises:
        InputError: If the name or an option is unknown, ``solver`` is a class or cannot be called
            like a solver, or options are passed with an existing solver.
    """
    if not isinstance(solver, str):
        if isinstance(solver, type) or not callable(solver):
            given = solver.__name__ if isinstance(solver, type) else type(solver).__name__
            raise InputError(
                f"expected a solver's name or a solver such as DDS(), got {given}: pass one of "
                f"{', '.join(SOLVERS)}"
            )
        if options:
            raise InputError(
                f"the solver {type(solver).__name__} is made already: pass {', '.join(options)} to "
                "its constructor, or pass its name here"
            )
        return as_solver(solver)
    made: DiffusionSolver = SOLVERS.make(solver, options)
    return made


def parse_solver(text: str) -> DiffusionSolver:
    """Make a solver from a name with options, such as ``"dds:data_weight=50:eta=0.5"``.

    Example:
        >>> from ctxrecon.solvers import parse_solver
        >>> parse_solver("dds:data_weight=50:eta=0.5").eta
        0.5

    Raises:
        InputError: If the text is malformed, or the name or an option is unknown.
    """
    name, options = split_options(text)
    return make_solver(name, **options)
