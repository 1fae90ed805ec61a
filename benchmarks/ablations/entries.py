"""Trainings of the study, which differ in one choice each, and its command-line options."""

from __future__ import annotations

import argparse
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common.arguments import RESULTS, parse, study_parser
from ctxrecon.errors import InputError
from ctxrecon.loading.components import shipped_prior

REFERENCE = "reference"
SETTINGS = (
    "resolution",
    "acceleration",
    "steps",
    "train_batch_size",
    "learning_rate",
    "mixed_precision",
    "test_scans",
    "inference_steps",
    "seed",
)
"""Options that all entries of one record share."""


@dataclass(frozen=True)
class Entry:
    """One training.

    Attributes:
        title: Name in the table: what differs from the reference.
        options: Options of ``training/train_prior.py`` that differ from the reference.
        phantom: Whether phantom images are in the training data.
        people: Whether images of real people are.
        prompted: Whether it is trained, and therefore compared, with prompts.
        compared: Title of the entry that it is compared with.
    """

    title: str
    options: tuple[tuple[str, str], ...] = ()
    phantom: bool = True
    people: bool = True
    prompted: bool = True
    compared: str = REFERENCE

    def command(self, args: argparse.Namespace) -> list[str]:
        """Return all options of the training script except for folder and steps."""
        options = {
            "text_encoder": str(shipped_prior()),
            "resolution": str(args.resolution),
            "field_of_view": "0.8",
            "image_noise": "0.01",
            "loss_weighting": "balanced",
            "timestep_density": "quadratic",
            "field_dropout": "0.1",
            "mixed_precision": args.mixed_precision,
            "train_batch_size": str(args.train_batch_size),
            "learning_rate": str(args.learning_rate),
            "lr_scheduler": "linear",
            "ema_decay": "0.99",
            "checkpointing_steps": "250",
            "validation_scans": "0",
            "report_to": "none",
            "seed": str(args.seed),
        }
        if self.phantom:
            options["bank"] = str(args.bank)
        if self.people:
            options["train_data_dir"] = str(args.train_people)
        options |= dict(self.options)
        return [word for name, value in options.items() for word in _words(name, value)]


def _words(name: str, value: str) -> list[str]:
    return [f"--{name}", *value.split(" ")] if value else []


ENTRIES = (
    Entry(REFERENCE),
    Entry("phantom alone", people=False),
    Entry("three quarters real", (("data_weights", "1 3"),)),
    Entry("real images alone", phantom=False),
    Entry("v, min-SNR weights", (("loss_weighting", "min_snr"),)),
    Entry(
        "ε, min-SNR weights",
        (("loss_weighting", "min_snr"), ("prediction_type", "epsilon")),
        compared="v, min-SNR weights",
    ),
    Entry("no noise in phantom images", (("image_noise", "0"),)),
    Entry("5 % noise in phantom images", (("image_noise", "0.05"),)),
    Entry("several matrix sizes", (("resolution", "48 64 80"),)),
    Entry("no prompts", (("prompt_dropout", "1"),), prompted=False),
    Entry("text encoder trained along", (("text_encoder", ""), ("train_text_encoder", "True"))),
)
"""The reference, and entries that differ from it in one choice; options without a value are left
out."""


def parse_args(argv: list[str] | None = None, description: str | None = None) -> argparse.Namespace:
    """Parse the options of the study."""
    parser = study_parser("ablations", description)
    add = parser.add_argument
    add("--bank", type=Path, required=True, help="Bank of anatomies to train with.")
    add("--train_people", type=Path, required=True, help="Prepared images of people to train with.")
    add("--people", type=Path, required=True, help="Prepared images of other people to test on.")
    add("--label_volumes", type=Path, nargs="*", default=[], help="Label volumes of test people.")
    add("--runs", type=Path, default=Path("runs/ablations"), help="Folder of the trainings.")
    add("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    add("--entries", nargs="+", default=[], help="Titles to train and test (default: all).")
    add("--keep", action="store_true", help="Keep other entries of the record in --output_dir.")
    add("--resolution", type=int, default=64, help="Matrix size of training and test.")
    add("--acceleration", type=float, default=4.0, help="Acceleration factor of the test.")
    add("--steps", type=int, default=1000, help="Training steps.")
    add("--train_batch_size", type=int, default=16, help="Images in a training step.")
    add("--learning_rate", type=float, default=6e-4, help="Peak learning rate.")
    add("--mixed_precision", default="no", help="Mixed precision of accelerate.")
    add("--test_scans", type=int, default=48, help="Test slices of people, and of the phantom.")
    add("--inference_steps", type=int, default=20, help="Diffusion steps of the test.")
    add("--seed", type=int, default=0, help="Random seed.")
    args = parse(parser, argv)
    titles = [entry.title for entry in ENTRIES]
    if unknown := [title for title in args.entries if title not in titles]:
        raise InputError(f"expected entries of {', '.join(titles)}, got {', '.join(unknown)}")
    return args


def data_names(args: argparse.Namespace) -> dict[str, object]:
    """Return the names of the data that all entries of one record share.

    Folders are left out, because published records name other ones than the measurement did.
    """
    return {
        "bank": args.bank.name,
        "train_people": args.train_people.name,
        "label_volumes": [path.name for path in args.label_volumes],
    }


def chosen_entries(args: argparse.Namespace, kept: Container[str] = ()) -> list[Entry]:
    """Return the entries to train and test.

    These are the named entries and those that they are compared with, unless measured before; all
    that were not measured before if none is named.

    Args:
        args: Options of the study.
        kept: Titles of entries measured before.
    """
    named = set(args.entries)
    wanted = named or {entry.title for entry in ENTRIES}
    wanted = wanted | {REFERENCE, *(entry.compared for entry in ENTRIES if entry.title in wanted)}
    wanted = {title for title in wanted if title in named or title not in kept}
    return [entry for entry in ENTRIES if entry.title in wanted]
