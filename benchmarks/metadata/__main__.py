"""Effect of metadata prompts (complete, reduced, wrong) on held-out scans.

    python -m benchmarks.metadata --output_dir benchmarks/results \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

Experiments (tables and figures are those of ContextMRI, arXiv:2501.04284):

- ``guidance``: guidance scales γ and an L1-wavelet baseline, four masks, knees and brains (Table 1,
  Figure 2b). Brains alternate between procedural ones and slices of the label volumes, which show
  people outside the prior's training data.
- ``people``: the same on slices of real people from the set ``--people``, made by ``ctxrecon
  prepare images … --only PEOPLE.txt`` from people outside the prior's training data.
- ``removal``: metadata removed from the prompt step by step (Figure 4), at every γ.
- ``demographics``: with and without age and sex (Figure 5), procedural slices.
- ``pathology``: the finding alone and with all metadata, right and wrong, on procedural slices that
  show one, by finding (Figure 6).
- ``field_strength``: 1.5 T swapped for 3 T and vice versa.
- ``wrong_prompt``: cost of a wrong contrast or of wrong TR and TE, and whether the data residual or
  the posterior spread (two samples) reveals them.
- ``evidence``: evidence of the data for the right prompt compared with another contrast, anatomy,
  TR and TE, or slice (``benchmarks.metadata.evidence``), with ``--people`` also on real people.
- ``text_to_image``: images drawn from prompts, compared with phantom images of the same metadata
  (``benchmarks.metadata.text_to_image`` defines the measure).

The paper's solver instead of the default:

    python -m benchmarks.metadata --name dds --solver dds:data_weight=5 --steps 100 \
        --timesteps scheduler

A second prior, such as one trained without prompts, added without a prompt to ``guidance`` and
``people``:

    python -m benchmarks.metadata --prior shipped unconditional=PATH --experiments guidance

Scans have seeds that no training set uses, and numbers from 100,000 on, which
``benchmarks.phantom`` does not reach. Parameters (ξ, steps, CG iterations) must be tuned with
another ``--seed``, such as 100; ``--seed 0`` is reserved for the test.

Rows are appended to ``metadata.csv``, ``metadata_evidence.csv`` and ``metadata_images.csv`` in
batches of slices that include all cells. A stopped run resumes; further experiments, γ and slices
are added to the existing rows, and ``--report_only`` generates the tables of the complete slices.
Other settings need another ``--name``.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from benchmarks.common.arguments import open_named_priors
from benchmarks.common.record import write_record
from benchmarks.metadata.evidence import evidence_batch, evidence_cells
from benchmarks.metadata.experiments import Sources, reconstruct_batch
from benchmarks.metadata.figures import (
    guidance_figure,
    ladder_figure,
    text_to_image_figure,
    wrong_prompt_figure,
)
from benchmarks.metadata.files import (
    EVIDENCE,
    FILE_COLUMNS,
    IMAGES,
    RECONSTRUCTIONS,
    Rows,
    check_others,
    other_priors,
    read_others,
    row_files,
    settings_of,
)
from benchmarks.metadata.measured import Measured
from benchmarks.metadata.options import drawn_gammas, parse_args, stem
from benchmarks.metadata.plan import Experiment, cells
from benchmarks.metadata.report import chosen_of, page_of, sections_of
from benchmarks.metadata.text_to_image import References, generate_batch
from ctxrecon.errors import InputError
from ctxrecon.evaluation import check_settings, open_rows, read_rows
from ctxrecon.metrics import Lpips
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.solvers import parse_solver


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    chosen = chosen_of(args)
    files = row_files(args.output_dir, args)
    settings = settings_of(args)
    if args.report_only:
        settings = {kind: check_settings(files[kind], settings[kind]) for kind in files}
        rows = {kind: read_rows(path) for kind, path in files.items()}
        measured = Measured(rows.get(RECONSTRUCTIONS, ()))
    else:
        opened = open_named_priors(args)
        (first, (_, prior)), *others = opened.items()
        lpips = _lpips(args.resolution)
        for own in settings.values():
            own["prior"] = prior
        if RECONSTRUCTIONS in settings:
            settings[RECONSTRUCTIONS]["lpips"] = lpips is not None
        rows = {
            kind: open_rows(path, FILE_COLUMNS[kind], settings[kind])
            for kind, path in files.items()
        }
        check_others(args.output_dir, args, {name: found for name, (_, found) in others})
        measured = Measured(rows.get(RECONSTRUCTIONS, ()))
        pipes = {"" if name == first else name: pipe for name, (pipe, _) in opened.items()}
        run(files, rows, measured, chosen, pipes, lpips, args)
    together = {name: value for own in settings.values() for name, value in own.items()}
    report(measured, rows, chosen, args, together)


def run(
    files: dict[str, Path],
    rows: Rows,
    measured: Measured,
    chosen: dict[str, Experiment],
    pipes: dict[str, ContextMRIPipeline],
    lpips: Lpips | None,
    args: argparse.Namespace,
) -> None:
    """Measure missing cases; append them to the files, to ``rows`` and to ``measured``.

    ``pipes`` holds the priors by name; the prior of the study has an empty name.
    """
    pipe = pipes[""]
    real = "people" in chosen or (EVIDENCE in files and args.people is not None)
    sources = Sources(args, people=real)
    for kind in files.keys() & {RECONSTRUCTIONS, EVIDENCE}:
        sources.check(files[kind], rows[kind])
    references = None
    if IMAGES in files:
        references = References(args.images, args.resolution, args.seed)
    lengths = {RECONSTRUCTIONS: args.scans, EVIDENCE: args.scans, IMAGES: args.images}
    batches = range(0, max(lengths[kind] for kind in files), args.batch_size)
    count = len({cell for one in chosen.values() for cell in cells(one)})
    count += len(evidence_cells(args)) * (EVIDENCE in files) + (references is not None)
    with tqdm(total=len(batches) * count, unit="cell") as bar:
        for first in batches:
            numbers = range(first, first + args.batch_size)
            own = [number for number in numbers if number < args.scans]
            if RECONSTRUCTIONS in files:
                path = files[RECONSTRUCTIONS]
                reconstruct_batch(
                    path, measured, chosen.values(), own, sources, pipes, lpips, args, bar
                )
            if EVIDENCE in files:
                evidence_batch(files[EVIDENCE], rows[EVIDENCE], own, sources, pipe, args, bar)
            sources.forget()
            if references is not None:
                own = [number for number in numbers if number < args.images]
                path, drawn = files[IMAGES], drawn_gammas(args)
                generate_batch(path, rows[IMAGES], references, own, drawn, pipe, args, bar)
                bar.update()
    if references is not None:
        path = args.output_dir / f"{stem(args)}_text_to_image.png"
        text_to_image_figure(path, references, drawn_gammas(args), pipe, args)


def _lpips(resolution: int) -> Lpips | None:
    """Return the metric if its weights are available."""
    metric = Lpips()
    blank = torch.ones(1, resolution, resolution)
    try:
        metric(blank, blank)
    except InputError as error:
        logging.getLogger(__name__).warning("LPIPS is left out: %s", error)
        return None
    return metric


def report(
    measured: Measured,
    rows: Rows,
    chosen: dict[str, Experiment],
    args: argparse.Namespace,
    settings: dict[str, Any],
) -> None:
    """Write record, page and figures of the slices that are complete in each experiment."""
    sections = sections_of(measured, rows, args)
    # Defaults may change; the record keeps every option.
    settings = settings | {"solver_in_full": repr(parse_solver(args.solver))}
    if args.people is not None:
        settings["people"] = args.people.name
    if other_priors(args):
        known = read_others(args.output_dir, args)
        settings["other_priors"] = {name: known.get(name) for name in other_priors(args)}
    results: dict[str, Any] = {"settings": settings}
    for name, section in sections.items():
        claims = [
            {"claim": statement, "holds": holds, "measured": evidence}
            for statement, holds, evidence in section.claims
        ]
        results[name] = {**section.results, "claims": claims}
    write_record(args.output_dir / f"{stem(args)}.json", results, args)
    text = page_of(sections, args, settings)
    (args.output_dir / f"{stem(args)}.md").write_text(text, encoding="utf-8")
    print(text)
    for name in chosen.keys() & sections.keys():
        experiment, found = measured.begun(chosen[name]), sections[name].results
        path = args.output_dir / f"{stem(args)}_{name}.png"
        if name in ("guidance", "people"):
            guidance_figure(path, found, experiment)
        elif name == "wrong_prompt":
            wrong_prompt_figure(path, found)
        else:
            ladder_figure(path, found, experiment)


if __name__ == "__main__":
    main()
