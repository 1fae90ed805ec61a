"""The options of the study."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.arguments import RESULTS, parse, study_parser
from ctxrecon.phantom import SEGMENTATIONS


def parse_args(
    argv: Sequence[str] | None = None, description: str | None = None
) -> argparse.Namespace:
    """The options of the study, those of every table together."""
    from benchmarks.tasks import frontier, privacy
    from benchmarks.tasks.tables import TABLES

    parser = study_parser("tasks", description)
    parser.add_argument("--tables", nargs="+", choices=tuple(TABLES), help="all by default")
    parser.add_argument("--runs", type=Path, default=Path("runs/tasks"))
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    parser.add_argument("--bank", type=Path, help="brains with masses to train with")
    parser.add_argument("--train_only", action="store_true", help="test another time")
    parser.add_argument("--test_only", action="store_true", help="of what has been trained")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings")
    parser.add_argument("--seed", type=int, default=0, help="of the test scans")
    _add_segmentation(parser)
    privacy.add_options(parser)
    frontier.add_options(parser)
    return parse(parser, argv)


def _add_segmentation(parser: argparse.ArgumentParser) -> None:
    """Options of the tables of segmentation."""
    parser.add_argument("--methods", nargs="+", help="titles of rows; all by default")
    parser.add_argument("--target", choices=tuple(SEGMENTATIONS), default="ventricles")
    parser.add_argument("--contrast", default="T2", help="of every scan")
    parser.add_argument("--accelerations", type=float, nargs="+", default=[4.0, 8.0, 12.0, 16.0])
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--field_of_view", type=float, default=1.0)
    parser.add_argument("--snr", type=float, default=50.0)
    parser.add_argument("--rater_spread", type=float, default=0.5)
    parser.add_argument("--latent_network", default="small", help="as --network takes it")
    parser.add_argument("--unets", default="two_unets", help="likewise")
    parser.add_argument("--li_net", default="li_net", help="likewise")
    parser.add_argument("--scans", type=int, default=2000, help="to train with")
    parser.add_argument("--steps", type=int, default=2000, help="of every stage")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--unets_learning_rate", type=float, default=1e-2)
    parser.add_argument("--ema_decay", type=float, default=0.99)
    parser.add_argument("--mixed_precision", default="no")
    parser.add_argument("--checkpointing_steps", type=int, default=500)
    parser.add_argument("--test_scans", type=int, default=48)
