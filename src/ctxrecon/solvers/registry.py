"""Solvers by name."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from ctxrecon.errors import InputError
from ctxrecon.solvers.base import DiffusionSolver, Solver, as_solver
from ctxrecon.solvers.daps import DAPS
from ctxrecon.solvers.ddnm import DDNM
from ctxrecon.solvers.dds import DDS
from ctxrecon.solvers.dds3d import DDS3D
from ctxrecon.solvers.diffpir import DiffPIR
from ctxrecon.solvers.dps import DPS
from ctxrecon.solvers.pigdm import PiGDM
from ctxrecon.solvers.pnp import PnPADMM, PnPHQS
from ctxrecon.solvers.predictor_corrector import ScoreMRI
from ctxrecon.solvers.red_diff import REDDiff

SOLVERS: dict[str, type[Any]] = {
    "dds": DDS,
    "ddnm": DDNM,
    "dps": DPS,
    "pigdm": PiGDM,
    "diffpir": DiffPIR,
    "red_diff": REDDiff,
    "daps": DAPS,
    "pnp_admm": PnPADMM,
    "pnp_hqs": PnPHQS,
    "score_mri": ScoreMRI,
    "dds3d": DDS3D,
}
"""Name -> class, a :class:`DiffusionSolver` whose dataclass fields are its options."""


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
    chosen = SOLVERS.get(solver.lower())
    if chosen is None:
        raise InputError(f"unknown solver {solver!r}: expected one of {', '.join(SOLVERS)}")
    known = [field.name for field in fields(chosen)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(
            f"the solver {solver.lower()} has no option {', '.join(unknown)}: "
            f"expected some of {', '.join(known)}"
        )
    return chosen(**options)


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """A name and its options: ``"dds:data_weight=50:image=l1_wavelet"``, numbers or words.

    Raises:
        InputError: an option without a value, or with another kind of one.
    """
    if not isinstance(text, str):
        raise InputError(f"expected a name with options as text, got {type(text).__name__}")
    name, *pairs = text.split(":")
    options: dict[str, Any] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if value.isidentifier():
            options[key] = {"true": True, "false": False}.get(value.lower(), value)
            continue
        try:
            options[key] = json.loads(value)
        except (ValueError, RecursionError):
            raise InputError(
                f"expected the options of {name} as {name}:option=number:option=number, "
                f"got {text!r}"
            ) from None
    return name, options


def parse_solver(text: str) -> DiffusionSolver:
    """Make a solver from a name with options, such as ``"dds:data_weight=50:eta=0.5"``.

    Raises:
        InputError: what :func:`split_options` and :func:`make_solver` refuse.
    """
    name, options = split_options(text)
    return make_solver(name, **options)
