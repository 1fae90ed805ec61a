"""Image quality with one scale, the reference's."""

from __future__ import annotations

from ctxrecon.metrics.curves import bd_psnr, bd_rate
from ctxrecon.metrics.image import hfen, image_metrics, nmse, psnr, sharpness, snr, ssim
from ctxrecon.metrics.maps import foreground_psnr, foreground_ssim, map_metrics
from ctxrecon.metrics.masks import redundancy_ratio
from ctxrecon.metrics.perceptual import Lpips

__all__ = [
    "Lpips",
    "bd_psnr",
    "bd_rate",
    "foreground_psnr",
    "foreground_ssim",
    "hfen",
    "image_metrics",
    "map_metrics",
    "nmse",
    "psnr",
    "redundancy_ratio",
    "sharpness",
    "snr",
    "ssim",
]
