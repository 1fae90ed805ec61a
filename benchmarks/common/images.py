"""Reconstructed images and their scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ctxrecon.metrics import image_metrics
from ctxrecon.operators import CartesianSense

_METRICS = ("psnr", "ssim", "nmse")

Score = Callable[[Tensor, Tensor], float]
"""Scores an image ``(1, ny, nx)`` given its coil maps ``(1, coils, ny, nx)``; higher is better."""


@dataclass(frozen=True)
class SliceResult:
    """Reconstruction of one slice by one method.

    Attributes:
        images: One image or several posterior samples, ``(count, ny, nx)``, complex64, on the CPU.
            Samples are scored one by one and the scores averaged.
        coil_maps: Coil maps of the reconstruction, ``(1, coils, ny, nx)``.
        seconds: Wall-clock time of one image without coil-map estimation.
        std: Standard deviation over the posterior samples, ``(ny, nx)``, or ``None``.
        chosen: Regularization weight chosen by the score, or ``None``.
    """

    images: Tensor
    coil_maps: Tensor
    seconds: float
    std: Tensor | None = None
    chosen: float | None = None


def scores(images: Tensor, reference: Tensor) -> dict[str, float]:
    """Return mean PSNR, SSIM and NMSE of ``(count, ny, nx)`` images against ``(1, ny, nx)``."""
    values = image_metrics(images, reference.expand(len(images), -1, -1))
    return {name: float(values[name].mean()) for name in _METRICS}


def data_error(images: Tensor, maps: Tensor, kspace: Tensor, where: Tensor) -> float:
    """Return ``‖M (F S x − y)‖ / ‖M y‖``, averaged over the images.

    Args:
        images: Images ``x`` of shape ``(count, ny, nx)``.
        maps: Coil maps ``S`` of the reconstruction, ``(1, coils, ny, nx)``.
        kspace: k-space ``y`` of shape ``(1, coils, ny, nx)``.
        where: Samples ``M`` to compare, ``(1, 1, ny, nx)``, bool.
    """
    y = kspace * where
    error = CartesianSense(where, maps)(images) - y
    return float((error.flatten(1).norm(dim=1) / y.norm()).mean())
