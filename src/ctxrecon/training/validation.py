"""Validation of a prior while it trains: held-out phantom scans, reconstructed with DDS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctxrecon.figures import comparison_figure
from ctxrecon.metrics import image_metrics
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import ContextMRIPipeline
from ctxrecon.sampling import uniform1d
from ctxrecon.scan import Scan
from ctxrecon.solvers import DDS

# Banks are drawn from generators seeded by small numbers, benchmarks test from 10**9 on.
_SEED = 2 * 10**9
_ACCELERATION, _CENTER_FRACTION = 8.0, 0.04
_NUM_COILS, _SNR = 8, 100.0
_STEPS, _DATA_WEIGHT = 20, 50.0


class HeldOutScans:
    """Procedural knees and brains, undersampled 8-fold, that no training bank holds.

    Args:
        count: number of scans.
        resolution: matrix size ``n``.
    """

    def __init__(self, count: int, resolution: int) -> None:
        self.scans: list[Scan] = []
        for number in range(count):
            generator = torch.Generator().manual_seed(_SEED + number)
            shape = (resolution, resolution)
            self.scans.append(
                phantom_scan(
                    ("knee", "brain")[number % 2],
                    shape=shape,
                    num_coils=_NUM_COILS,
                    mask=uniform1d(shape, _ACCELERATION, _CENTER_FRACTION, generator=generator),
                    snr=_SNR,
                    generator=generator,
                )
            )

    def __call__(self, pipe: ContextMRIPipeline, guidance_scale: float) -> Tensor:
        """Reconstructions ``(scans, n, n)`` complex64, with the scans' own coil maps."""
        output: Any = pipe(
            torch.cat([scan.kspace for scan in self.scans]),
            torch.cat([scan.mask for scan in self.scans]),
            [scan.metadata[0].to_prompt() for scan in self.scans] if guidance_scale else None,
            coil_maps=torch.cat([_given(scan.coil_maps) for scan in self.scans]),
            guidance_scale=guidance_scale,
            num_inference_steps=_STEPS,
            solver=DDS(data_weight=_DATA_WEIGHT),
            generator=[
                torch.Generator().manual_seed(_SEED + number) for number in range(len(self.scans))
            ],
        )
        return output.images.cpu()

    @property
    def targets(self) -> Tensor:
        """``(scans, n, n)`` complex64."""
        return torch.cat([_given(scan.target) for scan in self.scans])

    def validate(self, pipe: ContextMRIPipeline, picture: Path) -> dict[str, float]:
        """PSNR in dB with and without the prompt (γ = 1 and 0); draws the first brain."""
        images = {"γ = 0": self(pipe, 0.0), "γ = 1": self(pipe, 1.0)}
        scores = {
            name: image_metrics(values, self.targets)["psnr"].mean().item()
            for name, values in images.items()
        }
        shown = min(1, len(self.scans) - 1)
        comparison_figure(
            picture,
            {name: values[shown] for name, values in images.items()},
            self.targets[shown],
            title=f"Held-out phantom, ×{_ACCELERATION:g}",
        )
        return {"psnr": scores["γ = 1"], "psnr_without_prompt": scores["γ = 0"]}


def _given(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
