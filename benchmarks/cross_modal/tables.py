"""Tables of the study (networks, training and tasks) and its command-line options."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.common.arguments import RESULTS, parse, study_parser

ALONE = "R alone"
_MASKS = ("random1d", "equispaced1d", "radial2d")
_ACCELERATIONS = (4.0, 8.0, 16.0)
METRICS = {"psnr": 2, "ssim": 4, "nmse": 4, "psnr_synthetic": 2, "endpoint_error": 2, "folds": 4}
"""Metrics and their decimal places in tables."""

_NO_CRITICS = ("--alignment_weight", "0", "--synthesis_weight", "0")
_PLAIN = (*_NO_CRITICS, "--smoothness_weight", "0")


@dataclass(frozen=True)
class Entry:
    """One way to use the reference.

    Attributes:
        title: Name in the table.
        guidance: Input of the reconstruction, a value of ``--guidance``.
        options: Further options of the training script.
        network: Further options of the network.
        still: Train and test with references without motion.
        registered: Start from an aligner that was trained alone on known motion.
    """

    title: str
    guidance: str
    options: tuple[str, ...] = ()
    network: str = ""
    still: bool = False
    registered: bool = False

    @property
    def synthesizes(self) -> bool:
        """True if a loss trains the synthetic image."""
        return self.options[: len(_PLAIN)] != _PLAIN


@dataclass(frozen=True)
class Task:
    """Sampling and motion of a reconstruction task.

    Attributes:
        mask: Name of the sampling mask.
        acceleration: Acceleration factor.
        motion: Motion between the scans: largest translation and largest deformation along each
            axis in pixels, and standard deviation of the rotation in degrees.
    """

    mask: str = "random1d"
    acceleration: float = 16.0
    motion: float = 2.0

    def __str__(self) -> str:
        """Return the caption of the table."""
        moved = f"moved by {self.motion:g} px" if self.motion else "not moved"
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
_L1_REGISTERED = replace(_L1, title="aligned T1, ℓ1, known motion first", registered=True)
_GUIDED_REGISTERED = replace(_GUIDED, title="OT, guided, known motion first", registered=True)
_L1_AT_ONCE = replace(
    _L1_REGISTERED, title=f"{_L1_REGISTERED.title}, one pass", network=":passes=1"
)
_GUIDED_AT_ONCE = replace(
    _GUIDED_REGISTERED, title=f"{_GUIDED_REGISTERED.title}, one pass", network=":passes=1"
)
_RECURRENT = Entry("HRU-Net, raw T1", "aligned", _PLAIN, f"{_UNALIGNED}:recurrent=true")
_RECURRENT_AT_ONCE = replace(
    _L1_AT_ONCE, title=f"HRU-Net, {_L1_AT_ONCE.title}", network=":passes=1:recurrent=true"
)
_CEILING = Entry("T1 not moved", "aligned", _PLAIN, _UNALIGNED, still=True)


def _rounds() -> tuple[Entry, ...]:
    """Return entries that vary rounds and steps of the alternating iteration."""
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
        title: Heading.
        entries: Entries in their order.
        tasks: Tasks, each with its own networks.
        compared: Title of the entry that all others are compared with, scan by scan.
        started: Title of the entry whose synthetic images start the diffusion prior; ``None`` for
            no rows of the prior.
        picture: File name of a figure of all entries on one scan of the first task, or ``None``.
    """

    title: str
    entries: tuple[Entry, ...]
    tasks: tuple[Task, ...] = (Task(),)
    compared: str = ALONE
    started: str | None = None
    picture: str | None = None

    @property
    def motions(self) -> tuple[float, float]:
        """Smallest and largest motion of the tasks, between which an aligner is trained."""
        levels = [task.motion for task in self.tasks]
        return min(levels), max(levels)


TABLES = {
    "help": Table(
        "With and without synthesis and alignment",
        (
            _ALONE,
            _RAW,
            _RECURRENT,
            _L1,
            _L1_REGISTERED,
            _SYNTHETIC_RAW,
            _PRINTED,
            _GUIDED,
            _GUIDED_REGISTERED,
            _CEILING,
        ),
        started=_L1_REGISTERED.title,
        picture="cross_modal_help.png",
    ),
    "ratios": Table(
        "Ratios and patterns",
        (_ALONE, _L1_REGISTERED, _GUIDED),
        tuple(Task(mask, acceleration) for mask in _MASKS for acceleration in _ACCELERATIONS),
    ),
    "misalignment": Table(
        "Misalignment",
        (_RAW, _L1_REGISTERED, _L1_AT_ONCE),
        tuple(Task(motion=level) for level in (0.0, 1.0, 2.0, 4.0)),
        _RAW.title,
    ),
    "one_pass": Table(
        "Alignment in one pass",
        (
            _ALONE,
            _RAW,
            _L1_AT_ONCE,
            _RECURRENT,
            _RECURRENT_AT_ONCE,
            _L1_REGISTERED,
            _GUIDED_AT_ONCE,
        ),
        compared=_RAW.title,
        picture="cross_modal_one_pass.png",
    ),
    "rounds": Table("Rounds and orders", _rounds(), compared="1 round"),
}
COMPLEXITY = "complexity"
"""Table of parameters and operations, which needs no training."""


