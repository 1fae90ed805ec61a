"""Simulated measurement of people's slices, and the best scores that noisy references permit."""

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
"""Threshold of the body, relative to the bright signal."""


def measured(scan: Scan, one: PersonSlice, acceleration: float, seed: int) -> Scan:
    """Undersample a scan by its own mask, keeping the true coil maps."""
    return undersample(scan, acceleration, scan_seed(seed, one.number), true_maps=True)


def noise_deviation(image: Tensor) -> Tensor:
    """Estimate the noise standard deviation in each pixel of a magnitude image ``(ny, nx)``.

    The body and the background have separate values, because background noise is Rayleigh
    distributed or was set to zero.
    """
    pixels = image.abs().numpy()
    body = pixels > _BODY
    levels = [image_noise(pixels, ~body), image_noise(pixels, body)]
    return torch.tensor(levels, dtype=torch.float32)[torch.from_numpy(body).long()]


@dataclass(frozen=True)
class Ceiling:
    """Scores of an image whose only error is the reference's noise in unmeasured samples.

    This noise cannot be predicted: the mean squared error of the magnitude is at least
    ``(1 − s) v``, where ``s`` is the sampled share of k-space and ``v`` the mean noise variance of
    the reference's magnitude.

    Attributes:
        error: Mean squared error ``(1 − s) v``.
        image: Reference with an error of that size, ``(1, ny, nx)``, for the other scores.
    """

    error: float
    image: Tensor

    @classmethod
    def of(cls, reference: Tensor, mask: Tensor, seed: int) -> Ceiling:
        """Return the ceiling of a reference ``(1, ny, nx)`` under a mask ``(1, 1, ny, nx)``."""
        missing = 1 - float(mask.double().mean())
        deviation = math.sqrt(missing) * noise_deviation(reference[0])
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(deviation.shape, generator=generator)
        error = float(deviation.double().square().mean())
        return cls(error, reference.abs() + deviation * noise)

    def scores(self, reference: Tensor) -> dict[str, float]:
        """Return PSNR and NMSE computed from the error."""
        power = reference.abs().double().square()
        with np.errstate(divide="ignore"):
            psnr = 10 * np.log10(np.float64(power.max()) / self.error)
        return {"psnr": float(psnr), "nmse": self.error / float(power.mean())}
