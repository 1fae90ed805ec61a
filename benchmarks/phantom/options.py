"""Options of the study, and the names of its methods."""

from __future__ import annotations

import argparse

from benchmarks.common.arguments import held_out_parser, parse
from benchmarks.common.methods import BASELINE_NAMES, shipped_network
from ctxrecon.solvers import Solver, parse_solver

METRICS = {"psnr": 2, "ssim": 4, "nmse": 4}
"""Metrics with the digits that tables show."""


def parse_args(argv: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """The options of the study."""
    parser = held_out_parser("phantom", description)
    parser.add_argument("--scans", type=int, default=48)
    parser.add_argument("--guidance_scales", type=float, nargs="+", default=[0.0, 1.0, 2.0, 3.0])
    parser.add_argument("--timesteps", choices=("quadratic", "scheduler"), default="quadratic")
    parser.add_argument("--steps", type=int, default=30, help="diffusion steps")
    parser.add_argument("--samples", type=int, default=1, help="posterior samples to average")
    parser.add_argument(
        "--solvers", nargs="+", default=["pnp_admm", "dds"], help="such as dds:data_weight=50"
    )
    parser.add_argument("--true_maps", action="store_true", help="use the simulated coil maps")
    args = parse(parser, argv)
    if args.batch_size < 1 or args.scans < 2:
        parser.error("expected --batch_size of 1 or more and --scans of 2 or more")
    return args


def method_name(solver: Solver, gamma: float) -> str:
    """The method's name in the table."""
    return f"{type(solver).__name__} γ = {gamma:g}"


def shuffled_name(solver: Solver) -> str:
    """The name of the solver with the prompts of other scans."""
    return f"{method_name(solver, 1.0)}, prompts shuffled"


def names_of(args: argparse.Namespace) -> list[str]:
    """Every method in the order of the table."""
    names = [*BASELINE_NAMES.values(), shipped_network()[0]]
    for solver in map(parse_solver, args.solvers):
        names += [method_name(solver, gamma) for gamma in args.guidance_scales]
        names.append(shuffled_name(solver))
    return names
