"""Page of the study, generated from its rows."""

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
    "pathology": "Right and wrong pathology on slices that show one",
    "field_strength": "Right and wrong field strength",
    "wrong_prompt": "Wrong prompts, mean of two posterior samples",
    "evidence": "Evidence of the data for a prompt",
    "text_to_image": "Images drawn from prompts alone",
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
    """Return the page of a record, from the rows next to it in ``folder``."""
    args = parse_args(recorded_options(record["command"]))
    rows = {
        kind: read_rows(path) for kind, path in row_files(folder, args).items() if path.is_file()
    }
    sections = sections_of(Measured(rows.get(RECONSTRUCTIONS, ())), rows, args)
    return page_of(sections, args, record["results"]["settings"])


def chosen_of(args: argparse.Namespace) -> dict[str, Experiment]:
    """Return the requested experiments on reconstructions."""
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
    """Return the section of each experiment, computed from its complete slices.

    Masks and methods without measurements are omitted.
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
    """Return the page: a verdict, the setting, all claims and a part for each experiment."""
    missing = [name for name in args.experiments if name not in sections]
    claims = [holds for section in sections.values() for _, holds, _ in section.claims]
    lead = [section.verdict for section in sections.values() if section.verdict]
    holding = "holds" if sum(claims) == 1 else "hold"
    lead.append(f"{sum(claims)} of the {len(claims)} tested claims {holding}.")
    text = [f"# {_heading(args)}\n", "\n".join(lead) + "\n", _explanation(args, settings)]
    text += ["## Claims\n", _CLAIMS, verdicts(sections.values())]
    if missing:
        text.append(f"Too few complete slices yet: {', '.join(missing)}.\n")
    for name, section in sections.items():
        text += [f"## {_TITLES[name]}, n = {section.results['n']}\n", *section.text]
    return "\n".join(text)


def _heading(args: argparse.Namespace) -> str:
    """Return the question that the page answers."""
    if set(args.experiments) == {"evidence"}:
        return "Do the data reveal a wrong prompt?"
    if set(args.experiments) == {"people"}:
        return "Does metadata help on real people?"
    solver, *_ = args.solver.split(":")
    return f"Does metadata help `{solver}` with {args.steps} steps?"


def _explanation(args: argparse.Namespace, settings: dict[str, Any]) -> str:
    """Return the description of the setting."""
    brains = "procedural and label-volume brains in turn" if args.label_volumes else "procedural"
    maps = "true coil maps" if args.true_maps else "coil maps from each undersampled slice"
    lpips = "" if settings.get("lpips") else " LPIPS was not measured."
    people = f"\n{_PEOPLE}" if "people" in args.experiments else ""
    others = settings.get("other_priors") or {}
    beside = ", ".join(f"{name} (`{weights}`)" for name, weights in others.items())
    beside = f"\nFurther priors, used without a prompt: {beside}." if beside else ""
    count = "1 sample" if args.samples == 1 else f"{args.samples} samples"
    slices = "Slices of real people"
    if set(args.experiments) != {"people"}:
        slices = (
            f"Held-out phantom slices, as many knees as brains ({brains}; n counts the slices of "
            f"each),\n{args.resolution}²"
        )
    return f"""\
{slices}, {NUM_COILS} coils, complex noise of {1 / SNR:.0%} of the bright signal,
{maps}. Masks: {", ".join(MASKS)}. Solver
`{settings["solver_in_full"]}`, prior `{settings["prior"]}`,
{count}, {args.steps} steps ({args.timesteps} spacing). Every prompt and γ of a slice starts
from the same noise. Averaged samples of a deterministic solver are those of DDS started from its
image. Nothing was tuned on these slices; other seeds were used.{lpips}{beside}

Metrics are slice-wise on magnitudes. Differences are paired, in dB for PSNR, and intervals are 95 %
intervals of the mean difference by Student's t over slices. The average of all cells first averages
each slice over the masks. “Best γ” is chosen on these same slices, which slightly overestimates its
gain; γ = {args.guidance_scale:g} was fixed in advance. Prompts without contrast and slice, or with
a pathology alone, have a form that was rare or absent in training. The step “− MR parameters” also
removes age and sex.
{people}"""


_CLAIMS = """\
Parentheses name the table or figure of ContextMRI (arXiv:2501.04284) that makes the claim. “No”
means that these data do not support it with this prior.
"""
_PEOPLE = """\
Slices of real people are from people outside the prior's training data, at their original size, in
turn over anatomies, contrasts and people; magnitude images have a smooth random phase. The
reference is the unmodified image with its own noise. Intervals treat the slices of one person as a
cluster.
"""
