"""The options of the study."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.arguments import RESULTS, parse, study_parser


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
    privacy.add_options(parser)
    frontier.add_options(parser)
    return parse(parser, argv)
