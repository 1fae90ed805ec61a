"""Validation of a reconstructor on held-out phantom scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctxrecon.figures import comparison_figure
from ctxrecon.metrics import image_metrics
from ctxrecon.operators import SoftSense
from ctxrecon.phantom import measure
from ctxrecon.pipelines import ReconstructionPipeline, prepare_measurement
from ctxrecon.scan import Scan
from ctxrecon.training.held_out import HELD_OUT_SEED, held_out_scans, targets_of
from ctxrecon.training.reconstructor.data import Sampling


class UndersampledScans:
    """Held-out procedural knees and brains, undersampled as in training.

    Args:
        count: Number of scans.
        resolution: Matrix size ``n``.
        sampling: Masks, coils and noise.
    """

    def __init__(self, count: int, resolution: int, sampling: Sampling) -> None:
        self.scans = held_out_scans(
            count,
            resolution,
            lambda generator: sampling.draw(
                resolution, np.random.default_rng(generator.initial_seed())
            )[1],
            num_coils=sampling.num_coils,
            snr=sampling.snr or None,
        )
        if sampling.magnitude:
            self.scans = [
                magnitude_scan(scan, sampling.snr or None, HELD_OUT_SEED + number)
                for number, scan in enumerate(self.scans)
            ]

    def validate(self, pipe: ReconstructionPipeline, picture: Path) -> dict[str, float]:
        """Return PSNR in dB and SSIM, and the PSNR of zero-filling; plot the first brain.

        Coil maps are estimated from each scan's own samples.
        """
        images: dict[str, list[Tensor]] = {"zero-filled": [], "reconstructed": []}
        for scan in self.scans:
            measured = prepare_measurement(scan.kspace, scan.mask)
            prompt = scan.metadata[0].to_prompt()
            output = pipe(measured, prompt=prompt)
            zero_filled = measured.operator.adjoint(measured.y)
            if isinstance(measured.operator, SoftSense):
                zero_filled = measured.operator.combine(zero_filled)
            images["zero-filled"].append(zero_filled)
            images["reconstructed"].append(output.images.cpu())
        found = {name: torch.cat(values) for name, values in images.items()}
        targets = targets_of(self.scans)
        scores = {name: image_metrics(values, targets) for name, values in found.items()}
        shown = min(1, len(self.scans) - 1)
        comparison_figure(
            picture,
            {name: values[shown] for name, values in found.items()},
            targets[shown],
            title="Held-out phantom",
        )
        return {
            "psnr": scores["reconstructed"]["psnr"].mean().item(),
            "ssim": scores["reconstructed"]["ssim"].mean().item(),
            "psnr_zero_filled": scores["zero-filled"]["psnr"].mean().item(),
        }


def magnitude_scan(scan: Scan, snr: float | None, seed: int) -> Scan:
    """Return a scan of the magnitude images with the same mask and one coil without phase.

    Args:
        scan: Scan whose target contains the images.
        snr: Signal-to-noise ratio, see :func:`~ctxrecon.phantom.measure`.
        seed: Random seed of the noise.
    """
    assert scan.target is not None
    images = scan.target.abs().to(scan.target.dtype)
    return measure(
        images,
        torch.ones_like(images[:1, None]),
        scan.mask,
        snr=snr,
        metadata=scan.metadata,
        generator=torch.Generator().manual_seed(seed),
    )
