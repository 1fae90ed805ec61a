"""How much faster two processes finish a folder of scans than one, and that the numbers agree.

    python -m benchmarks.speed.processes --output_dir benchmarks/results

``ctxrecon benchmark`` over simulated scans, from its start to its end, by turns with one process
and with several of one thread each (torchrun on the CPU). Rows are compared to their last digit,
all but their seconds.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common.arguments import parse, prior_parser
from benchmarks.common.held_out import held_out_scans
from benchmarks.common.record import Record, write_study
from ctxrecon.errors import InputError
from ctxrecon.evaluation import Row, table
from ctxrecon.io import write_scan


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = prior_parser("speed.processes", __doc__)
    parser.set_defaults(batch_size=1)
    parser.add_argument("--scans", type=int, default=24)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--methods", default="pnp_admm")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=3)
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    options = ["--methods", args.methods, "--steps", str(args.steps), "--accelerations", "4"]
    options += ["--dtype", args.dtype, "--batch-size", str(args.batch_size)]
    options += ["--seed", str(args.seed)] + (["--prior", args.prior] if args.prior else [])
    seconds: dict[int, list[float]] = {count: [] for count in args.processes}
    rows: dict[int, list[list[Row]]] = {count: [] for count in args.processes}
    with tempfile.TemporaryDirectory() as temporary:
        scans = Path(temporary) / "scans"
        scans.mkdir()
        for number, (_, scan) in enumerate(
            held_out_scans(args.scans, args.resolution, [], args.seed)
        ):
            write_scan(scans / f"{number:03d}.npz", scan)
        for turn in range(args.turns):
            for count in args.processes:
                out = Path(temporary) / f"turn{turn}_{count}"
                seconds[count].append(run(count, [str(scans), "--out", str(out), *options]))
                rows[count].append(measured(out / "rows.csv"))
    first = args.processes[0]
    medians = {count: statistics.median(values) for count, values in seconds.items()}
    # Every turn of every number of processes.
    same = {count: all(turn == rows[first][0] for turn in rows[count]) for count in args.processes}
    results = {
        **{
            name: getattr(args, name)
            for name in ("prior", "dtype", "batch_size", "scans", "resolution", "methods", "steps")
        },
        "seconds": seconds,
        "times_faster": {count: medians[first] / value for count, value in medians.items()},
        "same_numbers": same,
    }
    write_study(args.output_dir / "processes.json", results, args, page)


def page(record: Record) -> str:
    """What was reconstructed, and a row for each number of processes."""
    found = record["results"]
    rows = [
        [
            count,
            f"{statistics.median(seconds):.1f}",
            f"{found['times_faster'][count]:.2f}",
            "yes" if found["same_numbers"][count] else "NO",
        ]
        for count, seconds in found["seconds"].items()
    ]
    head = ["processes of one thread", "seconds", "times faster", "same numbers"]
    explanation = "{scans} scans of {resolution}², {methods}, {steps} steps:\n".format(**found)
    return "\n".join(["# Several processes\n", explanation, table(head, rows)])


def run(processes: int, arguments: list[str]) -> float:
    """Seconds of ``ctxrecon benchmark`` with so many processes of one thread."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc_per_node", str(processes), "-m", "ctxrecon.cli", "benchmark"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    started = time.perf_counter()
    done = subprocess.run(launch + arguments, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{' '.join(launch + arguments)} failed:\n{done.stderr[:2000]}")
    return time.perf_counter() - started


def measured(path: Path) -> list[Row]:
    """The rows without what differs from run to run."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader(file)
        ]


if __name__ == "__main__":
    main()
