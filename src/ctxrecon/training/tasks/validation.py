"""Validation while a task trains, on held-out people whom further raters have segmented."""

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
"""Who segmented each slice of validation, the ones of training first."""
_SAMPLES = 16
_MOST_TRIES = 1000


@dataclass(frozen=True)
class Scored:
    """A held-out scan with all that is said of it.

    Attributes:
        kspace: ``(1, coils, n, n)`` complex64, fully sampled.
        coil_maps: ``(1, coils, n, n)`` complex64.
        target: ``(1, n, n)`` complex64.
        opinions: ``(opinions, …)``, see :class:`~ctxrecon.training.tasks.data.Truth`.
    """

    kspace: Tensor
    coil_maps: Tensor
    target: Tensor
    opinions: Tensor


class TaskScans:
    """Procedural people that no training bank holds, fully sampled, with the truth of the task.

    Args:
        count: number of scans.
        config: of the run.
        calibration: ``(1, 1, n, n)`` bool, the centre that every mask takes.
        first: number of the first; scans of other numbers are of other people.
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
            # A number that no training comes to: what raters do follows from it.
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
        """Scores of the task, and of images where there are some; writes a picture of one scan."""
        if not self.scans:
            raise InputError("expected at least one scan to validate on, got none")
        outputs = [run_task(pipe, scan, number) for number, scan in enumerate(self.scans)]
        _draw(picture, outputs[0], self.scans[0])
        if self.findings:
            return finding_scores(pipe, outputs, self.scans)
        return segmentation_scores(outputs, self.scans)


def held_out_anatomy(config: TasksConfig, number: int) -> Anatomy:
    """An anatomy that shows what is looked for, of nobody whom a bank holds."""
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
    """The pipeline on a fully sampled scan, with mask and samples that follow from the seed."""
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
    """Means over the scans of the distances to the raters, calibration over all pixels, PSNR."""
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
    """AUROC of each finding that some of the scans have and some have not, and their mean."""
    p = torch.cat([output.probabilities.cpu() for output in outputs]).numpy()
    z = torch.cat([scan.opinions for scan in scans]).numpy() > 0
    scores = {"brier": brier_score(torch.from_numpy(p), torch.from_numpy(z))}
    areas = {name: auroc(p[:, n], z[:, n]) for n, name in enumerate(pipe.config.classes)}
    known = {name: area for name, area in areas.items() if not np.isnan(area)}
    if known:
        scores["auroc"] = float(np.mean(list(known.values())))
    return scores | {f"auroc_{name.replace(' ', '_')}": area for name, area in known.items()}


def _draw(picture: Path, output: TaskOutput, scan: Scored) -> None:
    """Mask, what was read, and the image."""
    shown = {"mask": output.masks[0, 0].float().cpu()}
    if output.samples is not None and output.disagreement is not None:
        shown["raters"] = (scan.opinions > 0).float().mean(dim=0)
        shown["probability"] = 1 - output.probabilities[0, 0].cpu()
        shown["disagreement"] = output.disagreement[0].cpu()
    if output.images is not None:
        shown["image"] = output.images[0].cpu()
    shown["target"] = scan.target[0]
    comparison_figure(picture, shown, title="Held-out phantom")
