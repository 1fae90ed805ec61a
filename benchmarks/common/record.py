"""Writes a benchmark's results with what is needed to run it again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ctxrecon import evaluation


def write_record(path: str | Path, results: dict[str, Any], *, seed: int | None) -> None:
    """:func:`ctxrecon.evaluation.write_record` with the command of this script."""
    script = Path(sys.argv[0])
    command = " ".join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]])
    evaluation.write_record(path, results, command=command, seed=seed)
