"""How slices of people are measured, and what the noise of a reference leaves possible."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.held_out import scan_seed, undersample
from benchmarks.common.people import PersonSlice
from ctxrecon.scan import Scan
from ctxrecon.training.slices import image_noise

_BODY = 0.1
"""Magnitude from which a pixel belongs to the body, relative to the bright signal."""


def measured(scan: Scan, one: PersonSlice, acceleration: float, seed: int) -> Scan:
    """What a mask of its own leaves of a scan, with the true coil maps."""
    return undersample(scan, acceleration, scan_seed(seed, one.number), true_maps=True)


def noise_deviation(image: Tensor) -> Tensor:
    """Standard deviation of the noise in each pixel of a magnitude image ``(ny, nx)``.

    One value in the body and another around it: there noise is Rayleigh distributed, or was set to
    zero.
    """
    pixels = image.abs().numpy()
    body = pixels > _BODY
    levels = [image_noise(pixels, ~body), image_noise(pixels, body)]
    return torch.tensor(levels, dtype=torch.float32)[torch.from_numpy(body).long()]


@dataclass(frozen=True)
class Ceiling:
    """Scores of an image that is wrong by the reference's noise in unmeasured samples alone.

    Noise that was not measured cannot be predicted, whatever is known of the body: the mean squared
    error of the magnitude is at least ``(1 − s) v``, with the share ``s`` of k-space that is
    sampled and the mean variance ``v`` of the noise in the reference's magnitude.

    Attributes:
        error: that mean squared error.
        image: ``(1, ny, nx)``, the reference with an error of that size, for the other scores.
    """

    error: float
    image: Tensor

    @classmethod
    def of(cls, reference: Tensor, mask: Tensor, seed: int) -> Ceiling:
        """The ceiling of a reference ``(1, ny, nx)`` under a mask ``(1, 1, ny, nx)``."""
        missing = 1 - float(mask.double().mean())
        deviation = math.sqrt(missing) * noise_deviation(reference[0])
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(deviation.shape, generator=generator)
        error = float(deviation.double().square().mean())
        return cls(error, reference.abs() + deviation * noise)

    def scores(self, reference: Tensor) -> dict[str, float]:
        """PSNR and NMSE by the formula."""
        power = reference.abs().double().square()
        with np.errstate(divide="ignore"):
            psnr = 10 * np.log10(np.float64(power.max()) / self.error)
        return {"psnr": float(psnr), "nmse": self.error / float(power.mean())}
