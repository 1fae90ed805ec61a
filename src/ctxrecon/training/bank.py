"""Bank of anatomies for training on phantoms: procedural ones, and slices of label volumes.

    ctxrecon prepare bank --output runs/bank.npz --brains 800 --knees 2500 \
        --label_volumes DIR/training_seg_0*.nii.gz --label_slices 3000

``python -m ctxrecon.training.bank`` and, in a checkout, ``python training/build_bank.py`` do the
same.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ctxrecon.phantom.build import build_bank
from ctxrecon.phantom.labels import load_label_volume
from ctxrecon.training.config import MAX_RESOLUTION, SEED, UsageError, Whole
from ctxrecon.training.folders import check_output
from ctxrecon.training.parser import TrainingParser
from ctxrecon.training.script import run_script


def parse_args(argv: Sequence[str] | None = None, program: str | None = None) -> argparse.Namespace:
    """Parse a command line.

    Args:
        argv: Options; those of the process by default.
        program: Name of the command, for ``--help``.

    Raises:
        UsageError: If an option is unknown or its value is not valid.
    """
    parser = TrainingParser(description=__doc__.splitlines()[0], prog=program)
    parser.add_argument("--output", type=Path, required=True, help="the .npz file to write")
    parser.add_argument("--brains", type=Whole(0, 10**6), default=800, help="procedural brains")
    parser.add_argument("--knees", type=Whole(0, 10**6), default=2500, help="procedural knees")
    parser.add_argument(
        "--label_volumes",
        type=Path,
        nargs="*",
        default=[],
        help="NIfTI volumes of FreeSurfer labels",
    )
    parser.add_argument(
        "--label_slices", type=Whole(0, 10**6), default=3000, help="slices of the label volumes"
    )
    parser.add_argument(
        "--size", type=Whole(32, MAX_RESOLUTION), default=256, help="pixels along each side"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="random seed")
    parser.add_argument(
        "--no_demographics", action="store_true", help="procedural people of no age and sex"
    )
    parser.add_argument("--finding", help="that every procedural brain has, such as Mass")
    parser.add_argument(
        "--workers", type=Whole(1, 256), default=os.cpu_count() or 1, help="processes"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, program: str | None = None) -> None:
    """Draw every anatomy and write the bank.

    Args:
        argv: Options; those of the process by default.
        program: Name of the command, for ``--help``.
    """
    args = parse_args(argv, program)
    if not args.brains + args.knees + (args.label_slices if args.label_volumes else 0):
        raise UsageError("nothing to draw: give --brains, --knees or --label_volumes")
    check_output(args.output)
    for path in args.label_volumes:  # before hours of drawing
        load_label_volume(path)
    bank = build_bank(
        knees=args.knees,
        brains=args.brains,
        label_volumes=args.label_volumes,
        label_slices=args.label_slices,
        size=args.size,
        seed=args.seed,
        demographics=not args.no_demographics,
        finding=args.finding,
        workers=args.workers,
    )
    bank.save(args.output)
    print(f"{len(bank)} anatomies of {bank.labels.shape[1:]} in {args.output}")


if __name__ == "__main__":
    run_script(main)
