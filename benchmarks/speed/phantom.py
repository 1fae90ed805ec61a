"""Phantom slices per second, drawn from cached anatomies as in training.

python -m benchmarks.speed.phantom
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.record import write_record
from ctxrecon.phantom import AnatomyBank, PhantomSlices, brain_anatomy, knee_anatomy


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("speed.phantom", __doc__)
    add, output = parser.add_argument, RESULTS / "phantom_speed.json"
    add("--slices", type=int, default=2000, help="Number of slices.")
    add("--resolution", type=int, default=128, help="Matrix size.")
    add("--workers", type=int, default=2, help="Worker processes.")
    add("--seed", type=int, default=0, help="Random seed.")
    add("--output", type=Path, default=output, help="JSON file.")
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    generator = torch.Generator().manual_seed(args.seed)
    draws = [draw(generator) for draw in (brain_anatomy, knee_anatomy) for _ in range(20)]
    data = PhantomSlices(
        AnatomyBank.build(draws), resolution=args.resolution, length=args.slices, seed=args.seed
    )
    loader = DataLoader(
        data,
        batch_size=16,
        num_workers=args.workers,
        collate_fn=list,
        persistent_workers=args.workers > 0,
    )
    for _ in loader:  # starts the workers and fills their caches
        break
    began = time.perf_counter()
    count = sum(len(batch) for batch in loader)
    rate = count / (time.perf_counter() - began)
    print(f"{rate:.0f} slices of {args.resolution}² per second with {args.workers} workers")
    results = {"slices_per_second": rate, "workers": args.workers, "resolution": args.resolution}
    write_record(args.output, results, args)


if __name__ == "__main__":
    main()
