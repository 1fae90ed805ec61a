"""Time to draw a mask from each learned sampler on the CPU, after set-up.

    python -m benchmarks.speed.masks

One mask of 320 × 320 at a time, lines and single points; the median of many draws. The network's
probabilities, which do not change between masks, are computed in advance.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.arguments import RESULTS, parse, settings_of, study_parser
from benchmarks.common.record import write_record
from ctxrecon.masks.learned import LOUPE, PatternGenerator, PerContrastSampler, Sampler


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("speed.masks", __doc__)
    parser.add_argument("--size", type=int, default=320, help="Matrix size.")
    parser.add_argument("--acceleration", type=float, default=8.0, help="Acceleration factor.")
    parser.add_argument("--draws", type=int, default=200, help="Number of draws.")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads.")
    parser.add_argument("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    return parse(parser, argv)


def median_ms(sampler: Sampler, acceleration: float, draws: int) -> float:
    """Return the median time of a draw in ms."""
    sampler.eval()
    generator = torch.Generator().manual_seed(0)
    sampler(acceleration, generator=generator)  # computes the probabilities
    seconds = []
    for _ in range(draws):
        started = time.perf_counter()
        sampler(acceleration, generator=generator)
        seconds.append(time.perf_counter() - started)
    return 1e3 * float(np.median(seconds))


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    shape, acceleration = (args.size, args.size), args.acceleration
    found = {}
    for lines, kind in ((True, "lines"), (False, "points")):
        samplers: dict[str, Sampler] = {
            "LOUPE": LOUPE(shape, acceleration, lines=lines),
            "pattern generator": PatternGenerator(shape, lines=lines),
            "five contrasts": PerContrastSampler(shape, 5, acceleration, lines=lines),
        }
        for name, sampler in samplers.items():
            found[f"{name}, {kind}"] = median_ms(sampler, acceleration, args.draws)
            print(f"{name}, {kind}: {found[f'{name}, {kind}']:.3f} ms")
    results = {"settings": settings_of(args), "median_ms": found}
    write_record(args.output_dir / "sampler_speed.json", results, args, seed=0)


if __name__ == "__main__":
    main()
