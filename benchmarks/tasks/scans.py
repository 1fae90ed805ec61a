"""Test scans with raters, and what a model makes of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from benchmarks.tasks.methods import common_options
from ctxrecon.metrics import (
    brier_score,
    class_masks,
    expected_calibration_error,
    segmentation_metrics,
)
from ctxrecon.pipelines import TaskPipeline
from ctxrecon.training.tasks import TaskScans
from ctxrecon.training.tasks import parse_args as training_options
from ctxrecon.training.tasks.validation import Scored, run_task

_FIRST = 10**6
"""Number of the first test scan: validation has those below."""


@dataclass
class Found:
    """What a model, or several of other seeds, scored on every scan.

    Attributes:
        title: of the method.
        acceleration: of the masks; ``None`` of what reads no measurement.
        scores: by metric, ``(scans,)`` each, means over the seeds.
        calibration: of all scans together, each an interval.
        parameters: of the network, in 10⁶.
        seconds: of one slice.
        samples: of the first scan, ``(draws, n, n)``, and its image if there is one; of the first
            seed.
    """

    title: str
    acceleration: float | None
    scores: dict[str, list[float]]
    calibration: dict[str, dict[str, float]]
    parameters: float = 0.0
    seconds: float = 0.0
    samples: list[Tensor] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """For the JSON file."""
        return {
            "title": self.title,
            "acceleration": self.acceleration,
            "scores": self.scores,
            "calibration": self.calibration,
            "parameters": self.parameters,
            "seconds": self.seconds,
        }


def draw_scans(args: argparse.Namespace) -> list[Scored]:
    """People of no bank and no validation, with raters beside those of training."""
    options = ["--target", args.target, "--output_dir", "none", "--max_train_steps", "1"]
    options += common_options(args, args.steps)
    config = training_options(options)
    size = config.resolution
    everything = torch.ones(1, 1, size, size, dtype=torch.bool)
    first = _FIRST * (1 + args.seed)
    return TaskScans(args.test_scans, config, everything, first=first).scans


def score(
    title: str,
    pipes: Sequence[TaskPipeline],
    scans: Sequence[Scored],
    acceleration: float,
    num_samples: int,
) -> Found:
    """Scores of models that differ in the seed of their training alone."""
    seeds, p, z, samples = [], [], [], []
    started, count = time.perf_counter(), 0
    for number, pipe in enumerate(pipes):
        rows = []
        for place, scan in enumerate(scans):
            output = run_task(pipe, scan, place, acceleration=acceleration, num_samples=num_samples)
            count += 1
            classes = output.probabilities.shape[1]
            said = class_masks(scan.opinions, classes)
            assert output.samples is not None
            rows.append(segmentation_metrics(class_masks(output.samples[0], classes), said))
            p.append(output.probabilities[:, 1:].expand(len(said), -1, -1, -1).clamp(0, 1))
            z.append(said)
            if number == 0:
                samples.append(output.samples[0])
        seeds.append(rows)
    seconds = (time.perf_counter() - started) / count
    scores = {
        name: np.mean([[float(row[name]) for row in rows] for rows in seeds], axis=0).tolist()
        for name in seeds[0][0]
    }
    people = [range(place, len(p), len(scans)) for place in range(len(scans))]
    calibration = {
        "ece": _jackknife(expected_calibration_error, p, z, people),
        "brier": _jackknife(brier_score, p, z, people),
    }
    network: Any = pipes[0].network
    parameters = sum(value.numel() for value in network.parameters()) / 1e6
    return Found(title, acceleration, scores, calibration, parameters, seconds, samples)


def _jackknife(
    statistic: Callable[[Tensor, Tensor], float],
    p: Sequence[Tensor],
    z: Sequence[Tensor],
    people: Sequence[Sequence[int]],
) -> dict[str, float]:
    """A statistic of all scans together with the 95 % interval of the jackknife over people."""

    def of(chosen: Sequence[int]) -> float:
        return statistic(torch.stack([p[n] for n in chosen]), torch.stack([z[n] for n in chosen]))

    value = of(range(len(p)))
    count = len(people)
    if count < 2:
        return {"mean": value}
    left = []
    for out in people:
        without = set(range(len(p))) - set(out)
        left.append(of(sorted(without)))
    variance = (count - 1) / count * np.square(np.array(left) - np.mean(left)).sum()
    half = float(stats.t.ppf(0.975, count - 1) * np.sqrt(variance))
    return {"mean": value, "low": max(value - half, 0.0), "high": value + half}
