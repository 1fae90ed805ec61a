"""Command-line options of the study."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.arguments import RESULTS, parse, study_parser
from ctxrecon.phantom import SEGMENTATIONS


def parse_args(
    argv: Sequence[str] | None = None, description: str | None = None
) -> argparse.Namespace:
    """Parse the options of all tables."""
    from benchmarks.tasks import frontier, privacy
    from benchmarks.tasks.tables import TABLES

    parser = study_parser("tasks", description)
    add = parser.add_argument
    add("--tables", nargs="+", choices=tuple(TABLES), help="Tables (default: all).")
    add("--runs", type=Path, default=Path("runs/tasks"), help="Folder of the trainings.")
    add("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    add("--bank", type=Path, help="Bank of brains with masses to train with.")
    add("--train_only", action="store_true", help="Train without testing.")
    add("--test_only", action="store_true", help="Test completed trainings only.")
    add("--seeds", type=int, nargs="+", default=[0], help="Random seeds of the trainings.")
    add("--seed", type=int, default=0, help="Random seed of the test scans.")
    _add_segmentation(parser)
    privacy.add_options(parser)
    frontier.add_options(parser)
    return parse(parser, argv)


def _add_segmentation(parser: argparse.ArgumentParser) -> None:
    """Add the options of the segmentation tables."""
    add, targets = parser.add_argument, tuple(SEGMENTATIONS)
    factors = [4.0, 8.0, 12.0, 16.0]
    add("--methods", nargs="+", help="Titles of methods (default: all).")
    add("--target", choices=targets, default="ventricles", help="Structure to segment.")
    add("--contrast", default="T2", help="Contrast of every scan.")
    add("--accelerations", type=float, nargs="+", default=factors, help="Acceleration factors.")
    add("--resolution", type=int, default=64, help="Matrix size.")
    add("--field_of_view", type=float, default=1.0, help="Field of view relative to the head.")
    add("--snr", type=float, default=50.0, help="Signal-to-noise ratio.")
    add("--rater_spread", type=float, default=0.5, help="Disagreement of the raters.")
    add("--latent_network", default="small", help="InfoMRI's network, a value of --network.")
    add("--unets", default="two_unets", help="Network of the U-Net methods.")
    add("--li_net", default="li_net", help="Network of the LI-Net methods.")
    add("--scans", type=int, default=2000, help="Training scans.")
    add("--steps", type=int, default=2000, help="Training steps of every stage.")
    add("--batch_size", type=int, default=8, help="Batch size.")
    add("--learning_rate", type=float, default=2e-3, help="Learning rate.")
    add("--unets_learning_rate", type=float, default=1e-2, help="Learning rate of the U-Nets.")
    add("--ema_decay", type=float, default=0.99, help="Decay of the averaged weights.")
    add("--mixed_precision", default="no", help="Mixed precision of accelerate.")
    add("--checkpointing_steps", type=int, default=500, help="Steps between checkpoints.")
    add("--test_scans", type=int, default=48, help="Test scans.")
