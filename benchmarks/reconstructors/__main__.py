"""Networks that reconstruct directly, trained alike and compared on people never trained on.

    python -m benchmarks.reconstructors --bank runs/bank.npz \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

Each network is trained by ``training/train_reconstructor.py`` in a folder of ``--runs``, where a
run that was stopped goes on, with the same number of scans, steps and slices in a batch. Test
scans are procedural knees and brains of seeds that no bank uses and, where volumes are given,
slices of label volumes of people that the bank does not have. Every method gets the same masks,
and coil maps from the undersampled scan itself.

- ``objectives``: Table II of the Wasserstein GAN paper, and what fastMRI users expect beside it:
  variable-density Poisson samples, 10-fold. Without paired labels the generator also minimises
  ``‖A x − y‖₂``, the consistency with its own samples; one entry does without, as the paper.
- ``critics``: the unpaired Wasserstein GAN with the paper's critic and with a wider one.
  ``longer``: the former and ℓ1 with twice the steps.
- ``adversarial``: its Figure 8: a single coil, 3-fold, all labels, without the pixel-wise loss.
  Critics are wider, and trained as Gulrajani et al. do (arXiv:1704.00028): five steps, each of
  which counts, for one of the generator.
- ``labels``: its Table I: labels of a third and of a fifth of the scans, at 5-, 7- and 9-fold.
- ``prompt``: the same network with and without the prompt.

``adversarial`` and ``labels`` are of ``--sweep_resolution``, the others of ``--resolution``.

Standard errors are over the test scans; each network was trained once. The weight of CS-wavelet is
the best of several on scans that no table shows.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from benchmarks.common.held_out import NUM_COILS, held_out_scans
from benchmarks.common.record import write_record
from benchmarks.common.training import slug, train_run
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
    table,
    with_error,
)
from ctxrecon.evaluation.grid import Batch, Reconstruction, slices_of
from ctxrecon.figures import comparison_figure
from ctxrecon.io import write_scan
from ctxrecon.pipelines import BaselinePipeline, load_reconstructor, prepare_measurement
from ctxrecon.pipelines.loading import shipped_prior

_MASK = "poisson_disk2d"
_METRICS = {"snr": 2, "psnr": 2, "ssim": 3, "hfen": 3, "sharpness": 2}
_TITLES = {"snr": "SNR (dB)", "psnr": "PSNR (dB)", "ssim": "SSIM", "hfen": "HFEN"}
_TITLES["sharpness"] = "sharpness"

_WEIGHTS = (0.001, 0.002, 0.005, 0.01, 0.02)
_TUNING_SEED, _TUNING_SCANS = 100, 6

_UNPAIRED = ("--loss", "none", "--adversarial")
_UNROLLED, _PLAIN = "unrolled:width=32", "resnet:width=32"
_WIDER = ("--critic_width", "16")
_PLAYED = (*_WIDER, "--critic_steps", "5", "--critic_learning_rate", "1e-3",
           "--learning_rate", "1e-4", "--adam_beta1", "0", "--adam_beta2", "0.9")  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One network of a table.

    Attributes:
        title: in the table.
        network: as ``--network`` takes it.
        options: further ones of the training script.
        times: how many times as many steps as those of the other tables it is trained for.
    """

    title: str
    network: str
    options: tuple[str, ...] = ()
    times: int = 1


def disjoint(kind: str, scans: int) -> tuple[str, ...]:
    """As many magnitudes of other scans as there are scans."""
    labels = ("--labels", "disjoint", "--labelled", str(scans), "--magnitude_labels")
    return (*labels, *_UNPAIRED, kind)


def objectives(scans: int) -> list[Entry]:
    """Table II, and other networks."""
    return [
        Entry("WGAN, unpaired", _UNROLLED, disjoint("wgan_gp", scans)),
        Entry("WGAN, unpaired, no consistency", _UNROLLED,
              (*disjoint("wgan_gp", scans), "--consistency", "0", "--learning_rate", "1e-4")),
        Entry("ℓ1", _UNROLLED),
        Entry("WGAN + ℓ1", _UNROLLED, ("--adversarial", "wgan_gp")),
        Entry("plain generator, ℓ1", _PLAIN),
        Entry("U-Net, ℓ1", "unet:width=24"),
        Entry("VarNet, ℓ1", "varnet:width=10:cascades=6"),
        Entry("MoDL, ℓ1", "modl:width=32:iterations=4:cg_iterations=6"),
        Entry("ISTA-Net⁺, ℓ1", "ista_net:width=20:phases=5"),
        Entry("MoDL, SSDU", "modl:width=32:iterations=4:cg_iterations=6",
              ("--labels", "none", "--loss", "none")),
    ]  # fmt: skip


