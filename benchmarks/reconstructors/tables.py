"""The tables of the study: which networks, trained how; and its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.held_out import NUM_COILS
from ctxrecon.loading.components import shipped_prior

METRICS = {"snr": 2, "psnr": 2, "ssim": 3, "hfen": 3, "sharpness": 2}
"""Metrics with the digits that tables show."""

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
    labels = ("--labels", "disjoint", "--labeled", str(scans), "--magnitude_labels")
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


def task_of(table: Table, acceleration: float, args: argparse.Namespace) -> Task:
    """The task of a table at one of its accelerations."""
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
    """The options of the study."""
    parser = study_parser("reconstructors", description)
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), default=list(TABLES))
    parser.add_argument("--bank", type=Path, required=True)
    parser.add_argument("--label_volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--runs", type=Path, default=Path("runs/reconstructors"))
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
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
    return parse(parser, argv)
