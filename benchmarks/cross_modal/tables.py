"""The tables of the study: which networks, trained how, on what; and its options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.common.arguments import RESULTS, parse, study_parser

ALONE = "R alone"
METRICS = {"psnr": 2, "ssim": 4, "nmse": 4, "psnr_synthetic": 2, "endpoint_error": 2, "folds": 4}
"""Metrics with the digits that tables show."""

_NO_CRITICS = ("--alignment_weight", "0", "--synthesis_weight", "0")
_PLAIN = (*_NO_CRITICS, "--smoothness_weight", "0")


@dataclass(frozen=True)
class Entry:
    """One way to use the reference.

    Attributes:
        title: in the table.
        guidance: what the reconstruction sees.
        options: further ones of the training script.
        network: further options of the network.
        still: whether it is trained and tested with references that nobody moved for.
    """

    title: str
    guidance: str
    options: tuple[str, ...] = ()
    network: str = ""
    still: bool = False

    @property
    def synthesizes(self) -> bool:
        """Whether anything trains the synthetic image."""
        return self.options[: len(_PLAIN)] != _PLAIN


@dataclass(frozen=True)
class Task:
    """What is reconstructed.

    Attributes:
        mask: name.
        acceleration: of it.
        elastic: largest bending between the scans, in pixels; 0 for no motion at all.
    """

    mask: str = "random1d"
    acceleration: float = 16.0
    elastic: float = 2.0

    def __str__(self) -> str:
        """Of a table's caption."""
        moved = f"moved by {self.elastic:g} px" if self.elastic else "not moved"
        return f"{self.mask}, {100 / self.acceleration:g} % of k-space, {moved}"


_UNALIGNED = ":alignment=false:passes=1"
_ALONE = Entry(ALONE, "none", _PLAIN)
_RAW = Entry("raw T1", "aligned", _PLAIN, _UNALIGNED)
_L1 = Entry("aligned T1, ℓ1", "aligned", (*_NO_CRITICS, "--paired_weight", "1000"))
_SYNTHETIC_RAW = Entry(
    "OT, without alignment", "synthetic", ("--alignment_weight", "0", "--smoothness_weight", "0"),
    _UNALIGNED,
)  # fmt: skip
_PRINTED = Entry("OT, as printed", "none")
_GUIDED = Entry("OT, guided", "synthetic")
_RECURRENT = Entry("HRU-Net, raw T1", "aligned", _PLAIN, f"{_UNALIGNED}:recurrent=true")
_CEILING = Entry("T1 not moved", "aligned", _PLAIN, _UNALIGNED, still=True)


def _rounds() -> tuple[Entry, ...]:
    """The alternating iteration taken apart."""
    return (
        *(
            replace(
                _GUIDED,
                title=f"{rounds} round{'s' * (rounds > 1)}",
                options=("--rounds", str(rounds)),
            )
            for rounds in (1, 2, 4)
        ),
        replace(_GUIDED, title="joint steps only", options=("--order", "joint")),
        replace(_GUIDED, title="alternating steps only", options=("--order", "alternating")),
    )


@dataclass(frozen=True)
class Table:
    """A table of entries.

    Attributes:
        title: over it.
        entries: in their order.
        tasks: each with networks of its own.
        compared: title of the entry that all others are compared with, scan by scan.
        started: title of the entry whose synthetic images the diffusion prior starts from, in rows
            of its own; ``None`` for none of these.
        picture: file of the entries beside each other, on one scan of the first task; ``None`` for
            none.
    """

    title: str
    entries: tuple[Entry, ...]
    tasks: tuple[Task, ...] = (Task(),)
    compared: str = ALONE
    started: str | None = None
    picture: str | None = None


TABLES = {
    "help": Table(
        "With and without synthesis and alignment",
        (_ALONE, _RAW, _RECURRENT, _L1, _SYNTHETIC_RAW, _PRINTED, _GUIDED, _CEILING),
        started=_L1.title,
        picture="cross_modal_help.png",
    ),
    "ratios": Table(
        "Ratios and patterns",
        (_ALONE, _L1, _GUIDED),
        tuple(
            Task(mask, acceleration)
            for mask in ("random1d", "equispaced1d", "radial2d")
            for acceleration in (4.0, 8.0, 16.0)
        ),
    ),
    "misalignment": Table(
        "Misalignment",
        (_ALONE, _RAW, _L1, _GUIDED),
        tuple(Task(elastic=level) for level in (0.0, 1.0, 2.0, 4.0)),
        _RAW.title,
    ),
    "rounds": Table("Rounds and orders", _rounds(), compared="1 round"),
}
COMPLEXITY = "complexity"
"""The table of parameters and operations, for which nothing is trained."""


def options_of(entry: Entry, task: Task, seed: int, args: argparse.Namespace) -> list[str]:
    """What ``training/train_cross_modal.py`` is called with, but for the folder and the steps."""
    moved = () if entry.still or not task.elastic else (args.rotation, args.translation)
    rotation, translation = moved or (0.0, 0.0)
    elastic = task.elastic if moved else 0.0
    options = ["--network", args.network + entry.network, "--guidance", entry.guidance]
    options += ["--bank", str(args.bank), "--resolution", str(args.resolution), "--magnitude"]
    options += ["--masks", task.mask, "--accelerations", f"{task.acceleration:g}", "--snr", "0"]
    options += ["--rotation", f"{rotation:g}", "--translation", f"{translation:g}"]
    options += ["--elastic", f"{elastic:g}", "--scans", str(args.scans)]
    options += ["--train_batch_size", str(args.batch_size), "--seed", str(seed)]
    options += ["--learning_rate", str(args.learning_rate)]
    options += ["--smoothness_weight", f"{args.smoothness_weight:g}"]
    options += ["--critic_width", str(args.critic_width), "--critic_depth", str(args.critic_depth)]
    options += ["--mixed_precision", args.mixed_precision, "--validation_scans", "0"]
    options += ["--checkpointing_steps", str(args.steps), "--report_to", "none"]
    return [*options, *entry.options]


def parse_args(
    argv: Sequence[str] | None = None, description: str | None = None
) -> argparse.Namespace:
    """The options of the study."""
    parser = study_parser("cross_modal", description)
    names = (*TABLES, COMPLEXITY)
    parser.add_argument("--tables", nargs="+", choices=names, default=list(names))
    parser.add_argument("--bank", type=Path, help="brains to train with")
    parser.add_argument("--label_volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--runs", type=Path, default=Path("runs/cross_modal"))
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    parser.add_argument("--network", default="small", help="paper or small, with options")
    parser.add_argument("--critic_width", type=int, default=16)
    parser.add_argument("--critic_depth", type=int, default=4)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--rotation", type=float, default=2.0)
    parser.add_argument("--translation", type=float, default=2.0)
    parser.add_argument("--smoothness_weight", type=float, default=1000.0)
    parser.add_argument("--scans", type=int, default=600, help="to train with")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--mixed_precision", default="no")
    parser.add_argument("--test_scans", type=int, default=48)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings")
    parser.add_argument("--train_only", action="store_true", help="test another time")
    parser.add_argument("--test_only", action="store_true", help="of what has been trained")
    parser.add_argument("--prior", help="checkpoint; the shipped prior by default")
    parser.add_argument("--strength", type=float, default=0.3, help="of the prior's start")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", help="of the prior; CUDA by default where there is one")
    parser.add_argument("--seed", type=int, default=0, help="of the test scans")
    return parse(parser, argv)
