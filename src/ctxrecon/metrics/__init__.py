"""Image quality with one scale, the reference's."""

from __future__ import annotations

from ctxrecon.metrics.image import image_metrics, nmse, psnr, snr, ssim
from ctxrecon.metrics.perceptual import Lpips

__all__ = ["Lpips", "image_metrics", "nmse", "psnr", "snr", "ssim"]
