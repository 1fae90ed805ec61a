"""Scores of a prior: prediction error of held-out samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ctxrecon.errors import InputError
from ctxrecon.operators import sense_operator
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.training.adapt.slices import Slice, Trial


@dataclass(frozen=True)
class Scores:
    """Relative errors ``‖M(A x − y)‖ / ‖M y‖`` of hidden samples before and after adaptation.

    There is one value per trial. The errors include the noise of the samples.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Mean gain over the trials in dB; minus infinity if a reconstruction failed."""
        if math.inf in self.after:
            return -math.inf
        ratios = [old / new for old, new in zip(self.before, self.after, strict=True)]
        return sum(20 * math.log10(ratio) for ratio in ratios) / len(ratios)


def reconstruct(
    pipe: ContextMRIPipeline, item: Slice, *, steps: int = 20, seed: int = 0
) -> torch.Tensor:
    """Reconstruct a slice with the pipeline's own solver, ``(1, ny, nx)`` in the scan's units."""
    output = pipe(
        item.measurement,
        prompt=item.prompt or None,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
    )
    return output.images


def prediction_errors(pipe: ContextMRIPipeline, trials: Sequence[Trial]) -> tuple[float, ...]:
    """Return the relative error of each trial's hidden samples; infinite if it fails."""
    found = []
    for trial in trials:
        operator = sense_operator(trial.hidden, trial.slice.measurement.coil_maps)
        y = trial.kspace * trial.hidden
        try:
            image = reconstruct(pipe, trial.slice)
        except InputError:  # NaN or infinite values from diverged weights
            found.append(math.inf)
            continue
        found.append(float((operator(image) - y).norm() / y.norm()))
    return tuple(found)
