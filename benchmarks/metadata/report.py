"""The page of the study, made of its rows."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.common.arguments import recorded_options
from benchmarks.common.held_out import NUM_COILS, SNR
from benchmarks.common.record import Record
from benchmarks.metadata.evidence import evidence
from benchmarks.metadata.files import (
    EVIDENCE,
    IMAGES,
    RECONSTRUCTIONS,
    Rows,
    other_priors,
    row_files,
)
from benchmarks.metadata.guidance import guidance
from benchmarks.metadata.ladders import demographics, field_strength, pathology, removal
from benchmarks.metadata.measured import Measured
from benchmarks.metadata.options import drawn_gammas, parse_args
from benchmarks.metadata.plan import MASKS, Experiment, planned_experiments
from benchmarks.metadata.prompts import text_to_image, wrong_prompt
from benchmarks.metadata.sections import Section, verdicts
from benchmarks.metadata.text_to_image import method_name
from ctxrecon.evaluation import read_rows

_TITLES = {
    "guidance": "Guidance scale",
    "people": "Guidance scale on real people",
    "removal": "Metadata removed step by step",
    "demographics": "With and without age and sex",
    "pathology": "Right and wrong pathology, slices that show one",
    "field_strength": "Right and wrong field strength",
    "wrong_prompt": "Wrong prompts, two posterior samples averaged",
    "evidence": "Evidence of the data for a prompt",
    "text_to_image": "Images from prompts alone",
}
_SECTIONS = {
    "guidance": guidance,
    "people": guidance,
    "removal": removal,
    "demographics": demographics,
    "pathology": pathology,
    "field_strength": field_strength,
    "wrong_prompt": wrong_prompt,
}


def page(record: Record, folder: Path) -> str:
    """The page of a record, from the rows beside it in ``folder``."""
    args = parse_args(recorded_options(record["command"]))
    rows = {
        kind: read_rows(path) for kind, path in row_files(folder, args).items() if path.is_file()
    }
    sections = sections_of(Measured(rows.get(RECONSTRUCTIONS, ())), rows, args)
    return page_of(sections, args, record["results"]["settings"])


def chosen_of(args: argparse.Namespace) -> dict[str, Experiment]:
    """The experiments on reconstructions that are asked for."""
    every = planned_experiments(
        args.guidance_scales,
        args.guidance_scale,
        args.samples,
        prompt_gammas=args.prompt_scales,
        accelerations=args.accelerations,
        others=other_priors(args),
    )
    return {name: every[name] for name in args.experiments if name in every}


def sections_of(measured: Measured, rows: Rows, args: argparse.Namespace) -> dict[str, Section]:
    """Results of each experiment, of the slices that are complete in it.

    Masks and methods of which nothing was measured are left out.
    """
    sections: dict[str, Section] = {}
    for name, planned in chosen_of(args).items():
        experiment = measured.begun(planned)
        numbers = measured.complete(experiment, args.scans) if experiment.methods else []
        if len(numbers) >= 2:
            sections[name] = _SECTIONS[name](measured, experiment, numbers, args.guidance_scale)
    if EVIDENCE in rows:
        rated = evidence(rows[EVIDENCE], args)
        if rated is not None:
            sections[EVIDENCE] = rated
    if IMAGES in rows:
        methods = [method_name(gamma) for gamma in drawn_gammas(args)]
        drawn = text_to_image(rows[IMAGES], methods, args.images)
        if drawn is not None:
            sections[IMAGES] = drawn
    return sections


def page_of(
    sections: dict[str, Section], args: argparse.Namespace, settings: dict[str, Any]
) -> str:
    """Explanation, verdicts, and a part for each experiment."""
    missing = [name for name in args.experiments if name not in sections]
    text = ["# Does metadata help?\n", _explanation(args, settings)]
    text.append(verdicts(sections.values()))
    if missing:
        text.append(f"Too few complete slices yet: {', '.join(missing)}.\n")
    for name, section in sections.items():
        text += [f"## {_TITLES[name]}, n = {section.results['n']}\n", *section.text]
    return "\n".join(text)


def _explanation(args: argparse.Namespace, settings: dict[str, Any]) -> str:
    """What the tables show."""
    brains = "by turns procedural and of label volumes" if args.label_volumes else "procedural"
    maps = "the simulated ones" if args.true_maps else "from each undersampled slice"
    lpips = "" if settings.get("lpips") else " LPIPS was not measured."
    people = f"\n{_PEOPLE}" if "people" in args.experiments else ""
    others = settings.get("other_priors") or {}
    beside = ", ".join(f"{name} ({weights})" for name, weights in others.items())
    beside = f"\nBeside it, without a prompt, the prior(s) {beside}." if beside else ""
    slices = "Slices of real people"
    if set(args.experiments) != {"people"}:
        slices = (
            f"Held-out phantom slices, as many knees as brains (n is that of each; "
            f"brains {brains}),\n{args.resolution}²"
        )
    return f"""\
{slices}, {NUM_COILS} coils, complex noise of {1 / SNR:.0%} of the bright signal, coil
maps {maps}. Masks: {", ".join(MASKS)}. {settings["solver_in_full"]},
prior {settings["prior"]}, {args.samples} sample(s), {args.steps} steps ({args.timesteps}); every
prompt and γ of a slice starts from the same noise. Where samples are averaged and the solver draws
none, they are those of DDS started from its image.
Slice-wise metrics on magnitudes; intervals are of the mean paired difference, 95 %, Student's t.
The average takes each slice's mean over the four masks first, so its interval is over slices.
"Best γ" is the best on these very slices, so its gain is a little too good;
γ = {args.guidance_scale:g} was fixed beforehand. Prompts without contrast and slice, or of a
pathology alone, may be of a form that training showed seldom or never. The step "− MR parameters"
takes age and sex away too. In brackets: the table or figure of ContextMRI (arXiv:2501.04284) that
a claim is of.
Whatever was tuned was tuned on scans of other seeds.{lpips}{beside}
{people}"""


_PEOPLE = """\
Slices of real people whom the prior was not trained on, at their own size, anatomies, contrasts and
people by turns; magnitude images have a smooth random phase. The reference is the image as it is,
with its own noise. Intervals take the slices of one person as a cluster.
"""
