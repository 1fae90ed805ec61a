"""Learned k-space sampling, trained jointly with a reconstruction and tested on held-out people.

    python -m benchmarks.masks --bank runs/bank.npz \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

Each sampler is trained with its network by ``training/train_sampler.py`` in a folder of ``--runs``;
stopped runs resume. Within a table, all models are trained with the same scans, steps and batch
size, unless the title says otherwise. Test subjects have seeds that no bank uses; with
``--label_volumes``, slices of people outside the bank are added. Masks have the exact number of
lines, and coil maps come from the center that every mask samples.

- ``networks``: Table I of JoJoNet: random (RM) or learned (LM) masks, shared by the contrasts (S)
  or individual (I), with networks that share increasingly more information between contrasts.
  ``knees``: the same with two contrasts.
- ``accelerations``: Figure 4 of JoJoNet. ``blocks``: its Figure 8.
- ``task``: Table II of JoJoNet: masks and network trained for the T2* map, with equal and with
  learned accelerations of the echoes. ``task_longer``: twice the steps, at ×4 only.
- ``ratios1d``, ``ratios2d``: Figure 5 and Table II of InfoMRI: one pattern generator for all
  sampling ratios, compared with fixed masks and with LOUPE trained for each ratio; its uncertainty.
- ``backbones``: networks, and the diffusion prior without further training, under learned and
  fixed masks.
- ``infomri2d``, ``infomri1d``: analogues of Figure 3 and Tables II and VI of InfoMRI: its masks
  and others with one U-Net on magnitude images. The stages of SeqMRI and the lines of PGMRI also
  yield lower sampling ratios. ``amortized``: Figure 5, one pattern generator for all ratios and
  one for each; ``amortized_unrolled``: the same with an unrolled network and the squared error.
  ``infomri_backbones``: Table I.

The tables ``networks``, ``knees``, ``task``, ``task_longer`` and ``backbones`` use
``--resolution``, the others ``--sweep_resolution``. Standard errors are over the test scans of one
training. With ``--seeds``, every model is trained from each seed and tested on the same scans, and
the pages of the InfoMRI tables report 95 % intervals over the trainings.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.common.arguments import settings_of
from benchmarks.common.record import write_study
from benchmarks.common.training import train_run
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
        for seed in args.seeds or [args.seed]:
            for entry in chosen.entries:
                if not args.entries or entry.title in args.entries:
                    models += trained(name, chosen, entry, resolution, seed, args)
        if args.train_only:
            continue
        scans = held_out_contrasts(
            args.test_scans,
            resolution,
            chosen.contrasts,
            args.label_volumes,
            args.seed,
            num_coils=chosen.num_coils,
            magnitude=chosen.magnitude,
        )
        results = [
            replace(found, seed=model.seed)
            for model in models
            for found in score(
                model.entry.title,
                load_joint(model.folder),
                scans,
                model.accelerations,
                args.seed,
                stages=model.entry.stages,
            )
        ]
        if chosen.prior:
            results += [
                score_prior(
                    one.entry.title, load_joint(one.folder), scans, one.accelerations[0], args.seed
                )
                for one in models
                if one.entry.network == chosen.entries[0].network
            ]
        record = {
            "settings": settings_of(args),
            "table": asdict(chosen),
            "results": [one.record() for one in results],
        }
        write_study(args.output_dir / f"sampling_{name}.json", record, args, page)
        first = [one for one in results if one.seed == models[0].seed] if models else []
        write_figures(args.output_dir, name, chosen, first, scans)


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        entry: Entry of a table.
        seed: Random seed of the training.
        folder: Folder of the pipeline.
        accelerations: Accelerations at which it is tested.
    """

    entry: Entry
    seed: int
    folder: Path
    accelerations: tuple[float, ...]


def trained(
    name: str, table: Table, entry: Entry, resolution: int, seed: int, args: argparse.Namespace
) -> list[Model]:
    """Train the models of an entry with one seed; return those that are complete.

    An amortized entry has one model, any other entry one for each acceleration.
    """
    before = None
    if entry.after:
        base = trained(name, table, table.entry(entry.after), resolution, seed, args)
        if not base:
            return []
        before = base[0].folder
    models = []
    for acceleration in entry.accelerations[: 1 if entry.amortized else None]:
        suffix = "" if seed == args.seed else f"_seed{seed}"
        folder = entry.folder(args.runs, name, acceleration, suffix)
        options = ["--sampler", entry.sampler_for(acceleration)]
        if before is None:
            options += ["--network", entry.network]
        else:
            options += ["--pretrained_model_name_or_path", str(before)]
        options += ["--contrasts", table.contrasts, "--bank", str(args.bank)]
        options += ["--resolution", str(resolution), "--num_coils", str(table.num_coils)]
        options += ["--scans", str(args.scans)]
        options += entry.acceleration_for(acceleration)
        options += ["--train_batch_size", str(table.batch_size), "--seed", str(seed)]
        options += ["--learning_rate", str(args.learning_rate)]
        options += ["--sampler_learning_rate", str(args.sampler_learning_rate)]
        options += ["--mixed_precision", args.mixed_precision]
        options += ["--validation_steps", str(args.steps), "--report_to", "none"]
        options += [*table.options, *entry.options]
        steps = args.steps * entry.times
        if train_run("train_sampler.py", options, folder, steps, test_only=args.test_only):
            tested = entry.tested_at(acceleration)
            models.append(Model(entry, seed, folder / "pipeline", tested))
    return models


if __name__ == "__main__":
    main()
