"""Options of the study."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from benchmarks.common.arguments import parse, prior_parser
from benchmarks.metadata.plan import LADDER_MASKS, MAX_SCANS
from benchmarks.metadata.text_to_image import CONTRASTS, GROUP
from ctxrecon.solvers import parse_solver

NAME = "metadata"
"""Of the files of the study."""
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
"""Names of files that are another kind of rows."""


def parse_args(argv: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """The options of the study."""
    parser = prior_parser("metadata", description, several=True)
    parser.add_argument("--label_volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--people", type=Path, help="set of ctxrecon prepare images")
    parser.add_argument(
        "--experiments",
        nargs="+",
        choices=EXPERIMENTS,
        help="all by default, people if there is --people, which evidence takes too",
    )
    parser.add_argument(
        "--name", default="", help=f"writes {NAME}_NAME.* beside the files of other settings"
    )
    parser.add_argument("--scans", type=int, default=128, help="slices in each cell")
    parser.add_argument("--images", type=int, default=32, help="images drawn of each contrast")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument(
        "--guidance_scales", type=float, nargs="+", default=[0.0, 1.0, 2.0, 3.0, 5.0]
    )
    parser.add_argument("--guidance_scale", type=float, default=1.0, help="γ where it is fixed")
    parser.add_argument(
        "--prompt_scales",
        type=float,
        nargs="+",
        help="γ of removal, demographics and pathology; those of --guidance_scales by default",
    )
    parser.add_argument(
        "--accelerations",
        type=int,
        nargs="+",
        choices=list(LADDER_MASKS),
        default=list(LADDER_MASKS),
        help="of uniform1d in removal, demographics, pathology and evidence",
    )
    parser.add_argument("--timesteps", choices=("quadratic", "scheduler"), default="quadratic")
    parser.add_argument("--steps", type=int, default=10, help="diffusion steps")
    parser.add_argument("--samples", type=int, default=1, help="posterior samples to average")
    parser.add_argument("--solver", default="pnp_admm", help="such as dds:data_weight=50")
    parser.add_argument("--levels", type=int, default=10, help="of noise in evidence")
    parser.add_argument("--true_maps", action="store_true", help="use the simulated coil maps")
    parser.add_argument("--report_only", action="store_true", help="tables of the rows that exist")
    args = parse(parser, argv)
    parse_solver(args.solver)
    if args.batch_size < 1 or args.samples < 1 or not 2 <= args.scans <= MAX_SCANS:
        parser.error(f"expected --batch_size and --samples of 1 or more, --scans 2 to {MAX_SCANS}")
    if args.guidance_scale <= 0:
        parser.error("expected --guidance_scale above 0: γ = 0 is always measured beside it")
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
    """The name of the record, and the beginning of those of all other files."""
    return f"{NAME}_{args.name}" if args.name else NAME


def drawn_gammas(args: argparse.Namespace) -> list[float]:
    """γ of the images that are drawn from prompts."""
    return sorted({0.0, 1.0, args.guidance_scale})
