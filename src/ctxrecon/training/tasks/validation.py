"""Validation of a task on held-out people with additional raters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.figures import comparison_figure
from ctxrecon.metrics import (
    auroc,
    brier_score,
    class_masks,
    expected_calibration_error,
    psnr,
    segmentation_metrics,
)
from ctxrecon.phantom import (
    SEGMENTATIONS,
    Anatomy,
    AnatomyBank,
    Structure,
    brain_anatomy,
    draw_person,
    knee_anatomy,
)
from ctxrecon.phantom.subject import numpy_rng
from ctxrecon.pipelines.task import TaskOutput, TaskPipeline
from ctxrecon.tasks import FINDINGS
from ctxrecon.training.held_out import HELD_OUT_SEED
from ctxrecon.training.samplers import middle_acceleration
from ctxrecon.training.tasks.config import TasksConfig
from ctxrecon.training.tasks.data import (
    FindingTruth,
    RaterTruth,
    TaskSamples,
    fewest_pixels,
    slices_of,
    usual_raters,
)

_FINE_SIZE = 256
_RATERS = 16
"""Number of raters of each validation slice, which include those of training."""
_SAMPLES = 16
_MOST_TRIES = 1000


@dataclass(frozen=True)
class Scored:
    """Held-out scan with all its labels.

    Attributes:
        kspace: Fully sampled k-space ``(1, coils, n, n)``, complex64.
        coil_maps: Coil maps ``(1, coils, n, n)``, complex64.
        target: Target image ``(1, n, n)``, complex64.
        opinions: Labels ``(opinions, …)``, see :class:`~ctxrecon.training.tasks.data.Truth`.
    """

    kspace: Tensor
    coil_maps: Tensor
    target: Tensor
    opinions: Tensor


class TaskScans:
    """Held-out procedural people, fully sampled, with the labels of the task.

    Args:
        count: Number of scans.
        config: Configuration of the run.
        calibration: Center contained in every mask, ``(1, 1, n, n)`` bool.
        first: Number of the first scan; different numbers are different people.
    """

    def __init__(
        self, count: int, config: TasksConfig, calibration: Tensor, *, first: int = 0
    ) -> None:
        self.findings = config.task == "classification"
        self.scans: list[Scored] = []
        for number in range(first, first + count):
            drawn = held_out_anatomy(config, number)
            slices = slices_of(AnatomyBank.build([drawn]), config)
            truth: Any = FindingTruth(tuple(FINDINGS))
            if not self.findings:
                truth = RaterTruth(usual_raters(config), _RATERS, config.resolution)
            samples = TaskSamples(
                slices,
                truth,
                calibration,
                None,
                config.num_coils,
                config.snr,
                config.magnitude_images,
            )
            # A number that training never uses, since it determines the raters' labels.
            scan = samples[0, HELD_OUT_SEED + number]
            self.scans.append(
                Scored(
                    scan["kspace"][None],
                    scan["coil_maps"][None],
                    scan["target"][None],
                    scan["opinions"],
                )
            )

    def validate(self, pipe: TaskPipeline, picture: Path) -> dict[str, float]:
        """Return scores of the task and of images, if any; plot one scan."""
        if not self.scans:
            raise InputError("expected at least one validation scan, got none")
        outputs = [run_task(pipe, scan, number) for number, scan in enumerate(self.scans)]
        _draw(picture, outputs[0], self.scans[0])
        if self.findings:
            return finding_scores(pipe, outputs, self.scans)
        return segmentation_scores(outputs, self.scans)


def held_out_anatomy(config: TasksConfig, number: int) -> Anatomy:
    """Return a held-out anatomy that shows the target structures."""
    generator = torch.Generator().manual_seed(HELD_OUT_SEED + number)
    size = max(_FINE_SIZE, config.resolution)
    target = SEGMENTATIONS[config.target]
    kind = "knee" if config.task == "classification" else target.anatomy
    for _ in range(_MOST_TRIES):
        person = draw_person(numpy_rng(generator), kind)
        if kind == "knee":
            drawn = knee_anatomy(generator, size=size, person=person)
        else:
            finding = "Mass" if Structure.MASS in target.structures else None
            drawn = brain_anatomy(generator, size=size, person=person, finding=finding)
        assert drawn.structures is not None
        seen = [np.isin(drawn.structures, each).sum() for each in target.classes]
        if config.task == "classification" or min(seen) >= fewest_pixels(size, config):
            return drawn
    raise InputError(f"no held-out anatomy shows {config.target}")


def run_task(
    pipe: TaskPipeline,
    scan: Scored,
    seed: int,
    *,
    acceleration: float | None = None,
    num_samples: int = _SAMPLES,
) -> TaskOutput:
    """Run the pipeline on a fully sampled scan, with seeded mask and samples."""
    if acceleration is None:
        acceleration = middle_acceleration(pipe.sampler)
    return pipe(
        scan.kspace,
        coil_maps=scan.coil_maps if scan.kspace.shape[1] > 1 else None,
        acceleration=acceleration,
        num_samples=num_samples,
        generator=torch.Generator().manual_seed(HELD_OUT_SEED + seed),
    )


def segmentation_scores(outputs: list[TaskOutput], scans: list[Scored]) -> dict[str, float]:
    """Return mean distances to the raters, calibration over all pixels, and PSNR."""
    rows, p, z = [], [], []
    for output, scan in zip(outputs, scans, strict=True):
        assert output.samples is not None
        count = output.probabilities.shape[1]
        said = class_masks(scan.opinions, count)
        rows.append(segmentation_metrics(class_masks(output.samples[0].cpu(), count), said))
        p.append(output.probabilities[:, 1:].cpu().expand(len(said), -1, -1, -1))
        z.append(said)
    scores = {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}
    scores["ece"] = expected_calibration_error(torch.stack(p), torch.stack(z))
    scores["brier"] = brier_score(torch.stack(p), torch.stack(z))
    if outputs[0].images is not None:
        images = torch.cat([one.images.cpu() for one in outputs if one.images is not None])
        target = torch.cat([scan.target for scan in scans])
        scores["psnr"] = float(psnr(images, target).mean())
    return scores


def finding_scores(
    pipe: TaskPipeline, outputs: list[TaskOutput], scans: list[Scored]
) -> dict[str, float]:
    """Return the AUROC of each finding that is both present and absent in scans, and their mean."""
    p = torch.cat([output.probabilities.cpu() for output in outputs]).numpy()
    z = torch.cat([scan.opinions for scan in scans]).numpy() > 0
    scores = {"brier": brier_score(torch.from_numpy(p), torch.from_numpy(z))}
    areas = {name: auroc(p[:, n], z[:, n]) for n, name in enumerate(pipe.config.classes)}
    known = {name: area for name, area in areas.items() if not np.isnan(area)}
    if known:
        scores["auroc"] = float(np.mean(list(known.values())))
    return scores | {f"auroc_{name.replace(' ', '_')}": area for name, area in known.items()}


def _draw(picture: Path, output: TaskOutput, scan: Scored) -> None:
    """Plot the mask, the result and the image."""
    shown = {"mask": output.masks[0, 0].float().cpu()}
    if output.samples is not None and output.disagreement is not None:
        shown["raters"] = (scan.opinions > 0).float().mean(dim=0)
        shown["probability"] = 1 - output.probabilities[0, 0].cpu()
        shown["disagreement"] = output.disagreement[0].cpu()
    if output.images is not None:
        shown["image"] = output.images[0].cpu()
    shown["target"] = scan.target[0]
    comparison_figure(picture, shown, title="Held-out phantom")
