"""Reconstruction of an undersampled T2 scan with an unaligned T1 scan as reference.

    python -m benchmarks.cross_modal --bank runs/brains.npz \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

Networks are trained by ``training/train_cross_modal.py`` (Wang et al., arXiv:2305.02774) in folders
of ``--runs``, once for each of ``--seeds``; stopped runs resume. Test people occur in no bank, and
the T1 scan shows the person after a motion. A motion of 1 px shifts by at most one pixel of the
image matrix along each axis, deforms by at most one more, and rotates by N(0, 1°).

- ``help`` (Tables III to V): no reference; raw T1 as input channels; raw T1 as the fully sampled
  first contrast of the recurrent network (HRU-Net); T1 aligned by the reconstruction loss and the
  ℓ1 distance of the synthetic image, as in SAN; synthetic T2 without alignment; the method as
  printed, where the reference does not enter the reconstruction; the synthetic T2 as a guide; and,
  as an upper bound, the T1 of the person without motion. Entries with "known motion first" start
  from an aligner that was trained alone on the true displacement of other pairs, which the paper
  does not do. The synthetic image is also scored alone (Table IV). The diffusion prior runs with
  its default solver, by DDS started from a synthetic T2 at an intermediate noise level
  (``--strength``), and with a proximal term to it (``--proximal_weight``).
- ``ratios`` (Tables I and II): three sampling patterns at 25, 12.5 and 6.25 % of k-space.
- ``misalignment``: no motion, and motions of 1, 2 and 4 pixels; the aligner is trained on motions
  from 0 to 4 pixels. "One pass" aligns to the zero-filled image, so that the reconstruction always
  has a guide, as with the raw T1.
- ``one_pass``: one pass against the raw T1 and two passes, with ℓ1, the recurrent network, critics.
- ``rounds``: the alternating iteration with 1, 2 and 4 rounds, and each kind of step alone.
- ``complexity`` (Table VI): parameters and operations, without training.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.common.arguments import open_named_prior, settings_of
from benchmarks.common.paired import paired
from benchmarks.common.record import write_study
from benchmarks.common.training import slug, train_run
from benchmarks.cross_modal.complexity import complexity
from benchmarks.cross_modal.picture import draw_picture
from benchmarks.cross_modal.prior import PROXIMAL, STARTED, TITLE, alone, near, started
from benchmarks.cross_modal.report import page
from benchmarks.cross_modal.scans import Scores, TestScans, image_scores
from benchmarks.cross_modal.tables import (
    COMPLEXITY,
    TABLES,
    Entry,
    Table,
    Task,
    motions_text,
    options_of,
    parse_args,
    registration_options,
)
from ctxrecon.errors import InputError
from ctxrecon.phantom import Misalignment
from ctxrecon.pipelines import ContextMRIPipeline, CrossModalPipeline, load_cross_modal
from ctxrecon.pipelines.cross_modal import CrossModalReconstruction

_SCRIPT = "train_cross_modal.py"


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in args.tables:
        path = args.output_dir / f"cross_modal_{name}.json"
        if name == COMPLEXITY:
            write_study(path, {"complexity": complexity()}, args, page)
            continue
        if args.bank is None:
            raise InputError(f"expected --bank, because the table {name} trains networks")
        chosen = TABLES[name]
        pipes = [train_all(chosen, task, args) for task in chosen.tasks]
        if not args.train_only:
            record = {"table": name, "settings": settings_of(args), **study(chosen, pipes, args)}
            write_study(path, record, args, page)


def train_all(
    chosen: Table, task: Task, args: argparse.Namespace
) -> dict[str, list[CrossModalPipeline]]:
    """Return the trained networks of each entry of a table, one for each seed."""
    found = {
        entry.title: train_entry(entry, task, chosen.motions, args) for entry in chosen.entries
    }
    return {title: pipes for title, pipes in found.items() if pipes}


def study(
    chosen: Table, trained: list[dict[str, list[CrossModalPipeline]]], args: argparse.Namespace
) -> dict[str, Any]:
    """Score every entry on every task of a table, and draw the figure of the first task."""
    found: dict[str, Any] = {"tasks": {}}
    prior = None
    if chosen.started is not None:
        prior, found["prior"] = open_named_prior(args)
    for task, pipes in zip(chosen.tasks, trained, strict=True):
        scans = draw(task, args)
        scores = {"zero-filled": scans.zero_filled()}
        images = {"zero-filled": scans.filled, "T1": scans.references}
        for entry in chosen.entries:
            if entry.title not in pipes:
                continue
            outputs = [scans.reconstruct(pipe, still=entry.still) for pipe in pipes[entry.title]]
            scores[entry.title] = mean_of(
                [scans.rate(output, still=entry.still) for output in outputs]
            )
            if not entry.synthesizes:
                del scores[entry.title]["psnr_synthetic"]
            images[entry.title] = outputs[0].images
            if prior is not None and entry.title == chosen.started:
                rows = with_prior(prior, scans, outputs, args)
                scores |= {title: mean_of(each) for title, (each, _) in rows.items()}
                images |= {title: image for title, (_, image) in rows.items()}
        if not found["tasks"] and chosen.picture is not None:
            draw_picture(args.output_dir / chosen.picture, images, scans, str(task))
        compared = scores.get(chosen.compared)
        found["tasks"][str(task)] = {
            title: rate(own, compared, scans.people) for title, own in scores.items()
        }
    return found


def draw(task: Task, args: argparse.Namespace) -> TestScans:
    """Draw the test scans of a task."""
    misalignment = Misalignment(task.motion, task.motion, task.motion)
    return TestScans.draw(
        args.test_scans, args.resolution, task, args.label_volumes, misalignment, args.seed
    )


def with_prior(
    prior: ContextMRIPipeline,
    scans: TestScans,
    outputs: list[CrossModalReconstruction[Tensor]],
    args: argparse.Namespace,
) -> dict[str, tuple[list[Scores], Tensor]]:
    """Return scores and first image of the diffusion prior, by title."""
    size = args.batch_size
    found = {TITLE: [alone(prior, scans, size)], STARTED: [], PROXIMAL: []}
    for output in outputs:
        assert output.synthetic is not None
        found[STARTED].append(started(prior, scans, output.synthetic, args.strength, size))
        found[PROXIMAL].append(near(prior, scans, output.synthetic, args.proximal_weight, size))
    return {
        title: ([image_scores(one, scans.target) for one in images], images[0])
        for title, images in found.items()
    }


def mean_of(scores: list[Scores]) -> Scores:
    """Average the scores of each scan over trainings."""
    return {
        metric: np.mean([one[metric] for one in scores], axis=0).tolist() for metric in scores[0]
    }


def train_entry(
    entry: Entry, task: Task, motions: tuple[float, float], args: argparse.Namespace
) -> list[CrossModalPipeline]:
    """Train the networks of an entry, one for each seed, and return those that are complete.

    Args:
        entry: Row of the table.
        task: Sampling and motion.
        motions: Smallest and largest motion of an aligner's training.
        args: Options of the study.
    """
    pipes = []
    for seed in args.seeds:
        where = f"{task.mask}_x{task.acceleration:g}_{task.motion:g}px"
        aligner = None
        if entry.registered:
            where += f"_of_{slug(motions_text(motions))}"
            aligner = train_aligner(motions, seed, args)
        folder = args.runs / f"{slug(entry.title)}_{where}_s{seed}"
        if entry.registered and aligner is None:
            continue
        options = options_of(entry, task, seed, args, aligner)
        if train_run(_SCRIPT, options, folder, args.steps, test_only=args.test_only):
            pipe = load_cross_modal(folder / "pipeline")
            pipe.set_progress_bar_config(disable=True)
            pipes.append(pipe)
    return pipes


def train_aligner(motions: tuple[float, float], seed: int, args: argparse.Namespace) -> Path | None:
    """Train an aligner on known motion in this range; ``None`` if it is not complete."""
    folder = args.runs / f"registration_{slug(motions_text(motions))}_s{seed}"
    options = registration_options(motions, seed, args)
    steps = args.registration_steps
    if train_run(_SCRIPT, options, folder, steps, test_only=args.test_only):
        return folder / "pipeline"
    return None


def rate(scores: Scores, compared: Scores | None, people: list[str]) -> dict[str, Any]:
    """Return mean and standard deviation of every metric, and the PSNR gain over another entry."""
    found: dict[str, Any] = {
        metric: {"mean": float(np.mean(values)), "deviation": float(np.std(values))}
        for metric, values in scores.items()
    }
    if compared is not None and compared is not scores:
        found["more"] = paired(scores["psnr"], compared["psnr"], people)
    return found


if __name__ == "__main__":
    main()
