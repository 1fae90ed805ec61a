"""What a T1 scan that is not aligned does for the reconstruction of a T2 scan.

    python -m benchmarks.cross_modal --bank runs/brains.npz \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

Networks of ``training/train_cross_modal.py`` (Wang et al., arXiv:2305.02774) are trained in folders
of ``--runs``, where a run that was stopped goes on, once for each of ``--seeds``. People of the
tests are in no bank; the T1 is that of the moved person. A figure in ``elastic`` pixels is of the
image's matrix.

- ``help``: Tables III to V: without the reference; with the raw T1 as channels; with the T1 aligned
  by the reconstruction loss and the ℓ1 distance of the synthetic image, as SAN does; the synthetic
  T2 without alignment; as printed, where the reference does not enter the reconstruction; with the
  synthetic T2 as a guide; and with the T1 of the person who has not moved, which none can beat. The
  synthetic image alone is scored in a column of its own (Table IV).
- ``ratios``: Tables I and II: three patterns at 25, 12.5 and 6.25 % of k-space.
- ``misalignment``: people who have not moved, and bent by 1, 2 and 4 pixels.
- ``rounds``: the alternating iteration with 1, 2 and 4 rounds, and each kind of step alone.
- ``complexity``: Table VI: parameters and operations; nothing is trained.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from benchmarks.common.arguments import settings_of
from benchmarks.common.paired import paired
from benchmarks.common.record import write_study
from benchmarks.common.training import slug, train_run
from benchmarks.cross_modal.complexity import complexity
from benchmarks.cross_modal.report import page
from benchmarks.cross_modal.scans import Scores, TestScans
from benchmarks.cross_modal.tables import (
    COMPLEXITY,
    TABLES,
    Entry,
    Table,
    Task,
    options_of,
    parse_args,
)
from ctxrecon.errors import InputError
from ctxrecon.phantom import Misalignment
from ctxrecon.pipelines import CrossModalPipeline, load_cross_modal


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in args.tables:
        path = args.output_dir / f"cross_modal_{name}.json"
        if name == COMPLEXITY:
            write_study(path, {"complexity": complexity()}, args, page)
            continue
        if args.bank is None:
            raise InputError(f"the table {name} trains networks: give --bank")
        results = study(TABLES[name], args)
        if not args.train_only:
            record = {"table": name, "settings": settings_of(args), "tasks": results}
            write_study(path, record, args, page)


def study(chosen: Table, args: argparse.Namespace) -> dict[str, Any]:
    """Scores of every entry on every task of a table."""
    results = {}
    for task in chosen.tasks:
        trained = {
            entry.title: (entry, pipes)
            for entry in chosen.entries
            if (pipes := train_all(entry, task, args))
        }
        if args.train_only:
            continue
        moved = bool(task.elastic)
        misalignment = Misalignment(
            args.rotation if moved else 0.0, args.translation if moved else 0.0, task.elastic
        )
        scans = TestScans.draw(
            args.test_scans, args.resolution, task, args.label_volumes, misalignment, args.seed
        )
        scores = {"zero-filled": scans.zero_filled()}
        for title, (entry, pipes) in trained.items():
            each = [scans.rate(pipe, still=entry.still) for pipe in pipes]
            scores[title] = {
                metric: np.mean([one[metric] for one in each], axis=0).tolist()
                for metric in each[0]
            }
        compared = scores.get(chosen.compared)
        results[str(task)] = {
            title: rate(own, compared, scans.people) for title, own in scores.items()
        }
    return results


def train_all(entry: Entry, task: Task, args: argparse.Namespace) -> list[CrossModalPipeline]:
    """The networks of an entry, one for each seed, or those that there are."""
    pipes = []
    for seed in args.seeds:
        where = f"{task.mask}_x{task.acceleration:g}_e{task.elastic:g}"
        folder = args.runs / f"{slug(entry.title)}_{where}_s{seed}"
        options = options_of(entry, task, seed, args)
        if train_run("train_cross_modal.py", options, folder, args.steps, test_only=args.test_only):
            pipe = load_cross_modal(folder / "pipeline")
            pipe.set_progress_bar_config(disable=True)
            pipes.append(pipe)
    return pipes


def rate(scores: Scores, compared: Scores | None, people: list[str]) -> dict[str, Any]:
    """Mean and standard deviation of every metric, and the PSNR less another's."""
    found: dict[str, Any] = {
        metric: {"mean": float(np.mean(values)), "deviation": float(np.std(values))}
        for metric, values in scores.items()
    }
    if compared is not None and compared is not scores:
        found["more"] = paired(scores["psnr"], compared["psnr"], people)
    return found


if __name__ == "__main__":
    main()
