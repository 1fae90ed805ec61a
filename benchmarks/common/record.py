"""Records of studies as JSON, and the Markdown pages generated from them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctxrecon import evaluation

Record = dict[str, Any]
"""Content of a JSON file in ``benchmarks/results``: command, seed, date, hardware, results."""
Page = Callable[[Record], str]
"""Function that generates the Markdown page of a study from its record."""


def write_record(
    path: str | Path, results: dict[str, Any], args: argparse.Namespace, *, seed: int | None = None
) -> Record:
    """Write a record and return it as read back from the file.

    Args:
        path: JSON file.
        results: Results in JSON types.
        args: Options of the study from :func:`benchmarks.common.arguments.parse`.
        seed: Random seed if the study has no option ``--seed``.
    """
    seed = getattr(args, "seed", seed)
    evaluation.write_record(path, results, command=args.command, seed=seed)
    return read_record(path)


def write_study(path: Path, results: dict[str, Any], args: argparse.Namespace, page: Page) -> None:
    """Write the record at ``path`` and its page next to it, and print the page."""
    text = page(write_record(path, results, args))
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def read_record(path: str | Path) -> Record:
    """Read the record of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))
