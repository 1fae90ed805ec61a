"""Speed-up from several processes on a folder of scans, and agreement of their results.

    python -m benchmarks.speed.processes --output_dir benchmarks/results

``ctxrecon benchmark`` runs over simulated scans, in turn with one process and with several
processes of one thread each (torchrun on the CPU). Times include start-up. All columns of the rows
except for the seconds must agree to the last digit.
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
    add = parser.add_argument
    add("--scans", type=int, default=24, help="Number of scans.")
    add("--resolution", type=int, default=128, help="Matrix size.")
    add("--methods", default="pnp_admm", help="Methods of ctxrecon benchmark.")
    add("--steps", type=int, default=20, help="Diffusion steps.")
    add("--processes", type=int, nargs="+", default=[1, 2], help="Numbers of processes.")
    add("--turns", type=int, default=3, help="Runs with each number of processes.")
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
    """Return the page: a verdict and a row for each number of processes."""
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
    head = ["processes of one thread", "seconds", "speed-up", "same results"]
    most = max(found["times_faster"], key=int)
    same = "the same" if all(found["same_numbers"].values()) else "DIFFERENT"
    explanation = (
        f"{most} processes are {found['times_faster'][most]:.2f} times as fast as "
        f"{next(iter(found['seconds']))} and produce {same} results.\n\n"
        "`ctxrecon benchmark` on {scans} scans of {resolution}² by `{methods}` with {steps} steps, "
        "median seconds including start-up.\n".format(**found)
    )
    return "\n".join(["# Several processes\n", explanation, table(head, rows)])


def run(processes: int, arguments: list[str]) -> float:
    """Time ``ctxrecon benchmark`` with a number of processes of one thread, in seconds."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc_per_node", str(processes), "-m", "ctxrecon.cli", "benchmark"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    started = time.perf_counter()
    done = subprocess.run(launch + arguments, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{' '.join(launch + arguments)} failed:\n{done.stderr[:2000]}")
    return time.perf_counter() - started


def measured(path: Path) -> list[Row]:
    """Read the rows without their seconds, which differ from run to run."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader(file)
        ]


if __name__ == "__main__":
    main()
