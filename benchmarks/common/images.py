"""Reconstructed images, and scores of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ctxrecon.metrics import image_metrics
from ctxrecon.operators import CartesianSense

_METRICS = ("psnr", "ssim", "nmse")

Score = Callable[[Tensor, Tensor], float]
"""Rates an image ``(1, ny, nx)`` made with coil maps ``(1, coils, ny, nx)``; higher is better."""


@dataclass(frozen=True)
class SliceResult:
    """What a method gave for one slice.

    Attributes:
        images: ``(count, ny, nx)`` complex64 on the CPU; each is scored alone and the scores
            averaged (posterior samples), or there is just one.
        coil_maps: ``(1, coils, ny, nx)`` that it was made with.
        seconds: wall-clock time of one image, coil maps not counted.
        std: ``(ny, nx)`` over the posterior samples, or ``None``.
        chosen: weight that was chosen by looking at the score, or ``None``.
    """

    images: Tensor
    coil_maps: Tensor
    seconds: float
    std: Tensor | None = None
    chosen: float | None = None


def scores(images: Tensor, reference: Tensor) -> dict[str, float]:
    """PSNR, SSIM and NMSE of each ``(count, ny, nx)`` against one ``(1, ny, nx)``, averaged."""
    values = image_metrics(images, reference.expand(len(images), -1, -1))
    return {name: float(values[name].mean()) for name in _METRICS}


def data_error(images: Tensor, maps: Tensor, kspace: Tensor, where: Tensor) -> float:
    """``‖M (F S x − y)‖ / ‖M y‖`` at the samples ``where``, averaged over the images.

    Args:
        images: ``(count, ny, nx)``.
        maps: ``(1, coils, ny, nx)`` that they were made with.
        kspace: ``(1, coils, ny, nx)``.
        where: ``(1, 1, ny, nx)`` bool, ``M``.
    """
    y = kspace * where
    error = CartesianSense(where, maps)(images) - y
    return float((error.flatten(1).norm(dim=1) / y.norm()).mean())
