"""Build a bank of anatomies for training from procedural anatomies and label volumes.

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

from ctxrecon.errors import InputError
from ctxrecon.io import overwrites
from ctxrecon.phantom.build import build_bank
from ctxrecon.phantom.labels import load_label_volume
from ctxrecon.training.config import MAX_RESOLUTION, SEED, UsageError, Whole
from ctxrecon.training.folders import check_output
from ctxrecon.training.parser import TrainingParser
from ctxrecon.training.script import run_script

_LABEL_SLICES = 3000
"""Default number of slices of the label volumes, if there are any."""


def parse_args(argv: Sequence[str] | None = None, program: str | None = None) -> argparse.Namespace:
    """Parse a command line.

    Args:
        argv: Options (default: those of the process).
        program: Name of the command, for ``--help``.

    Raises:
        UsageError: If an option is unknown or its value is not valid.
    """
    parser = TrainingParser(description=__doc__.splitlines()[0], prog=program)
    parser.add_argument("--output", type=Path, required=True, help="Output file (.npz)")
    parser.add_argument("--brains", type=Whole(0, 10**6), default=800, help="Procedural brains")
    parser.add_argument("--knees", type=Whole(0, 10**6), default=2500, help="Procedural knees")
    parser.add_argument(
        "--label_volumes",
        type=Path,
        nargs="*",
        default=[],
        help="FreeSurfer label volumes (NIfTI)",
    )
    parser.add_argument(
        "--label_slices",
        type=Whole(1, 10**6),
        help=f"Slices of the label volumes (default: {_LABEL_SLICES}, with --label_volumes)",
    )
    parser.add_argument(
        "--size", type=Whole(32, MAX_RESOLUTION), default=256, help="Pixels along each side"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="Random seed")
    parser.add_argument(
        "--no_demographics", action="store_true", help="Draw procedural people without age and sex"
    )
    parser.add_argument("--finding", help="Finding of every procedural brain, such as Mass")
    parser.add_argument("--overwrite", action="store_true", help="Replace an existing output")
    parser.add_argument(
        "--workers", type=Whole(1, 256), default=os.cpu_count() or 1, help="Number of processes"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, program: str | None = None) -> None:
    """Draw every anatomy and write the bank.

    Args:
        argv: Options (default: those of the process).
        program: Name of the command, for ``--help``.
    """
    args = parse_args(argv, program)
    label_slices = args.label_slices
    if label_slices is None:
        label_slices = _LABEL_SLICES if args.label_volumes else 0
    if not args.brains + args.knees + label_slices:
        raise UsageError("nothing to draw: specify --brains, --knees or --label_volumes")
    if overwrites(args.output, args.label_volumes):
        raise InputError(f"--output {args.output} is one of the label volumes: use another name")
    if args.output.exists() and not args.overwrite:
        raise InputError(f"{args.output} already exists: use another name, or add --overwrite")
    check_output(args.output)
    for path in args.label_volumes:  # validate before hours of drawing
        load_label_volume(path)
    bank = build_bank(
        knees=args.knees,
        brains=args.brains,
        label_volumes=args.label_volumes,
        label_slices=label_slices,
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
