"""How well a prior predicts samples that it was not given."""

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
    """Relative errors of hidden samples before and after, ``‖M(A x − y)‖ / ‖M y‖`` of each trial.

    The noise of the samples is part of them.
    """

    before: tuple[float, ...]
    after: tuple[float, ...]

    @property
    def gain(self) -> float:
        """In dB, the mean over the trials; minus infinity after a reconstruction that failed."""
        if math.inf in self.after:
            return -math.inf
        ratios = [old / new for old, new in zip(self.before, self.after, strict=True)]
        return sum(20 * math.log10(ratio) for ratio in ratios) / len(ratios)


def reconstruct(
    pipe: ContextMRIPipeline, item: Slice, *, steps: int = 20, seed: int = 0
) -> torch.Tensor:
    """The image ``(1, ny, nx)`` of a slice by the pipeline's own solver, in the scan's units."""
    output = pipe(
        item.measurement,
        prompt=item.prompt or None,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
    )
    return output.images


def prediction_errors(pipe: ContextMRIPipeline, trials: Sequence[Trial]) -> tuple[float, ...]:
    """Relative error of the hidden samples of each trial, infinite where nothing comes out."""
    found = []
    for trial in trials:
        operator = sense_operator(trial.hidden, trial.slice.measurement.coil_maps)
        y = trial.kspace * trial.hidden
        try:
            image = reconstruct(pipe, trial.slice)
        except InputError:  # NaN or infinite values, of weights that went astray
            found.append(math.inf)
            continue
        found.append(float((operator(image) - y).norm() / y.norm()))
    return tuple(found)
