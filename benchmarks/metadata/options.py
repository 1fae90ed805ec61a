"""Command-line options of the study."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from benchmarks.common.arguments import parse, prior_parser
from benchmarks.metadata.plan import LADDER_MASKS, MAX_SCANS
from benchmarks.metadata.text_to_image import CONTRASTS, GROUP
from ctxrecon.solvers import parse_solver

NAME = "metadata"
"""Prefix of the files of the study."""
EXPERIMENTS = (
    "guidance",
    "people",
    "removal",
    "demographics",
    "pathology",
    "field_strength",
    "wrong_prompt",
    "evidence",
    "text_to_image",
)
_TAKEN = ("images", "evidence")
"""Suffixes reserved for other kinds of rows."""


def parse_args(argv: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = prior_parser("metadata", description, several=True)
    add, spacings = parser.add_argument, ("quadratic", "scheduler")
    gammas, factors = [0.0, 1.0, 2.0, 3.0, 5.0], list(LADDER_MASKS)
    add("--label_volumes", type=Path, nargs="*", default=[], help="Label volumes of test people.")
    add("--people", type=Path, help="Folder written by ctxrecon prepare images.")
    add(
        "--experiments",
        nargs="+",
        choices=EXPERIMENTS,
        help="Experiments (default: all; people only with --people, which evidence also uses).",
    )
    add("--name", default="", help=f"Write {NAME}_NAME.*, separate from other settings.")
    add("--scans", type=int, default=128, help="Slices in each cell.")
    add("--images", type=int, default=32, help="Images drawn of each contrast.")
    add("--resolution", type=int, default=128, help="Matrix size.")
    add("--guidance_scales", type=float, nargs="+", default=gammas, help="Guidance scales γ.")
    add("--guidance_scale", type=float, default=1.0, help="γ of experiments with a single one.")
    add(
        "--prompt_scales",
        type=float,
        nargs="+",
        help="γ of removal, demographics and pathology (default: --guidance_scales).",
    )
    add(
        "--accelerations",
        type=int,
        nargs="+",
        choices=list(LADDER_MASKS),
        default=factors,
        help="Acceleration of uniform1d in removal, demographics, pathology and evidence.",
    )
    add("--timesteps", choices=spacings, default="quadratic", help="Spacing of the timesteps.")
    add("--steps", type=int, default=10, help="Diffusion steps.")
    add("--samples", type=int, default=1, help="Posterior samples to average.")
    add("--solver", default="pnp_admm", help="Solver, such as dds:data_weight=50.")
    add("--levels", type=int, default=10, help="Noise levels in evidence.")
    add("--true_maps", action="store_true", help="Use the simulated coil maps.")
    add("--report_only", action="store_true", help="Generate the tables of existing rows.")
    args = parse(parser, argv)
    parse_solver(args.solver)
    if args.batch_size < 1 or args.samples < 1 or not 2 <= args.scans <= MAX_SCANS:
        parser.error(f"expected --batch_size and --samples of 1 or more, --scans 2 to {MAX_SCANS}")
    if args.guidance_scale <= 0:
        parser.error("expected --guidance_scale above 0: γ = 0 is always measured as well")
    if not GROUP <= args.images <= MAX_SCANS // len(CONTRASTS):
        parser.error(f"expected --images from {GROUP} to {MAX_SCANS // len(CONTRASTS)}")
    args.guidance_scales = sorted({0.0, args.guidance_scale, *args.guidance_scales})
    given = args.guidance_scales if args.prompt_scales is None else args.prompt_scales
    args.prompt_scales = sorted({scale for scale in given if scale > 0}) or [args.guidance_scale]
    if args.experiments is None:
        args.experiments = [name for name in EXPERIMENTS if name != "people" or args.people]
    if "people" in args.experiments and not args.people:
        parser.error("expected --people, a set of ctxrecon prepare images, for people")
    if not re.fullmatch(r"[a-z0-9]*", args.name) or args.name in _TAKEN:
        parser.error(f"expected --name of small letters and digits, none of {', '.join(_TAKEN)}")
    return args


def stem(args: argparse.Namespace) -> str:
    """Return the name of the record, with which the names of all other files begin."""
    return f"{NAME}_{args.name}" if args.name else NAME


def drawn_gammas(args: argparse.Namespace) -> list[float]:
    """Return the guidance scales γ of the images drawn from prompts."""
    return sorted({0.0, 1.0, args.guidance_scale})
