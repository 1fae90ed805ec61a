"""Learned k-space sampling: samplers trained with a reconstruction, on people never trained on.

    python -m benchmarks.masks --bank runs/bank.npz \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

Each sampler is trained with its network by ``training/train_sampler.py`` in a folder of ``--runs``,
where a run that was stopped goes on; within a table all have the same scans, steps and slices in a
batch, but for one whose title says so. Test scans are subjects of seeds that no bank uses and,
where volumes are given, slices of label volumes of people that the bank does not have. Masks have
the exact number of lines, coil maps come from the centre that every mask takes.

- ``networks``: Table I of JoJoNet: random (RM) or learned (LM) masks, shared by the contrasts (S)
  or one each (I), and networks that hand over more and more from contrast to contrast. ``knees``:
  the same with two contrasts.
- ``accelerations``: its Figure 4. ``blocks``: its Figure 8.
- ``task``: its Table II: masks and network trained for the T2* map, with equal accelerations of
  the echoes and with learned ones. ``task_longer``: twice the steps, at ×4 alone.
- ``ratios1d``, ``ratios2d``: Figure 5 and Table II of InfoMRI: one pattern generator for all
  ratios, against LOUPE trained for each and fixed masks; its uncertainty.
- ``backbones``: its Table I in kind: networks, and the diffusion prior without training, under
  learned and fixed masks.

The tables ``networks``, ``knees``, ``task``, ``task_longer`` and ``backbones`` are of
``--resolution``, the others of ``--sweep_resolution``. Standard errors are over the test scans;
each was trained once.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from benchmarks.common.arguments import settings_of
from benchmarks.common.record import write_study
from benchmarks.common.training import slug, train_run
from benchmarks.masks.figures import write_figures
from benchmarks.masks.report import page
from benchmarks.masks.scans import held_out_contrasts, score, score_prior
from benchmarks.masks.tables import TABLES, Entry, Table, parse_args
from ctxrecon.pipelines import load_joint


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in args.tables:
        chosen = TABLES[name]
        resolution = args.sweep_resolution if chosen.sweep else args.resolution
        models = []
        for entry in chosen.entries:
            if args.entries and entry.title not in args.entries:
                continue
            models += trained(name, chosen, entry, resolution, args)
        if args.train_only:
            continue
        scans = held_out_contrasts(
            args.test_scans,
            resolution,
            chosen.contrasts,
            args.label_volumes,
            args.seed,
            num_coils=chosen.num_coils,
        )
        results = [
            found
            for entry, folder, accelerations in models
            for found in score(entry.title, load_joint(folder), scans, accelerations, args.seed)
        ]
        if chosen.prior:
            results += [
                score_prior(entry.title, load_joint(folder), scans, accelerations, args.seed)
                for entry, folder, (accelerations,) in models
                if entry.network == chosen.entries[0].network
            ]
        record = {
            "settings": settings_of(args),
            "table": asdict(chosen),
            "results": [one.record() for one in results],
        }
        write_study(args.output_dir / f"sampling_{name}.json", record, args, page)
        write_figures(args.output_dir, name, chosen, results, scans)


def trained(
    name: str, table: Table, entry: Entry, resolution: int, args: argparse.Namespace
) -> list[tuple[Entry, Path, tuple[float, ...]]]:
    """Models of an entry that have been trained, and the accelerations that each is tested at."""
    models = []
    for acceleration in entry.accelerations[: 1 if entry.amortised else None]:
        suffix = "" if entry.amortised else f"_x{acceleration:.3g}"
        folder = args.runs / f"{name}_{slug(entry.title)}{suffix}"
        options = ["--sampler", entry.sampler, "--network", entry.network]
        options += ["--contrasts", table.contrasts, "--bank", str(args.bank)]
        options += ["--resolution", str(resolution), "--num_coils", str(table.num_coils)]
        options += ["--scans", str(args.scans)]
        if not entry.amortised:
            options += ["--acceleration", f"{acceleration:g}"]
        options += ["--train_batch_size", str(table.batch_size), "--seed", str(args.seed)]
        options += ["--learning_rate", str(args.learning_rate)]
        options += ["--sampler_learning_rate", str(args.sampler_learning_rate)]
        options += ["--mixed_precision", args.mixed_precision]
        options += ["--validation_steps", str(args.steps), "--report_to", "none"]
        options += [*table.options, *entry.options]
        steps = args.steps * entry.times
        if train_run("train_sampler.py", options, folder, steps, test_only=args.test_only):
            tested = entry.accelerations if entry.amortised else (acceleration,)
            models.append((entry, folder / "pipeline", tested))
    return models


if __name__ == "__main__":
    main()
