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
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from benchmarks.common.arguments import open_named_prior, prior_parser
from benchmarks.common.held_out import NUM_COILS, SNR
from benchmarks.common.record import write_record
from benchmarks.metadata.experiments import (
    ABLATION_MASK,
    COLUMNS,
    MASKS,
    MAX_SCANS,
    Experiment,
    Measured,
    cells,
    plan,
    reconstruct_batch,
)
from benchmarks.metadata.figures import (
    guidance_figure,
    ladder_figure,
    text_to_image_figure,
    wrong_prompt_figure,
)
from benchmarks.metadata.guidance import guidance
from benchmarks.metadata.prompts import (
    field_strength,
    pathology,
    removal,
    text_to_image,
    wrong_prompt,
)
from benchmarks.metadata.sections import Section, verdicts
from benchmarks.metadata.text_to_image import (
    CONTRASTS,
    GROUP,
    IMAGE_COLUMNS,
    References,
    generate_batch,
    method_name,
)
from ctxrecon.errors import InputError
from ctxrecon.evaluation import Row, check_settings, open_rows, read_rows
from ctxrecon.metrics import Lpips
from ctxrecon.phantom import load_label_volume
from ctxrecon.solvers import parse_solver

EXPERIMENTS = (
    "guidance",
    "removal",
    "pathology",
    "field_strength",
    "wrong_prompt",
    "text_to_image",
)
_TITLES = {
    "guidance": "Guidance scale",
    "removal": "Metadata removed step by step, {mask}",
    "pathology": "Right and wrong pathology, {mask}, slices that show one",
    "field_strength": "Right and wrong field strength, {mask}",
    "wrong_prompt": "Wrong prompts, {mask}, two posterior samples averaged",
    "text_to_image": "Images from prompts alone",
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = prior_parser(__doc__)
    parser.add_argument("--label_volumes", type=Path, nargs="*", default=[])
    parser.add_argument("--experiments", nargs="+", choices=EXPERIMENTS, default=EXPERIMENTS)
    parser.add_argument("--scans", type=int, default=128, help="slices in each cell")
    parser.add_argument("--images", type=int, default=32, help="images drawn of each contrast")
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--guidance_scales", type=float, nargs="+", default=[0.0, 1.0, 2.0, 3.0])
    parser.add_argument("--guidance_scale", type=float, default=1.0, help="γ where it is fixed")
    parser.add_argument("--timesteps", choices=("quadratic", "scheduler"), default="quadratic")
    parser.add_argument("--steps", type=int, default=10, help="diffusion steps")
    parser.add_argument("--samples", type=int, default=1, help="posterior samples to average")
    parser.add_argument("--solver", default="pnp_admm", help="such as dds:data_weight=50")
    parser.add_argument("--true_maps", action="store_true", help="use the simulated coil maps")
    parser.add_argument("--report_only", action="store_true", help="tables of the rows that exist")
    args = parser.parse_args(argv)
    parse_solver(args.solver)
    if args.batch_size < 1 or args.samples < 1 or not 2 <= args.scans <= MAX_SCANS:
        parser.error(f"expected --batch_size and --samples of 1 or more, --scans 2 to {MAX_SCANS}")
    if args.guidance_scale <= 0:
        parser.error("expected --guidance_scale above 0: γ = 0 is always measured beside it")
    if not GROUP <= args.images <= MAX_SCANS // len(CONTRASTS):
        parser.error(f"expected --images from {GROUP} to {MAX_SCANS // len(CONTRASTS)}")
    args.guidance_scales = sorted({0.0, args.guidance_scale, *args.guidance_scales})
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    every = plan(args.guidance_scales, args.guidance_scale, args.samples)
    chosen = {name: every[name] for name in args.experiments if name in every}
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


def drawn_gammas(args: argparse.Namespace) -> list[float]:
    """γ of the images that are drawn from prompts."""
    return sorted({0.0, 1.0, args.guidance_scale})


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
    """Write tables, record and figures of the slices that are complete in each experiment."""
    sections: dict[str, Section] = {}
    figures = args.output_dir
    for name, experiment in chosen.items():
        numbers = measured.complete(experiment, args.scans)
        if len(numbers) < 2:
            continue
        if name == "guidance":
            section = guidance(measured, experiment, numbers, args.guidance_scale)
            guidance_figure(figures / "metadata_guidance.png", section.results, experiment)
        elif name == "wrong_prompt":
            section = wrong_prompt(measured, experiment, numbers)
            wrong_prompt_figure(figures / "metadata_wrong_prompt.png", section.results)
        else:
            make = {"removal": removal, "pathology": pathology, "field_strength": field_strength}
            section = make[name](measured, experiment, numbers)
            ladder_figure(figures / f"metadata_{name}.png", section.results, experiment)
        sections[name] = section
    if "text_to_image" in args.experiments:
        methods = [method_name(gamma) for gamma in drawn_gammas(args)]
        drawn = text_to_image(image_rows, methods, args.images)
        if drawn is not None:
            sections["text_to_image"] = drawn
    missing = [name for name in args.experiments if name not in sections]
    text = ["# Does metadata help?\n", _explanation(args, settings)]
    text.append(verdicts(sections.values()))
    if missing:
        text.append(f"Too few complete slices yet: {', '.join(missing)}.\n")
    for name, section in sections.items():
        title = _TITLES[name].format(mask=ABLATION_MASK)
        text += [f"## {title}, n = {section.results['n']}\n", *section.text]
    results: dict[str, Any] = {"settings": settings}
    for name, section in sections.items():
        claims = [
            {"claim": statement, "holds": holds, "measured": evidence}
            for statement, holds, evidence in section.claims
        ]
        results[name] = {**section.results, "claims": claims}
    write_record(args.output_dir / "metadata.json", results, seed=args.seed)
    (args.output_dir / "metadata.md").write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))


def _explanation(args: argparse.Namespace, settings: dict[str, Any]) -> str:
    """What the tables show."""
    brains = "by turns procedural and of label volumes" if args.label_volumes else "procedural"
    maps = "the simulated ones" if args.true_maps else "from each undersampled slice"
    lpips = "" if settings.get("lpips") else " LPIPS is left out: its weights are not at hand."
    return f"""\
Held-out phantom slices, as many knees as brains (n is that of each; brains {brains}),
{args.resolution}², {NUM_COILS} coils, complex noise of {1 / SNR:.0%} of the bright signal, coil
maps {maps}. Masks: {", ".join(MASKS)}. {parse_solver(args.solver)},
prior {settings["prior"]}, {args.samples} sample(s), {args.steps} steps ({args.timesteps}); every
prompt and γ of a slice starts from the same noise. Where samples are averaged and the solver draws
none, they are those of DDS started from its image.
Slice-wise metrics on magnitudes; intervals are of the mean paired difference, 95 %, Student's t.
The average takes each slice's mean over the four masks first, so its interval is over slices.
"Best γ" is the best on these very slices, so its gain is a little too good;
γ = {args.guidance_scale:g} was fixed beforehand. Prompts without contrast and slice, or of a
pathology alone, may be of a form that training showed seldom or never. Age and sex change nothing
in the phantom and are not measured.
Whatever was tuned was tuned on scans of other seeds.{lpips}
"""


if __name__ == "__main__":
    main()
