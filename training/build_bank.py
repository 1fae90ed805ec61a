"""Make a bank of anatomies for training: procedural ones, and slices of label volumes.

    python training/build_bank.py --output runs/bank.npz --brains 800 --knees 2500 \
        --label_volumes DIR/training_seg_0*.nii.gz --label_slices 3000
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ctxrecon.phantom import Anatomy, AnatomyBank, brain_anatomy, knee_anatomy
from ctxrecon.phantom.labels import anatomy_from_labels, load_label_volume
from ctxrecon.training import TrainingParser, UsageError, run_script
from ctxrecon.training.config import MAX_RESOLUTION, SEED, Whole
from ctxrecon.training.folders import check_output


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = TrainingParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--brains", type=Whole(0, 10**6), default=800, help="procedural brains")
    parser.add_argument("--knees", type=Whole(0, 10**6), default=2500, help="procedural knees")
    parser.add_argument("--label_volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--label_slices", type=Whole(0, 10**6), default=3000)
    parser.add_argument("--size", type=Whole(32, MAX_RESOLUTION), default=256)
    parser.add_argument("--seed", type=SEED, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Draw every anatomy and write the bank."""
    args = parse_args(argv)
    if not args.brains + args.knees + (args.label_slices if args.label_volumes else 0):
        raise UsageError("nothing to draw: give --brains, --knees or --label_volumes")
    check_output(args.output)
    for path in args.label_volumes:  # before hours of drawing
        load_label_volume(path)
    generator = torch.Generator().manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    def draws() -> Iterator[Callable[[], Anatomy]]:
        for _ in range(args.knees):
            yield partial(knee_anatomy, generator, size=args.size)
        for _ in range(args.brains):
            yield partial(brain_anatomy, generator, size=args.size)
        share = np.array_split(np.arange(args.label_slices), max(len(args.label_volumes), 1))
        for path, slices in zip(args.label_volumes, share, strict=False):
            volume = load_label_volume(path)
            for number in slices:
                # Half show the whole head, half a part of it at 1 mm after downsampling by two.
                whole = number % 2 == 0
                voxel = rng.uniform(0.82, 1.0) if whole else rng.uniform(0.42, 0.55)
                yield partial(
                    anatomy_from_labels,
                    volume,
                    float(rng.random()),
                    rng,
                    size=args.size,
                    voxel_mm=float(voxel),
                )

    people = list(range(args.knees + args.brains))
    for number, slices in enumerate(
        np.array_split(np.arange(args.label_slices), max(len(args.label_volumes), 1))
    ):
        if args.label_volumes:
            people += [args.knees + args.brains + number] * len(slices)
    total = args.knees + args.brains + (args.label_slices if args.label_volumes else 0)
    bank = AnatomyBank.build(tqdm(draws(), total=total, unit="anatomy"), people)
    bank.save(args.output)
    print(f"{len(bank)} anatomies of {bank.labels.shape[1:]} in {args.output}")


if __name__ == "__main__":
    run_script(main)
