"""Tables of the study (networks and their training) and its command-line options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.held_out import NUM_COILS
from ctxrecon.loading.components import shipped_prior

METRICS = {"snr": 2, "psnr": 2, "ssim": 3, "hfen": 3, "sharpness": 2}
"""Metrics and their decimal places in tables."""

TUNING_SEED = 100
"""Seed of the scans on which the weight of CS-wavelet is chosen."""

_UNPAIRED = ("--loss", "none", "--adversarial")
_UNROLLED, _PLAIN = "unrolled:width=32", "resnet:width=32"
_WIDER = ("--critic_width", "16")
_PLAYED = (*_WIDER, "--critic_steps", "5", "--critic_learning_rate", "1e-3",
           "--learning_rate", "1e-4", "--adam_beta1", "0", "--adam_beta2", "0.9")  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One network of a table.

    Attributes:
        title: Name in the table.
        network: Value of ``--network``.
        options: Further options of the training script.
        times: Training length relative to ``--steps``.
    """

    title: str
    network: str
    options: tuple[str, ...] = ()
    times: int = 1


def disjoint(kind: str, scans: int) -> tuple[str, ...]:
    """Return options for unpaired magnitude labels, as many as scans, from other people."""
    labels = ("--labels", "disjoint", "--labeled", str(scans), "--magnitude_labels")
    return (*labels, *_UNPAIRED, kind)


def objectives(scans: int) -> list[Entry]:
    """Return the entries of Table II and other networks."""
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
    """Return unpaired entries with critics of several widths."""
    unpaired = disjoint("wgan_gp", scans)
    return [
        Entry("ℓ1", _UNROLLED),
        Entry("WGAN, unpaired", _UNROLLED, unpaired),
        Entry("wider critic", _UNROLLED, (*unpaired, *_WIDER)),
        Entry("wider critic, five steps for one", _UNROLLED,
              (*unpaired, *_WIDER, "--critic_steps", "5"), times=5),
    ]  # fmt: skip


def longer(scans: int) -> list[Entry]:
    """Return a paired and an unpaired entry with twice the steps."""
    return [
        Entry("ℓ1", _UNROLLED, times=2),
        Entry("WGAN, unpaired", _UNROLLED, disjoint("wgan_gp", scans), times=2),
    ]


def adversarial(scans: int) -> list[Entry]:
    """Return the entries of Figure 8: all labels, no pixel-wise loss."""
    return [
        Entry(title, _PLAIN, (*_UNPAIRED, kind, *_PLAYED), times=5)
        for title, kind in (("WGAN-GP", "wgan_gp"), ("LSGAN", "lsgan"), ("entropic", "entropic"))
    ]


def fewer_labels(scans: int) -> list[Entry]:
    """Return the entries of Table I: a third and a fifth of the labels, unpaired; all, paired."""
    partial = ("--labels", "partial", *_UNPAIRED, "wgan_gp", "--labeled")
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
    """Return the same network with and without the text encoder of the shipped prior."""
    return [
        Entry("unrolled, no prompt", _UNROLLED),
        Entry("unrolled, prompt", _UNROLLED, ("--text_encoder", str(shipped_prior()))),
    ]


@dataclass(frozen=True)
class Table:
    """A table of entries.

    Attributes:
        title: Heading.
        entries: Function that returns the entries for a number of training scans.
        accelerations: Accelerations, each with its own networks.
        compared: Title of the entry that all others are compared with, scan by scan.
        sweep: Use the smaller matrix.
        num_coils: Number of simulated coils.
    """

    title: str
    entries: Callable[[int], list[Entry]]
    accelerations: tuple[float, ...]
    compared: str
    sweep: bool = False
    num_coils: int = NUM_COILS


@dataclass(frozen=True)
class Task:
    """Acquisition that the networks of one table reconstruct."""

    acceleration: float
    resolution: int
    num_coils: int

    def __str__(self) -> str:
        """Return the caption of the table."""
        coils = f"{self.num_coils} coil{'s' * (self.num_coils > 1)}"
        return f"Poisson ×{self.acceleration:g}, {self.resolution}², {coils}"


def task_of(table: Table, acceleration: float, args: argparse.Namespace) -> Task:
    """Return the task of a table at one of its accelerations."""
    resolution = args.sweep_resolution if table.sweep else args.resolution
    return Task(acceleration, resolution, table.num_coils)


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


def parse_args(argv: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = study_parser("reconstructors", description)
    add, names = parser.add_argument, tuple(TABLES)
    add("--tables", nargs="+", choices=names, default=list(names), help="Tables (default: all).")
    add("--bank", type=Path, required=True, help="Bank of anatomies to train with.")
    add("--label_volumes", type=Path, nargs="*", default=[], help="Label volumes of test people.")
    add("--runs", type=Path, default=Path("runs/reconstructors"), help="Folder of the trainings.")
    add("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    add("--resolution", type=int, default=96, help="Matrix size.")
    add("--sweep_resolution", type=int, default=64, help="Matrix size of the larger tables.")
    add("--scans", type=int, default=600, help="Training scans.")
    add("--steps", type=int, default=1500, help="Training steps.")
    add("--batch_size", type=int, default=4, help="Slices in a batch.")
    add("--learning_rate", type=float, default=1e-3, help="Learning rate.")
    add("--mixed_precision", default="no", help="Mixed precision of accelerate.")
    add("--test_scans", type=int, default=48, help="Test scans.")
    add("--train_only", action="store_true", help="Train without testing.")
    add("--test_only", action="store_true", help="Test completed trainings only.")
    add("--seed", type=int, default=0, help="Random seed.")
    args = parse(parser, argv)
    if args.seed == TUNING_SEED:
        parser.error(f"expected --seed not {TUNING_SEED}, which draws the scans for tuning")
    return args