def critics(scans: int) -> list[Entry]:
    """Unpaired, with critics of several widths."""
    unpaired = disjoint("wgan_gp", scans)
    return [
        Entry("ℓ1", _UNROLLED),
        Entry("WGAN, unpaired", _UNROLLED, unpaired),
        Entry("wider critic", _UNROLLED, (*unpaired, *_WIDER)),
        Entry("wider critic, five steps for one", _UNROLLED,
              (*unpaired, *_WIDER, "--critic_steps", "5"), times=5),
    ]  # fmt: skip


def longer(scans: int) -> list[Entry]:
    """Paired and unpaired, twice the steps."""
    return [
        Entry("ℓ1", _UNROLLED, times=2),
        Entry("WGAN, unpaired", _UNROLLED, disjoint("wgan_gp", scans), times=2),
    ]


def adversarial(scans: int) -> list[Entry]:
    """Figure 8: every label, no pixel-wise loss."""
    return [
        Entry(title, _PLAIN, (*_UNPAIRED, kind, *_PLAYED), times=5)
        for title, kind in (("WGAN-GP", "wgan_gp"), ("LSGAN", "lsgan"), ("entropic", "entropic"))
    ]


def fewer_labels(scans: int) -> list[Entry]:
    """Table I: 6 and 3 of 17 subjects, unpaired, with their phase and without; all, paired."""
    partial = ("--labels", "partial", *_UNPAIRED, "wgan_gp", "--labelled")
    return [
        Entry("ℓ1, all labels", _PLAIN),
        *(
            Entry(f"WGAN, {share} of the labels{what}", _PLAIN,
                  (*partial, str(round(scans * part)), *phase))
            for what, phase in (("", ()), (", magnitudes", ("--magnitude_labels",)))
            for share, part in (("a third", 1 / 3), ("a fifth", 1 / 5))
        ),
    ]  # fmt: skip


def with_prompt(scans: int) -> list[Entry]:
    """The same network, with the text encoder of the shipped prior and without."""
    return [
        Entry("unrolled, no prompt", _UNROLLED),
        Entry("unrolled, prompt", _UNROLLED, ("--text_encoder", str(shipped_prior()))),
    ]


@dataclass(frozen=True)
class Table:
    """A table of entries.

    Attributes:
        title: over it.
        entries: of so many scans.
        accelerations: a network of its own for each.
        compared: title of the entry that all others are compared with, scan by scan.
        sweep: whether it is of the smaller matrix.
        num_coils: of the simulated array.
    """

    title: str
    entries: Callable[[int], list[Entry]]
    accelerations: tuple[float, ...]
    compared: str
    sweep: bool = False
    num_coils: int = NUM_COILS


@dataclass(frozen=True)
class Task:
    """What the networks of one table reconstruct."""

    acceleration: float
    resolution: int
    num_coils: int

    def __str__(self) -> str:
        """Of a table's caption."""
        coils = f"{self.num_coils} coil{'s' * (self.num_coils > 1)}"
        return f"Poisson ×{self.acceleration:g}, {self.resolution}², {coils}"


TABLES = {
    "objectives": Table("Objectives and networks", objectives, (10.0,), "ℓ1"),
    "critics": Table("Critics of magnitudes of other people", critics, (10.0,), "ℓ1"),
    "longer": Table("Labels of other people, twice the steps", longer, (10.0,), "ℓ1"),
    "adversarial": Table(
        "Adversarial losses alone", adversarial, (3.0,), "WGAN-GP", sweep=True, num_coils=1
    ),
    "labels": Table("Fewer labels", fewer_labels, (5.0, 7.0, 9.0), "ℓ1, all labels", sweep=True),
    "prompt": Table("With the prompt", with_prompt, (10.0,), "unrolled, no prompt"),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), default=list(TABLES))
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--label_volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--runs", type=Path, default=Path("runs/reconstructors"))
    parser.add_argument("--output_dir", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--resolution", type=int, default=96)
    parser.add_argument("--sweep_resolution", type=int, default=64)
    parser.add_argument("--scans", type=int, default=600, help="to train with")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--mixed_precision", default="no")
    parser.add_argument("--test_scans", type=int, default=48)
    parser.add_argument("--train_only", action="store_true", help="test another time")
    parser.add_argument("--test_only", action="store_true", help="of what has been trained")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    for name in args.tables:
        chosen = TABLES[name]
        results: dict[str, Any] = {}
        trained: dict[str, Any] = {}
        text = [f"# {chosen.title}\n", _explanation(chosen, args)]
        for acceleration in chosen.accelerations:
            task = Task(
                acceleration,
                args.sweep_resolution if chosen.sweep else args.resolution,
                chosen.num_coils,
            )
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
                    # A record is not of this machine's folders.
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
            text += [f"{task}:\n", _table(scores, chosen.compared)]
        if args.train_only:
            continue
        settings = {key: str(value) for key, value in vars(args).items()}
        write_record(
            args.output_dir / f"reconstructors_{name}.json",
            {"settings": settings, "entries": trained, **results},
            seed=args.seed,
        )
        path = args.output_dir / f"reconstructors_{name}.md"
        path.write_text("\n".join(text), encoding="utf-8")
        print("\n".join(text))


def options_of(entry: Entry, task: Task, args: argparse.Namespace) -> list[str]:
    """What ``training/train_reconstructor.py`` is called with."""
    options = ["--network", entry.network, "--bank", str(args.bank)]
    options += ["--resolution", str(task.resolution), "--num_coils", str(task.num_coils)]
    options += ["--masks", _MASK, "--accelerations", f"{task.acceleration:g}"]
    options += ["--scans", str(args.scans), "--train_batch_size", str(args.batch_size)]
    options += ["--learning_rate", str(args.learning_rate), "--seed", str(args.seed)]
    options += ["--mixed_precision", args.mixed_precision, "--validation_steps", str(args.steps)]
    return [*options, "--report_to", "none", *entry.options]


def cs_wavelet(task: Task, args: argparse.Namespace) -> Method:
    """L1-wavelet with the weight that is best on scans of another seed."""

    def weighted(weight: float) -> Method:
        def run(batch: Batch) -> Reconstruction:
            output: Any = BaselinePipeline("l1_wavelet")(
                batch.kspace, batch.mask, coil_maps=batch.coil_maps, regularization=weight
            )
            return Reconstruction(output.images, output.residual, 0)

        return Method(f"CS-wavelet {weight:g}", run)

    tried = [weighted(weight) for weight in _WEIGHTS]
    rows = measure(tried, task, args, scans=_TUNING_SCANS, seed=_TUNING_SEED)
    best = max(tried, key=lambda method: columns(rows, method.name)["snr"].mean())
    return replace(best, name="CS-wavelet")


def measure(
    methods: list[Method], task: Task, args: argparse.Namespace, *, scans: int, seed: int
) -> list[Row]:
    """Rows of every method on so many scans of a seed."""
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
            undersamplings=(Undersampling(_MASK, task.acceleration),),
            methods=tuple(methods),
            seed=seed,
            batch_size=args.batch_size,
        )
        found = run_grid(grid, rows, {}, PartialState(cpu=True))
    assert found is not None  # a single process
    return found


