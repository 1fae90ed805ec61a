"""Damaged scan files and prompts: read as before, read otherwise, refused, or worse.

    python -m benchmarks.fuzz --count 100000 --seed 0 --output_dir DIR
    python -m benchmarks.fuzz --formats "twix VD" --keep 123 --output_dir DIR

Small files of every format are mutated (bits, numbers of special size, parts cut, removed,
inserted, repeated, copied), nine in ten of them outside their samples, and read with all that the
package reads of them, in a process with 2 GiB and 10 s for each. A file may be read as before, or
refused by one sentence. What is read otherwise without a line in the log is counted, and so are
other errors, crashes, hangs and exhausted memory, of which there should be none. Changes of samples
cannot be noticed, and are counted apart.

``--keep`` writes the files of one mutation, to look at, and reads nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.record import Record, write_study
from benchmarks.fuzz.harness import (
    DIFFERS,
    FAILURES,
    OUTCOMES,
    Mutant,
    Result,
    counts,
    fuzz,
    timed,
)
from benchmarks.fuzz.subjects import SUBJECTS, subjects

_MOST_EXAMPLES = 20


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    chosen = subjects(args.formats)
    if args.keep is not None:
        for subject in chosen:
            folder = args.output_dir / subject.name.replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            Mutant(subject, folder, args.seed).write(args.keep)
            print(folder)
        return
    results: list[Result] = []
    seconds = {}
    for position, subject in enumerate(chosen):
        indices = range(position, args.count, len(chosen))
        found, seconds[subject.name] = timed(fuzz(subject, indices, args.seed))
        results += found
        print(f"{subject.name}: {len(found)} in {seconds[subject.name]:.0f} s", flush=True)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    record = {
        "count": len(results),
        "seconds": seconds,
        "counts": counts(results),
        "examples": _examples(results),
    }
    write_study(args.output_dir / "fuzz.json", record, args, page)


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = study_parser("fuzz", __doc__)
    parser.add_argument("--count", type=int, default=2000, help="mutations of all formats together")
    parser.add_argument("--seed", type=int, default=0)
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--formats", nargs="+", choices=names, help="all by default")
    parser.add_argument("--keep", type=int, metavar="N", help="write mutation N and read nothing")
    parser.add_argument("--output_dir", type=Path, default=RESULTS)
    return parse(parser, argv)


def _examples(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """Some results of each kind that should not be, by format."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        silent = result.outcome == DIFFERS and result.part == "structure"
        if silent or result.outcome in FAILURES:
            kept = found.setdefault(f"{result.subject}: {result.outcome}", [])
            if len(kept) < _MOST_EXAMPLES:
                kept.append(result.as_json())
    return found


def page(record: Record) -> str:
    """A table of formats and outcomes."""
    lines = [
        "# Damaged files",
        "",
        f"`{record['command']}`: {record['results']['count']} mutations.",
        "",
        "| format | part | " + " | ".join(name.replace("_", " ") for name in OUTCOMES) + " |",
        "| --- | --- " + "| --- " * len(OUTCOMES) + "|",
    ]
    for name, parts in record["results"]["counts"].items():
        for part, outcomes in sorted(parts.items(), reverse=True):
            values = " | ".join(str(outcomes[outcome]) for outcome in OUTCOMES)
            lines.append(f"| {name} | {part} | {values} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
