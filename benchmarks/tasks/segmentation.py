"""Measurements of the segmentation tables."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.tasks.figures import draw_samples
from benchmarks.tasks.methods import INFO, METHODS, Method, Stage, info_mri, trained
from benchmarks.tasks.scans import Found, Scored, draw_scans, score
from ctxrecon.errors import InputError
from ctxrecon.metrics import class_masks, generalized_energy_distance
from ctxrecon.pipelines import TaskPipeline, load_task

Results = dict[str, Any] | None
"""Results for the record; ``None`` if nothing was tested."""

LATENT_WEIGHTS = (0.02, 0.1, 0.3, 1.0, 3.0)
"""λ₂ of Table XI, relative to the weight in the bound."""
RECONSTRUCTION_WEIGHTS = (0.0, 0.01, 0.1, 0.3, 1.0)
"""λ₃ of Table XI."""
SAMPLES = (1, 2, 4, 8, 16)
"""K of Table XII."""
ACCELERATIONS = (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0, 32.0)
"""Accelerations of Figure 15."""
DRAWS = 32
"""Samples for the estimation of distances between distributions."""
_BIMODAL: dict[str, Any] = {
    "target": "mass_or_edema",
    "contrast": "T1POST",
    "field_of_view": 0.5,
    "rater_spread": 0.0,
    "accelerations": [2.0, 4.0],
}
_NO_IMAGE = ("--sampler", "variable_density2d", "--reconstruction_weight", "0")
BIMODAL = (
    Method(
        "no latent",
        Stage("bimodal_no_latent", (*_NO_IMAGE, "--network", "{latent}:deterministic=true")),
    ),
    Method("InfoMRI", Stage("bimodal", (*_NO_IMAGE, "--network", "{latent}")), deterministic=False),
    Method(
        "InfoMRI, decoder sees y",
        Stage(
            "bimodal_sees",
            (*_NO_IMAGE, "--network", "{latent}:decoder_sees_measurement=true"),
        ),
        deterministic=False,
    ),
)


def segmentation(args: argparse.Namespace) -> Results:
    """Score all methods at every acceleration; draw samples next to raters."""
    found, scans = _measured(METHODS, args.accelerations, args)
    drawn = [one for one in found if one.title == INFO.title]
    if drawn:
        draw_samples(args.output_dir / "tasks_segmentation_samples.png", drawn, scans)
    return _record(found)


def calibration(args: argparse.Namespace) -> Results:
    """Score the pixel probabilities of the models of :func:`segmentation`."""
    known = [method for method in METHODS if "calibration" in method.published]
    return _record(_measured(known, args.accelerations, args)[0])


def loss_weights(args: argparse.Namespace) -> Results:
    """Score InfoMRI with other loss weights at the lowest acceleration."""
    latent = [
        replace(INFO, title=f"λ₂ = {weight:g}", stage=_weighted("latent_weight", weight, 1.0))
        for weight in LATENT_WEIGHTS
    ]
    images = [
        replace(
            INFO, title=f"λ₃ = {weight:g}", stage=_weighted("reconstruction_weight", weight, 0.1)
        )
        for weight in RECONSTRUCTION_WEIGHTS
    ]
    return _record(_measured([*latent, *images], args.accelerations[:1], args)[0])


def samples(args: argparse.Namespace) -> Results:
    """Score InfoMRI with other numbers of samples at the lowest acceleration."""
    pipes = _pipes(INFO, None, args)
    if not pipes or args.train_only:
        return None
    scans = draw_scans(args)
    found = [score(f"K = {count}", pipes, scans, args.accelerations[0], count) for count in SAMPLES]
    return _record(found)


def accelerations(args: argparse.Namespace) -> Results:
    """Score InfoMRI trained for the whole range of sampling ratios, ×1 to ×32."""
    wide = argparse.Namespace(**{**vars(args), "accelerations": list(ACCELERATIONS)})
    method = replace(INFO, stage=info_mri("infomri_every_ratio"))
    return _record(_measured([method], ACCELERATIONS, wide)[0])


def bimodal(args: argparse.Namespace) -> Results:
    """Compare samples with the best single prediction if half of the raters include the edema."""
    own = argparse.Namespace(**{**vars(args), **_BIMODAL})
    found, scans = _measured(BIMODAL, own.accelerations, own)
    if not found:
        return None
    references = [
        _reference("the better of both opinions, always", scans, _best_single),
        _reference("each pixel by itself, as often as raters mark it", scans, _independent),
        _reference("further raters", scans, _raters),
    ]
    drawn = [one for one in found if one.title == BIMODAL[1].title]
    if drawn:
        draw_samples(args.output_dir / "tasks_bimodal_samples.png", drawn, scans)
    return _record([*references, *found])


def _record(found: Sequence[Found]) -> Results:
    return {"rows": [one.record() for one in found]} if found else None


def _weighted(option: str, weight: float, usual: float) -> Stage:
    """Return the stage of InfoMRI with another weight, shared for the usual weight."""
    if weight == usual:
        return INFO.stage
    return info_mri(f"infomri_{option}_{weight:g}", f"--{option}", f"{weight:g}")


def _measured(
    methods: Sequence[Method], each: Sequence[float], args: argparse.Namespace
) -> tuple[list[Found], list[Scored]]:
    """Train missing models, score every trained method, and return the scores and scans."""
    models: list[tuple[Method, float, list[TaskPipeline]]] = []
    for method in methods:
        if args.methods and method.title not in args.methods:
            continue
        for acceleration in each:
            pipes = _pipes(method, None if method.amortized else acceleration, args)
            models += [(method, acceleration, pipes)] if pipes else []
    if args.train_only or not models:
        return [], []
    scans = draw_scans(args)
    found = []
    for method, acceleration, pipes in models:
        count = 2 if method.deterministic else DRAWS
        found.append(score(method.title, pipes, scans, acceleration, count))
    return found, scans


def _pipes(
    method: Method, acceleration: float | None, args: argparse.Namespace
) -> list[TaskPipeline]:
    """Return the trained models of a method, one for each seed."""
    if args.bank is None:
        raise InputError("expected --bank, because the segmentation tables train networks")
    pipes = []
    for seed in args.seeds:
        folder = trained(method.stage, acceleration, seed, args)
        if folder is not None:
            pipes.append(load_task(folder))
            pipes[-1].set_progress_bar_config(disable=True)
    return pipes


def _best_single(said: Tensor, generator: torch.Generator) -> Tensor:
    """Return the rater's opinion that is closest to all opinions."""
    opinions = torch.unique(said, dim=0)
    each = [generalized_energy_distance(one[None], said) for one in opinions]
    return opinions[int(torch.stack(each).argmin())][None]


def _independent(said: Tensor, generator: torch.Generator) -> Tensor:
    """Draw pixels independently, each marked with the share of raters who mark it."""
    share = said.float().mean(dim=0)
    drawn = torch.rand(DRAWS, *share.shape, generator=generator)
    return drawn < share


def _raters(said: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from the raters' opinions with replacement."""
    return said[torch.randint(len(said), (DRAWS,), generator=generator)]


def _reference(title: str, scans: Sequence[Scored], draw: Any) -> Found:
    """Return the GED of segmentations drawn from the known opinions of the raters."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for scan in scans:
        said = class_masks(scan.opinions, int(scan.opinions.max()) + 1)
        values.append(float(generalized_energy_distance(draw(said, generator), said)))
    return Found(title, None, {"ged": values}, {})
