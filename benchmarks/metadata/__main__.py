"""Does metadata help? Prompts right, reduced and wrong, on held-out phantom scans.

    python -m benchmarks.metadata --output_dir benchmarks/results \
        --label_volumes DIR/training_seg_1[3-6].nii.gz

Experiments, of ContextMRI (arXiv:2501.04284) where a table or figure is named:

- ``guidance``: γ and an L1-wavelet baseline, four masks, knees and brains (Table 1). Brains are by
  turns procedural and slices of the label volumes, of people that the prior was not trained on.
- ``removal``: metadata taken out of the prompt step by step (Figure 4).
- ``pathology``: the finding alone, right and wrong, on procedural slices that show one (Figure 6).
- ``field_strength``: 1.5 T in place of 3 T and the other way round.
- ``wrong_prompt``: another contrast, or wrong TR and TE: what they cost, and whether data residual
  or posterior spread (two samples) reveal them.
- ``text_to_image``: images drawn from prompts beside phantom images of the same metadata; see
  ``benchmarks.metadata.text_to_image`` for the measure.

Age and sex change nothing in the phantom, so the paper's Figure 5 is not measured.

Scans have seeds that no training set uses, and numbers from 100,000 that ``benchmarks.phantom``
does not reach. Whatever is tuned (ξ, steps, CG iterations) is tuned with another ``--seed``, 100
say; ``--seed 0`` is for the test alone.

Rows are appended to ``metadata.csv`` and ``metadata_images.csv`` batch of slices by batch of
slices, with all cells of a batch inside: a run that was stopped goes on where it stopped, and
``--report_only`` makes the tables of the slices that are complete.
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
from benchmarks.metadata.experiments import (
    COLUMNS,
    Experiment,
    Measured,
    cells,
    reconstruct_batch,
)
from benchmarks.metadata.figures import (
    guidance_figure,
    ladder_figure,
    text_to_image_figure,
    wrong_prompt_figure,
)
from benchmarks.metadata.options import drawn_gammas, parse_args
from benchmarks.metadata.report import chosen_of, page_of, sections_of
from benchmarks.metadata.text_to_image import (
    IMAGE_COLUMNS,
    References,
    generate_batch,
)
from ctxrecon.errors import InputError
from ctxrecon.evaluation import Row, check_settings, open_rows, read_rows
from ctxrecon.metrics import Lpips
from ctxrecon.phantom import load_label_volume
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
    path, image_path = (args.output_dir / f"{name}.csv" for name in ("metadata", "metadata_images"))
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
        volumes = [load_label_volume(path) for path in args.label_volumes]
        longest = max(args.scans if chosen else 0, args.images if references else 0)
        batches = range(0, longest, args.batch_size)
        count = len({cell for one in chosen.values() for cell in cells(one)})
        with tqdm(total=len(batches) * (count + (references is not None)), unit="cell") as bar:
            for first in batches:
                numbers = range(first, first + args.batch_size)
                own = [number for number in numbers if number < args.scans]
                reconstruct_batch(
                    path, measured, chosen.values(), own, volumes, pipe, lpips, args, bar
                )
                if references is not None:
                    own = [number for number in numbers if number < args.images]
                    gammas = drawn_gammas(args)
                    generate_batch(image_path, image_rows, references, own, gammas, pipe, args, bar)
                    bar.update()
        if references is not None:
            text_to_image_figure(
                args.output_dir / "metadata_text_to_image.png",
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
    write_record(args.output_dir / "metadata.json", results, args)
    text = page_of(sections, args, settings)
    (args.output_dir / "metadata.md").write_text(text, encoding="utf-8")
    print(text)
    for name, experiment in chosen.items():
        if name not in sections:
            continue
        path, found = args.output_dir / f"metadata_{name}.png", sections[name].results
        if name == "guidance":
            guidance_figure(path, found, experiment)
        elif name == "wrong_prompt":
            wrong_prompt_figure(path, found)
        else:
            ladder_figure(path, found, experiment)


if __name__ == "__main__":
    main()
