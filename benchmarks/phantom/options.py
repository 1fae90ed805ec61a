"""Command-line options of the study and names of its methods."""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import held_out_parser, parse
from benchmarks.common.methods import BASELINE_NAMES, shipped_network
from ctxrecon.solvers import Solver, parse_solver

METRICS = {"psnr": 2, "ssim": 4, "nmse": 4}
"""Metrics and their decimal places in tables."""


def parse_args(argv: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = held_out_parser("phantom", description)
    add, spacings, solvers = parser.add_argument, ("quadratic", "scheduler"), ["pnp_admm", "dds"]
    gammas = [0.0, 1.0, 2.0, 3.0]
    add("--scans", type=int, default=48, help="Number of scans.")
    add("--guidance_scales", type=float, nargs="+", default=gammas, help="Guidance scales γ.")
    add("--timesteps", choices=spacings, default="quadratic", help="Spacing of the timesteps.")
    add("--steps", type=int, default=30, help="Diffusion steps.")
    add("--samples", type=int, default=1, help="Posterior samples to average.")
    add("--solvers", nargs="+", default=solvers, help="Solvers, such as dds:data_weight=50.")
    add("--true_maps", action="store_true", help="Use the simulated coil maps.")
    args = parse(parser, argv)
    if args.batch_size < 1 or args.scans < 2:
        parser.error("expected --batch_size of 1 or more and --scans of 2 or more")
    return args


def method_name(solver: Solver, gamma: float) -> str:
    """Return the name of a method in the table."""
    return f"{type(solver).__name__} γ = {gamma:g}"


def shuffled_name(solver: Solver) -> str:
    """Return the name of a solver with the prompts of other scans."""
    return f"{method_name(solver, 1.0)}, prompts shuffled"


def names_of(args: argparse.Namespace) -> list[str]:
    """Return the names of all methods in the order of the table."""
    names = [*BASELINE_NAMES.values(), shipped_network()[0]]
    for solver in map(parse_solver, args.solvers):
        names += [method_name(solver, gamma) for gamma in args.guidance_scales]
        names.append(shuffled_name(solver))
    return names
