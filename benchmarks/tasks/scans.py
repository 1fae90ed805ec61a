"""Test scans with raters, and scores of a model on them."""

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
"""Number of the first test scan; smaller numbers are for validation."""


@dataclass
class Found:
    """Scores of a method on every scan, averaged over models of several seeds.

    Attributes:
        title: Name of the method.
        acceleration: Acceleration of the masks; ``None`` for methods without a measurement.
        scores: Scores by metric, each of shape ``(scans,)``.
        calibration: Calibration metrics over all scans, with intervals.
        parameters: Parameters of the network in 10⁶.
        seconds: Seconds per slice.
        samples: Samples ``(draws, n, n)`` of each scan by the model of the first seed.
    """

    title: str
    acceleration: float | None
    scores: dict[str, list[float]]
    calibration: dict[str, dict[str, float]]
    parameters: float = 0.0
    seconds: float = 0.0
    samples: list[Tensor] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """Return the scores in JSON types."""
        return {
            "title": self.title,
            "acceleration": self.acceleration,
            "scores": self.scores,
            "calibration": self.calibration,
            "parameters": self.parameters,
            "seconds": self.seconds,
        }


def draw_scans(args: argparse.Namespace) -> list[Scored]:
    """Draw test people outside bank and validation, with their raters."""
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
    """Score models that differ only in the seed of their training."""
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
    """Return a statistic over all scans with its 95 % jackknife interval over people."""

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
