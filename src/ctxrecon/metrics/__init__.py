"""Image quality with one scale, the reference's."""

from __future__ import annotations

from ctxrecon.metrics.image import hfen, image_metrics, nmse, psnr, sharpness, snr, ssim
from ctxrecon.metrics.perceptual import Lpips

__all__ = ["Lpips", "hfen", "image_metrics", "nmse", "psnr", "sharpness", "snr", "ssim"]
