"""Metrics of image quality, parameter maps, segmentations, classification scores and masks."""

from __future__ import annotations

from ctxrecon.metrics.calibration import brier_score, expected_calibration_error
from ctxrecon.metrics.classification import auroc, bootstrap_interval, macro_auroc
from ctxrecon.metrics.curves import bd_psnr, bd_rate
from ctxrecon.metrics.image import hfen, image_metrics, nmse, psnr, sharpness, snr, ssim
from ctxrecon.metrics.maps import foreground_psnr, foreground_ssim, map_metrics
from ctxrecon.metrics.masks import redundancy_ratio
from ctxrecon.metrics.perceptual import Lpips
from ctxrecon.metrics.segmentation import (
    class_masks,
    dice,
    generalized_energy_distance,
    iou,
    majority,
    segmentation_metrics,
)

__all__ = [
    "Lpips",
    "auroc",
    "bd_psnr",
    "bd_rate",
    "bootstrap_interval",
    "brier_score",
    "class_masks",
    "dice",
    "expected_calibration_error",
    "foreground_psnr",
    "foreground_ssim",
    "generalized_energy_distance",
    "hfen",
    "image_metrics",
    "iou",
    "macro_auroc",
    "majority",
    "map_metrics",
    "nmse",
    "psnr",
    "redundancy_ratio",
    "segmentation_metrics",
    "sharpness",
    "snr",
    "ssim",
]
