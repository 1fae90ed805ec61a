"""Summarize fastMRI headers and fastMRI+ findings into the file that protocols are drawn from.

    python training/summarize_protocols.py --headers knee_multicoil.csv brain_multicoil.csv \
        --findings knee.csv brain.csv --output src/ctxrecon/phantom/protocols.json

The headers are the tables that meddlr publishes (Apache-2.0), the findings those of fastMRI+ (MIT).
Only counts are kept: no file name, no identifier of a person or a scanner.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

from ctxrecon.errors import InputError
from ctxrecon.files import written_beside
from ctxrecon.metadata import ScanMetadata, from_fastmri_row, read_fastmri_plus
from ctxrecon.training import TrainingParser, run_script
from ctxrecon.training.folders import check_output


def summarize(headers: list[Path], findings: list[Path]) -> dict[str, Any]:
    """Count distinct protocols, and findings per anatomy."""
    protocols: Counter[tuple[object, ...]] = Counter()
    volumes: dict[str, ScanMetadata] = {}
    for path in headers:
        with path.open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                try:
                    item, name = from_fastmri_row(row), row["fname"]
                except (KeyError, ValueError, TypeError) as error:
                    raise InputError(
                        f"{path}, line {number}: not a row of a table of fastMRI headers: {error}"
                    ) from error
                volumes[name.removesuffix(".h5")] = item
                strength = None if item.field_strength is None else round(item.field_strength, 2)
                kind = (item.anatomy, item.contrast, item.sequence)
                key = (*kind, item.tr, item.te, item.ti, item.flip_angle, strength)
                protocols[key] += 1
    seen: dict[str, Counter[str]] = {}
    for path in findings:
        for (name, _), labels in read_fastmri_plus(path).items():
            volume = volumes.get(name)
            if volume is None or volume.anatomy is None or volume.contrast is None:
                continue
            seen.setdefault(volume.anatomy, Counter()).update(set(labels))
    ordered = sorted(protocols.items(), key=lambda item: (-item[1], str(item[0])))
    return {
        "columns": [
            *("anatomy", "contrast", "sequence", "tr", "te", "ti", "flip_angle", "field_strength"),
            "count",
        ],
        "protocols": [[*(_plain(value) for value in key), count] for key, count in ordered],
        "pathologies": {
            anatomy: dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
            for anatomy, counts in sorted(seen.items())
        },
    }


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def main() -> None:
    """Read the tables named on the command line and write the JSON summary."""
    parser = TrainingParser(description=__doc__.splitlines()[0])
    parser.add_argument("--headers", type=Path, nargs="+", required=True, help="Tables of headers")
    parser.add_argument("--findings", type=Path, nargs="+", required=True, help="fastMRI+ tables")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    check_output(arguments.output)
    summary = summarize(arguments.headers, arguments.findings)
    lists = {"protocols": summary.pop("protocols")}
    text = json.dumps(summary, indent=1)
    rows = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in lists["protocols"])
    text = text.removesuffix("\n}") + f',\n "protocols": [\n  {rows}\n ]\n}}\n'
    with written_beside(arguments.output) as beside:
        beside.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_script(main)