def rate(rows: list[Row], method: str, compared: str) -> dict[str, Any]:
    """Mean and standard error of every metric, and of the SNR less another's, over the scans."""
    mine, others = columns(rows, method), columns(rows, compared)
    found: dict[str, Any] = {name: summary(values) for name, values in mine.items()}
    if len(others["snr"]):
        found["snr_less"] = summary(mine["snr"] - others["snr"])
    return found


def columns(rows: list[Row], method: str) -> dict[str, np.ndarray]:
    """Every metric of one method in the order of the scans, ``(scans,)`` each."""
    mine = sorted((row for row in rows if row["method"] == method), key=lambda row: row["scan"])
    return {name: np.array([float(row[name]) for row in mine]) for name in _METRICS}


def draw(path: Path, methods: list[Method], task: Task, args: argparse.Namespace) -> None:
    """A figure of the last kind of scan: a label volume's, or a brain."""
    kinds = 2 + bool(args.label_volumes)
    drawn = held_out_scans(
        kinds, task.resolution, args.label_volumes, args.seed, num_coils=task.num_coils
    )
    scan = drawn[-1][1]
    mask = Undersampling(_MASK, task.acceleration).draw((task.resolution,) * 2, args.seed)
    measured = prepare_measurement(scan.kspace, mask)
    batch = Batch(
        measured.kspace, mask, measured.coil_maps, [scan.metadata[0].to_prompt()], [args.seed]
    )
    assert scan.target is not None
    images = {method.name: method.run(batch).images[0] for method in methods}
    comparison_figure(path, images, scan.target[0], title=f"Held-out phantom, {task}")


def _explanation(table: Table, args: argparse.Namespace) -> str:
    """What a table shows."""
    entries = table.entries(args.scans)
    least = min(entry.times for entry in entries)
    more = [f"{e.title}: {args.steps * e.times}" for e in entries if e.times > least]
    steps = f"{args.steps * least} steps" + (f" ({'; '.join(more)})" if more else "")
    return f"""\
{args.test_scans} held-out scans, coil maps from the undersampled scan;
slice-wise metrics on magnitudes, mean ± standard error over the scans; differences are paired.
Every network was trained with {args.scans} scans for {steps} of {args.batch_size}
slices. SNR is ‖x‖² / ‖x − x̂‖² in dB; HFEN the relative error of the Laplacian of Gaussian (lower
is better); sharpness the total variation over that of the truth.
"""


def _table(scores: dict[str, dict[str, Any]], compared: str) -> str:
    lines = [
        [
            title,
            *(with_error(found[name], digits) for name, digits in _METRICS.items()),
            with_error(found["snr_less"], 2, sign=True) if "snr_less" in found else "",
        ]
        for title, found in scores.items()
    ]
    return table(["", *_TITLES.values(), f"SNR less that of “{compared}”"], lines)


if __name__ == "__main__":
    main()
