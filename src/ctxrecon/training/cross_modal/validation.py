"""Validation of a cross-modal network on held-out phantom scans."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ctxrecon.figures import comparison_figure
from ctxrecon.metrics import image_metrics
from ctxrecon.operators import sense_operator
from ctxrecon.phantom import Misalignment, PairScan, brain_anatomy, pair_scan
from ctxrecon.pipelines import CrossModalPipeline
from ctxrecon.reconstructors.warp import endpoint_error, fold_share
from ctxrecon.training.held_out import HELD_OUT_SEED
from ctxrecon.training.reconstructor.data import Sampling


class UndersampledPairs:
    """Held-out procedural brains, undersampled as in training.

    Args:
        count: Number of scans.
        resolution: Matrix size ``n``.
        sampling: Masks, coils and noise.
        misalignment: Extent of the motion.
        magnitude: If true, images have no phase.
    """

    def __init__(
        self,
        count: int,
        resolution: int,
        sampling: Sampling,
        misalignment: Misalignment,
        magnitude: bool,
    ) -> None:
        self.scans: list[tuple[PairScan, torch.Tensor]] = []
        for number in range(count):
            seed = HELD_OUT_SEED + number
            generator = torch.Generator().manual_seed(seed)
            mask = sampling.draw(resolution, np.random.default_rng(seed))[1]
            scan = pair_scan(
                brain_anatomy(generator, size=max(256, resolution)),
                misalignment=misalignment,
                shape=(resolution, resolution),
                num_coils=sampling.num_coils[number % len(sampling.num_coils)],
                snr=sampling.snr or None,
                magnitude=magnitude,
                generator=generator,
            )
            self.scans.append((scan, mask))

    def validate(self, pipe: CrossModalPipeline, picture: Path) -> dict[str, float]:
        """Return scores of images and references; plot the first brain.

        The scores are PSNR in dB and SSIM of the reconstruction, PSNR of zero-filling and of the
        synthetic image, ``‖x_R − x_G‖₁``, the endpoint error of the displacement inside the head
        in pixels, the same without alignment, and the share of folds.
        """
        found: dict[str, list[float]] = {}
        for number, (scan, mask) in enumerate(self.scans):
            output = pipe(
                scan.kspace * mask,
                mask,
                prompt=scan.metadata[0].to_prompt(),
                reference=scan.reference,
                coil_maps=scan.coil_maps,
            )
            images, aligned, synthetic, displacement = (
                output[name].cpu() for name in ("images", "aligned", "synthetic", "displacement")
            )
            filled = sense_operator(mask, scan.coil_maps).adjoint(scan.kspace * mask)
            scores = image_metrics(images, scan.target)
            truth = torch.from_numpy(scan.pair.displacement)[None]
            head = torch.from_numpy(scan.pair.labels > 0)[None]
            values = {
                "psnr": scores["psnr"],
                "ssim": scores["ssim"],
                "psnr_zero_filled": image_metrics(filled, scan.target)["psnr"],
                "psnr_synthetic": image_metrics(synthetic, scan.target)["psnr"],
                "synthesis_distance": (images.abs() - synthetic.abs()).abs().mean(),
                "endpoint_error": endpoint_error(displacement, truth, head),
                "endpoint_error_before": endpoint_error(torch.zeros_like(truth), truth, head),
                "folds": fold_share(displacement, head),
            }
            for name, value in values.items():
                found.setdefault(name, []).append(float(value))
            if number == 0:
                shown = {
                    "zero-filled": filled[0],
                    "reference": scan.reference[0],
                    "aligned": aligned[0],
                    "synthetic": synthetic[0],
                    "reconstructed": images[0],
                }
                comparison_figure(picture, shown, scan.target[0], title="Held-out phantom")
        return {name: float(np.mean(values)) for name, values in found.items()}
