"""Validation of the prior: reconstructions of held-out phantom scans."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ctxrecon.figures import comparison_figure
from ctxrecon.masks import uniform1d
from ctxrecon.metrics import image_metrics
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.solvers import DDS
from ctxrecon.training.held_out import HELD_OUT_SEED, held_out_scans, targets_of

_ACCELERATION, _CENTER_FRACTION = 8.0, 0.04
_NUM_COILS, _SNR = 8, 100.0
_STEPS, _DATA_WEIGHT = 20, 50.0


class HeldOutScans:
    """Procedural knees and brains, undersampled 8-fold and reconstructed with DDS.

    Args:
        count: Number of scans.
        resolution: Matrix size ``n``.
    """

    def __init__(self, count: int, resolution: int) -> None:
        self.scans = held_out_scans(
            count,
            resolution,
            lambda generator: uniform1d(
                (resolution, resolution), _ACCELERATION, _CENTER_FRACTION, generator=generator
            ),
            num_coils=[_NUM_COILS],
            snr=_SNR,
        )

    def __call__(self, pipe: ContextMRIPipeline, guidance_scale: float) -> Tensor:
        """Return reconstructions ``(scans, n, n)``, complex64, with the scans' own coil maps."""
        maps = [scan.coil_maps for scan in self.scans if scan.coil_maps is not None]
        output = pipe(
            torch.cat([scan.kspace for scan in self.scans]),
            torch.cat([scan.cartesian_mask for scan in self.scans]),
            [scan.metadata[0].to_prompt() for scan in self.scans] if guidance_scale else None,
            coil_maps=torch.cat(maps),
            guidance_scale=guidance_scale,
            num_inference_steps=_STEPS,
            solver=DDS(data_weight=_DATA_WEIGHT),
            generator=[
                torch.Generator().manual_seed(HELD_OUT_SEED + number)
                for number in range(len(self.scans))
            ],
        )
        return output.images.cpu()

    def validate(self, pipe: ContextMRIPipeline, picture: Path) -> dict[str, float]:
        """Return the PSNR in dB with and without the prompt (γ = 1 and 0); plot the first brain."""
        images = {"γ = 0": self(pipe, 0.0), "γ = 1": self(pipe, 1.0)}
        targets = targets_of(self.scans)
        scores = {
            name: image_metrics(values, targets)["psnr"].mean().item()
            for name, values in images.items()
        }
        shown = min(1, len(self.scans) - 1)
        comparison_figure(
            picture,
            {name: values[shown] for name, values in images.items()},
            targets[shown],
            title=f"Held-out phantom, ×{_ACCELERATION:g}",
        )
        return {"psnr": scores["γ = 1"], "psnr_without_prompt": scores["γ = 0"]}
