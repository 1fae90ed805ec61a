"""Regenerate the pages of ``benchmarks/results`` from the records; nothing is measured.

    python -m benchmarks.report

Each page comes from the JSON record of the same name; the pages of ``metadata`` also read the CSV
rows next to it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import partial_fourier, real_scans, text_encoder
from benchmarks.ablations import report as ablations
from benchmarks.adapt import __main__ as adapt
from benchmarks.coils import quality
from benchmarks.common.arguments import RESULTS, study_parser
from benchmarks.common.record import Page, read_record
from benchmarks.cross_modal import report as cross_modal
from benchmarks.fuzz import __main__ as fuzz
from benchmarks.masks import report as masks
from benchmarks.metadata import report as metadata
from benchmarks.people import report as people
from benchmarks.phantom import report as phantom
from benchmarks.reconstructors import report as reconstructors
from benchmarks.solvers import calibration, curves, noise_default, strength
from benchmarks.speed import baselines as baseline_speed
from benchmarks.speed import processes, reconstruction
from benchmarks.speed import reconstructors as reconstructor_speed
from benchmarks.tasks import report as tasks

PAGES: dict[str, Page] = {
    "ablations": ablations.page,
    "adapt*": adapt.page,
    "baseline_speed": baseline_speed.page,
    "calibration": calibration.page,
    "coil_map_quality": quality.page,
    "cross_modal_*": cross_modal.page,
    "fuzz": fuzz.page,
    "noise_default": noise_default.page,
    "partial_fourier": partial_fourier.page,
    "people": people.page,
    "phantom_table": phantom.page,
    "processes": processes.page,
    "real_scans": real_scans.page,
    "reconstruction_speed": reconstruction.page,
    "reconstructor_speed": reconstructor_speed.page,
    "reconstructors_*": reconstructors.page,
    "sampling_*": masks.page,
    "solver_curves": curves.page,
    "strength": strength.page,
    "tasks_*": tasks.page,
    "text_encoder": text_encoder.page,
}
"""Page generator of each record, by name pattern."""


def pages(folder: Path) -> dict[str, Callable[[], str]]:
    """Return the generator of each page of ``folder`` by page name."""
    found: dict[str, Callable[[], str]] = {}
    for pattern, page in PAGES.items():
        for path in sorted(folder.glob(f"{pattern}.json")):
            found[path.stem] = partial(lambda make, path: make(read_record(path)), page, path)
    for path in sorted(folder.glob("metadata*.json")):
        if "." not in path.stem:
            found[path.stem] = partial(lambda path: metadata.page(read_record(path), folder), path)
    return found


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("report", __doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="Folder of the records.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    folder = parse_args(argv).results
    for name, make in pages(folder).items():
        path = folder / f"{name}.md"
        path.write_text(make(), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