def motions_text(motions: tuple[float, float]) -> str:
    """Return a range of motions in words, such as ``0 to 4 px`` or ``2 px``."""
    least, most = motions
    return f"{most:g} px" if least == most else f"{least:g} to {most:g} px"


def options_of(
    entry: Entry, task: Task, seed: int, args: argparse.Namespace, aligner: Path | None = None
) -> list[str]:
    """Return the options of ``training/train_cross_modal.py`` except the folder and the steps.

    Args:
        entry: Row of the table.
        task: Sampling and motion.
        seed: Seed of the training.
        args: Options of the study.
        aligner: Pipeline whose aligner the training starts from.
    """
    options = ["--network", args.network + entry.network, "--guidance", entry.guidance]
    options += _sampled((task.mask,), (task.acceleration,))
    options += _of_scans(0.0 if entry.still else task.motion, seed, args)
    options += ["--scans", str(args.scans), "--train_batch_size", str(args.batch_size)]
    options += ["--learning_rate", str(args.learning_rate), "--lr_scheduler", "linear"]
    options += ["--smoothness_weight", f"{args.smoothness_weight:g}"]
    options += ["--critic_width", str(args.critic_width), "--critic_depth", str(args.critic_depth)]
    options += ["--checkpointing_steps", str(args.steps)]
    options += [] if aligner is None else ["--aligner", str(aligner)]
    return [*options, *entry.options]


def registration_options(
    motions: tuple[float, float], seed: int, args: argparse.Namespace
) -> list[str]:
    """Return the options that train an aligner alone on known motion.

    The masks and accelerations of all tasks occur in the training, so that one aligner serves them.

    Args:
        motions: Smallest and largest motion.
        seed: Seed of the training.
        args: Options of the study.
    """
    least, most = motions
    options = ["--order", "registration", "--network", args.network, "--guidance", "aligned"]
    options += _NO_CRITICS
    options += _sampled(_MASKS, _ACCELERATIONS)
    options += _of_scans(most, seed, args)
    options += [] if least == most else ["--least_motion", f"{least / most:g}"]
    options += ["--scans", str(args.registration_scans), "--train_batch_size", "16"]
    options += ["--learning_rate", "2e-3", "--lr_scheduler", "linear", "--lr_warmup_steps", "50"]
    options += ["--max_grad_norm", "1", "--ema_decay", "0.99"]
    return [*options, "--checkpointing_steps", str(args.registration_steps)]


def _sampled(masks: Sequence[str], accelerations: Sequence[float]) -> list[str]:
    """Return the options of the sampling."""
    return ["--masks", *masks, "--accelerations", *(f"{value:g}" for value in accelerations)]


def _of_scans(motion: float, seed: int, args: argparse.Namespace) -> list[str]:
    """Return the options of scans with this motion."""
    options = ["--bank", str(args.bank), "--resolution", str(args.resolution), "--magnitude"]
    options += ["--rotation", f"{motion:g}", "--translation", f"{motion:g}"]
    options += ["--elastic", f"{motion:g}", "--snr", "0", "--seed", str(seed)]
    options += ["--mixed_precision", args.mixed_precision, "--validation_scans", "0"]
    return [*options, "--report_to", "none"]


def parse_args(
    argv: Sequence[str] | None = None, description: str | None = None
) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = study_parser("cross_modal", description)
    add, names = parser.add_argument, (*TABLES, COMPLEXITY)
    add("--tables", nargs="+", choices=names, default=list(names), help="Tables (default: all).")
    add("--bank", type=Path, help="Bank of brains to train with.")
    add("--label_volumes", type=Path, nargs="*", default=[], help="Label volumes of test people.")
    add("--runs", type=Path, default=Path("runs/cross_modal"), help="Folder of the trainings.")
    add("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    add("--network", default="small", help='Network, "paper" or "small", with options.')
    add("--critic_width", type=int, default=16, help="Features of the critics.")
    add("--critic_depth", type=int, default=4, help="Depth of the critics.")
    add("--resolution", type=int, default=64, help="Matrix size.")
    add("--smoothness_weight", type=float, default=1000.0, help="Weight of smooth displacements.")
    add("--scans", type=int, default=600, help="Training scans.")
    add("--steps", type=int, default=1000, help="Training steps.")
    add("--registration_scans", type=int, default=6000, help="Training scans of an aligner.")
    add("--registration_steps", type=int, default=1500, help="Training steps of an aligner.")
    add("--batch_size", type=int, default=4, help="Batch size.")
    add("--learning_rate", type=float, default=1e-3, help="Learning rate.")
    add("--mixed_precision", default="no", help="Mixed precision of accelerate.")
    add("--test_scans", type=int, default=48, help="Test scans.")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2], help="Random seeds of the trainings.")
    add("--train_only", action="store_true", help="Train without testing.")
    add("--test_only", action="store_true", help="Test completed trainings only.")
    add("--prior", help="Checkpoint (default: the shipped prior).")
    add("--strength", type=float, default=0.3, help="Fraction of the diffusion after the start.")
    add("--proximal_weight", type=float, default=0.1, help="Weight of the term near the start.")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="Network precision.")
    add("--device", help="Device of the prior (default: CUDA if available).")
    add("--seed", type=int, default=0, help="Random seed of the test scans.")
    return parse(parser, argv)
