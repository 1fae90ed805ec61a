"""Fuzzing of scan files and prompts: outcomes of reading damaged input.

    python -m benchmarks.fuzz --count 100000 --seed 0 --output_dir DIR
    python -m benchmarks.fuzz --formats "twix VD" --keep 123 --output_dir DIR

Small files of every format are mutated (flipped bits, boundary values, parts cut off, removed,
inserted, repeated or copied), nine in ten of them outside the k-space samples. The package then
reads everything it supports from the file, in a process limited to 2 GiB and 10 s. A damaged file
may be read unchanged or rejected with an error message. Files that are read differently without a
log message are counted, as are other errors, crashes, hangs and exhausted memory, which should
never occur. Changed sample values cannot be detected and are counted separately.

``--keep`` writes the files of one mutation for inspection and reads nothing.
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
    REFUSED,
    Mutant,
    Result,
    counts,
    fuzz,
    timed,
)
from benchmarks.fuzz.mutations import STRUCTURE
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
    parser.add_argument("--count", type=int, default=2000, help="Mutations over all formats.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    names = [subject.name for subject in SUBJECTS]
    parser.add_argument("--formats", nargs="+", choices=names, help="Formats (default: all).")
    parser.add_argument("--keep", type=int, metavar="N", help="Only write the files of mutation N.")
    parser.add_argument("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    return parse(parser, argv)


def _examples(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """Return some results of each unwanted outcome, by format."""
    found: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        silent = result.outcome == DIFFERS and result.part == "structure"
        if silent or result.outcome in FAILURES:
            kept = found.setdefault(f"{result.subject}: {result.outcome}", [])
            if len(kept) < _MOST_EXAMPLES:
                kept.append(result.as_json())
    return found


def page(record: Record) -> str:
    """Return the page: a verdict and a table of outcomes by format."""
    results = record["results"]
    parts = [(part, found) for one in results["counts"].values() for part, found in one.items()]
    failed = sum(found[name] for _, found in parts for name in FAILURES)
    whole = sum(sum(found.values()) for part, found in parts if part == STRUCTURE)
    silent = sum(found[DIFFERS] for part, found in parts if part == STRUCTURE)
    lines = [
        "# Damaged files",
        "",
        f"{failed or 'None'} of {results['count']:,} damaged files and prompts caused an",
        "unexpected error, a crash, a hang or exhausted memory. Of those damaged outside their",
        f"samples, {silent / max(whole, 1):.1%} were read differently without a log message.",
        "",
        "Each row counts mutated files of one format. Mutations of the “structure” change headers,",
        "metadata or the length of the file; those of the “payload” change only sample values,",
        "which no reader can detect. “Equal” files were read as if undamaged, “rejected” files",
        "raised an error that names the problem.",
        "",
        "| format | part | " + " | ".join(map(_title, OUTCOMES)) + " |",
        "| --- | --- " + "| ---: " * len(OUTCOMES) + "|",
    ]
    for name, found in results["counts"].items():
        for part, outcomes in sorted(found.items(), reverse=True):
            values = " | ".join(str(outcomes[outcome]) for outcome in OUTCOMES)
            lines.append(f"| {name} | {part} | {values} |")
    return "\n".join([*lines, "", f"Command: `{record['command']}`"]) + "\n"


def _title(outcome: str) -> str:
    """Return the column head of an outcome."""
    return "rejected" if outcome == REFUSED else outcome.replace("_", " ")


if __name__ == "__main__":
    main()
