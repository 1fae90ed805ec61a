"""Writes the results of a study, and the page that is made of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctxrecon import evaluation

Record = dict[str, Any]
"""What a JSON file of ``benchmarks/results`` holds: command, seed, date, hardware, results."""
Page = Callable[[Record], str]
"""Makes a study's page, in Markdown, of its record."""


def write_record(
    path: str | Path, results: dict[str, Any], args: argparse.Namespace, *, seed: int | None = None
) -> Record:
    """Write a record and return it as it reads back.

    Args:
        path: of the JSON file.
        results: in JSON types.
        args: of the study, from :func:`benchmarks.common.arguments.parse`.
        seed: of every random choice where there is no ``args.seed``.
    """
    seed = getattr(args, "seed", seed)
    evaluation.write_record(path, results, command=args.command, seed=seed)
    return read_record(path)


def write_study(path: Path, results: dict[str, Any], args: argparse.Namespace, page: Page) -> None:
    """Write the record at ``path`` and its page beside it, and print the page."""
    text = page(write_record(path, results, args))
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def read_record(path: str | Path) -> Record:
    """The record of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))
