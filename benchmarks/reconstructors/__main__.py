"""Reconstruction networks trained under equal conditions and compared on held-out people.

    python -m benchmarks.reconstructors --bank runs/bank.npz \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

Each network is trained by ``training/train_reconstructor.py`` in a folder of ``--runs`` with the
same number of scans, steps and slices in a batch; stopped runs resume. Test scans are procedural
knees and brains with seeds that no bank uses; with ``--label_volumes``, slices of people outside
the bank are added. Every method uses the same masks and coil maps from the undersampled scan.

- ``objectives``: Table II of the Wasserstein GAN paper, with further networks familiar from
  fastMRI: variable-density Poisson sampling at ×10. Without paired labels, the generator also
  minimizes the data consistency ``‖A x − y‖₂``; one entry omits it, as in the paper.
- ``critics``: the unpaired Wasserstein GAN with the paper's critic and with a wider one.
  ``longer``: the former and ℓ1 with twice the steps.
- ``adversarial``: Figure 8 of that paper: single coil, ×3, all labels, no pixel-wise loss. Critics
  are wider and trained as in Gulrajani et al. (arXiv:1704.00028), five steps (all of them counted)
  for each step of the generator.
- ``labels``: Table I of that paper: labels for a third and a fifth of the scans, ×5, ×7 and ×9.
- ``prompt``: the same network with and without the prompt.

``adversarial`` and ``labels`` use ``--sweep_resolution``, the others ``--resolution``.

Standard errors are over the test scans of one training. The weight of CS-wavelet is the best of
several on separate scans.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from benchmarks.common.arguments import settings_of
from benchmarks.common.figures import shrink
from benchmarks.common.held_out import held_out_scans
from benchmarks.common.record import write_study
from benchmarks.common.training import slug, train_run
from benchmarks.reconstructors.report import page
from benchmarks.reconstructors.tables import (
    METRICS,
    TABLES,
    TUNING_SEED,
    Entry,
    Task,
    parse_args,
    task_of,
)
from ctxrecon.evaluation import (
    Grid,
    Method,
    Row,
    Undersampling,
    baseline_method,
    find_scans,
    network_method,
    run_grid,
    summary,
)
from ctxrecon.evaluation.grid import Batch, Reconstruction
from ctxrecon.evaluation.scans import slices_of
from ctxrecon.figures import comparison_figure
from ctxrecon.io import write_scan
from ctxrecon.loading.components import shipped_prior
from ctxrecon.pipelines import BaselinePipeline, load_reconstructor, prepare_measurement

_MASK = "poisson_disk2d"

_WEIGHTS = (0.001, 0.002, 0.005, 0.01, 0.02)
_TUNING_SCANS = 6


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in args.tables:
        chosen = TABLES[name]
        results: dict[str, Any] = {}
        trained: dict[str, Any] = {}
        for acceleration in chosen.accelerations:
            task = task_of(chosen, acceleration, args)
            methods = [baseline_method("zero-filled", "zero_filled")]
            if not args.train_only:
                methods.append(cs_wavelet(task, args))
            for entry in chosen.entries(args.scans):
                folder = args.runs / f"{name}_x{acceleration:g}_{slug(entry.title)}"
                if train_run(
                    "train_reconstructor.py",
                    options_of(entry, task, args),
                    folder,
                    args.steps * entry.times,
                    test_only=args.test_only,
                ):
                    pipe = load_reconstructor(folder / "pipeline")
                    parameters = sum(value.numel() for value in pipe.reconstructor.parameters())
                    # Records do not name folders of this machine.
                    options = [one.replace(str(shipped_prior()), "PRIOR") for one in entry.options]
                    trained[folder.name] = {
                        **asdict(entry),
                        "options": options,
                        "parameters": parameters,
                    }
                    pipe.set_progress_bar_config(disable=True)
                    methods.append(network_method(entry.title, pipe))
            if args.train_only:
                continue
            rows = measure(methods, task, args, scans=args.test_scans, seed=args.seed)
            scores = {method.name: rate(rows, method.name, chosen.compared) for method in methods}
            results[f"{name} x{acceleration:g}"] = scores
            draw(args.output_dir / f"{name}_x{acceleration:g}.png", methods, task, args)
        if args.train_only:
            continue
        record = {"settings": settings_of(args), "entries": trained, **results}
        write_study(args.output_dir / f"reconstructors_{name}.json", record, args, page)


def options_of(entry: Entry, task: Task, args: argparse.Namespace) -> list[str]:
    """Return the options of ``training/train_reconstructor.py``."""
    options = ["--network", entry.network, "--bank", str(args.bank)]
    options += ["--resolution", str(task.resolution), "--num_coils", str(task.num_coils)]
    options += ["--masks", _MASK, "--accelerations", f"{task.acceleration:g}"]
    options += ["--scans", str(args.scans), "--train_batch_size", str(args.batch_size)]
    options += ["--learning_rate", str(args.learning_rate), "--seed", str(args.seed)]
    options += ["--mixed_precision", args.mixed_precision, "--validation_steps", str(args.steps)]
    return [*options, "--report_to", "none", *entry.options]


def cs_wavelet(task: Task, args: argparse.Namespace) -> Method:
    """Return L1-wavelet with the best weight on scans of another seed."""

    def weighted(weight: float) -> Method:
        def run(batch: Batch) -> Reconstruction:
            output = BaselinePipeline("l1_wavelet")(batch.measurement, regularization=weight)
            return Reconstruction(output.images, output.residual, 0)

        return Method(f"CS-wavelet {weight:g}", run)

    tried = [weighted(weight) for weight in _WEIGHTS]
    rows = measure(tried, task, args, scans=_TUNING_SCANS, seed=TUNING_SEED)
    best = max(tried, key=lambda method: columns(rows, method.name)["snr"].mean())
    return replace(best, name="CS-wavelet")


def measure(
    methods: list[Method], task: Task, args: argparse.Namespace, *, scans: int, seed: int
) -> list[Row]:
    """Score every method on scans of a seed; return the rows."""
    with tempfile.TemporaryDirectory() as temporary:
        files, rows = Path(temporary) / "scans", Path(temporary) / "rows"
        files.mkdir()
        rows.mkdir()
        drawn = held_out_scans(
            scans, task.resolution, args.label_volumes, seed, num_coils=task.num_coils
        )
        for number, (_, scan) in enumerate(drawn):
            write_scan(files / f"{number:03d}.npz", scan)
        grid = Grid(
            slices=slices_of(find_scans([files])),
            acquisitions=(Undersampling(_MASK, task.acceleration),),
            methods=tuple(methods),
            seed=seed,
            batch_size=args.batch_size,
        )
        found = run_grid(grid, rows, {}, PartialState(cpu=True))
    assert found is not None  # a single process
    return found


def rate(rows: list[Row], method: str, compared: str) -> dict[str, Any]:
    """Return mean and standard error of every metric and of the SNR gain over another method."""
    mine, others = columns(rows, method), columns(rows, compared)
    found: dict[str, Any] = {name: summary(values) for name, values in mine.items()}
    if len(others["snr"]):
        found["snr_less"] = summary(mine["snr"] - others["snr"])
    return found


def columns(rows: list[Row], method: str) -> dict[str, np.ndarray]:
    """Return every metric of one method in scan order, each of shape ``(scans,)``."""
    mine = sorted((row for row in rows if row["method"] == method), key=lambda row: row["scan"])
    return {name: np.array([float(row[name]) for row in mine]) for name in METRICS}


def draw(path: Path, methods: list[Method], task: Task, args: argparse.Namespace) -> None:
    """Draw a figure of a label-volume slice, or of a brain without label volumes."""
    kinds = 2 + bool(args.label_volumes)
    drawn = held_out_scans(
        kinds, task.resolution, args.label_volumes, args.seed, num_coils=task.num_coils
    )
    scan = drawn[-1][1]
    mask = Undersampling(_MASK, task.acceleration).draw((task.resolution,) * 2, args.seed)
    measured = prepare_measurement(scan.kspace, mask)
    batch = Batch(measured, [scan.metadata[0].to_prompt()], [args.seed])
    assert scan.target is not None
    images = {method.name: method.run(batch).images[0] for method in methods}
    comparison_figure(path, images, scan.target[0], title=f"Held-out phantom, {task}")
    shrink(path)


if __name__ == "__main__":
    main()
