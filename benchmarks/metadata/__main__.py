"""Does metadata help? Prompts right, reduced and wrong, on held-out phantom scans.

    python -m benchmarks.metadata --output_dir benchmarks/results \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

Experiments, of ContextMRI (arXiv:2501.04284) where a table or figure is named:

- ``guidance``: γ and an L1-wavelet baseline, four masks, knees and brains (Table 1, Figure 2b).
  Brains are by turns procedural and slices of the label volumes, of people that the prior was not
  trained on.
- ``people``: the same with slices of real people, of the set that ``--people`` names, made by
  ``ctxrecon prepare images … --only PEOPLE.txt`` of people whom the prior has not seen.
- ``removal``: metadata taken out of the prompt step by step (Figure 4), at every γ.
- ``demographics``: with and without age and sex (Figure 5), procedural slices.
- ``pathology``: the finding alone and with all metadata, right and wrong, on procedural slices that
  show one, by finding (Figure 6).
- ``field_strength``: 1.5 T in place of 3 T and the other way round.
- ``wrong_prompt``: another contrast, or wrong TR and TE: what they cost, and whether data residual
  or posterior spread (two samples) reveal them.
- ``text_to_image``: images drawn from prompts beside phantom images of the same metadata; see
  ``benchmarks.metadata.text_to_image`` for the measure.

The paper's own solver, beside the default one:

    python -m benchmarks.metadata --name dds --solver dds:data_weight=5 --steps 100 \
        --timesteps scheduler

Scans have seeds that no training set uses, and numbers from 100,000 that ``benchmarks.phantom``
does not reach. Whatever is tuned (ξ, steps, CG iterations) is tuned with another ``--seed``, 100
say; ``--seed 0`` is for the test alone.

Rows are appended to ``metadata.csv`` and ``metadata_images.csv`` batch of slices by batch of
slices, with all cells of a batch inside: a run that was stopped goes on where it stopped, more
experiments, γ and slices are added to those that are there, and ``--report_only`` makes the tables
of the slices that are complete. Other settings need another ``--name``.
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

import torch
from tqdm.auto import tqdm

from benchmarks.common.arguments import open_named_prior
from benchmarks.common.held_out import NUM_COILS, SNR
from benchmarks.common.record import write_record
from benchmarks.metadata.experiments import Sources, reconstruct_batch
from benchmarks.metadata.figures import (
    guidance_figure,
    ladder_figure,
    text_to_image_figure,
    wrong_prompt_figure,
)
from benchmarks.metadata.measured import COLUMNS, Measured
from benchmarks.metadata.options import drawn_gammas, parse_args, stem
from benchmarks.metadata.plan import Experiment, cells
from benchmarks.metadata.report import chosen_of, page_of, sections_of
from benchmarks.metadata.text_to_image import (
    IMAGE_COLUMNS,
    References,
    generate_batch,
)
from ctxrecon.errors import InputError
from ctxrecon.evaluation import Row, check_settings, open_rows, read_rows
from ctxrecon.metrics import Lpips
from ctxrecon.solvers import parse_solver


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv, __doc__)
    chosen = chosen_of(args)
    settings: dict[str, Any] = {
        "label_volumes": [path.name for path in args.label_volumes],
        "coils": NUM_COILS,
        "snr": SNR,
        **{
            name: getattr(args, name)
            for name in ("resolution", "solver", "timesteps", "steps", "dtype")
        },
        **{name: getattr(args, name) for name in ("samples", "true_maps", "seed")},
    }
    image_settings = {name: settings[name] for name in ("resolution", "steps", "dtype", "seed")}
    image_settings["images"] = args.images
    if "people" in chosen:
        settings["people"] = args.people.name
    name = stem(args)
    path, image_path = (args.output_dir / f"{one}.csv" for one in (name, f"{name}_images"))
    image_rows: list[Row] = []
    if args.report_only:
        measured = Measured()
        if chosen:
            settings = check_settings(path, settings)
            measured.add(read_rows(path))
        if "text_to_image" in args.experiments:
            image_settings = check_settings(image_path, image_settings)
            image_rows = read_rows(image_path)
    else:
        pipe, prior = open_named_prior(args)
        settings |= {"prior": prior}
        lpips = _lpips(args.resolution)
        settings |= {"lpips": lpips is not None}
        image_settings["prior"] = settings["prior"]
        measured = Measured(open_rows(path, COLUMNS, settings) if chosen else ())
        references = None
        if "text_to_image" in args.experiments:
            image_rows = open_rows(image_path, IMAGE_COLUMNS, image_settings)
            references = References(args.images, args.resolution, args.seed)
        sources = Sources(args, people="people" in chosen)
        longest = max(args.scans if chosen else 0, args.images if references else 0)
        batches = range(0, longest, args.batch_size)
        count = len({cell for one in chosen.values() for cell in cells(one)})
        with tqdm(total=len(batches) * (count + (references is not None)), unit="cell") as bar:
            for first in batches:
                numbers = range(first, first + args.batch_size)
                own = [number for number in numbers if number < args.scans]
                reconstruct_batch(
                    path, measured, chosen.values(), own, sources, pipe, lpips, args, bar
                )
                sources.forget()
                if references is not None:
                    own = [number for number in numbers if number < args.images]
                    gammas = drawn_gammas(args)
                    generate_batch(image_path, image_rows, references, own, gammas, pipe, args, bar)
                    bar.update()
        if references is not None:
            text_to_image_figure(
                args.output_dir / f"{name}_text_to_image.png",
                references,
                drawn_gammas(args),
                pipe,
                args,
            )
    report(measured, image_rows, chosen, args, settings or image_settings)


def _lpips(resolution: int) -> Lpips | None:
    """The metric where its weights are at hand."""
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
    image_rows: list[Row],
    chosen: dict[str, Experiment],
    args: argparse.Namespace,
    settings: dict[str, Any],
) -> None:
    """Write record, page and figures of the slices that are complete in each experiment."""
    sections = sections_of(measured, image_rows, args)
    # Options that are not given have other defaults one day.
    settings = settings | {"solver_in_full": repr(parse_solver(args.solver))}
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
