"""Validation while a prior or a reconstructor trains, on held-out phantom scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrecon.figures import comparison_figure
from ctxrecon.masks import uniform1d
from ctxrecon.metrics import image_metrics
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import ContextMRIPipeline, ReconstructionPipeline, prepare_measurement
from ctxrecon.scan import Scan
from ctxrecon.solvers import DDS
from ctxrecon.training.measurements import Sampling

# Banks are drawn from generators seeded by small numbers, benchmarks test from 10**9 on.
_SEED = 2 * 10**9
_ACCELERATION, _CENTER_FRACTION = 8.0, 0.04
_NUM_COILS, _SNR = 8, 100.0
_STEPS, _DATA_WEIGHT = 20, 50.0


class HeldOutScans:
    """Procedural knees and brains, undersampled 8-fold, reconstructed with DDS.

    Args:
        count: number of scans.
        resolution: matrix size ``n``.
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

    def validate(self, pipe: ContextMRIPipeline, picture: Path) -> dict[str, float]:
        """PSNR in dB with and without the prompt (γ = 1 and 0); draws the first brain."""
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


class UndersampledScans:
    """Procedural knees and brains that no training bank holds, undersampled as in training.

    Args:
        count: number of scans.
        resolution: matrix size ``n``.
        sampling: masks, coils and noise.
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

    def validate(self, pipe: ReconstructionPipeline, picture: Path) -> dict[str, float]:
        """PSNR in dB and SSIM, and the PSNR of zero-filling; draws the first brain.

        Coil maps are estimated from each scan's own samples.
        """
        images: dict[str, list[Tensor]] = {"zero-filled": [], "reconstructed": []}
        for scan in self.scans:
            measured = prepare_measurement(scan.kspace, scan.mask)
            prompt = scan.metadata[0].to_prompt()
            output: Any = pipe(measured, prompt=prompt)
            images["zero-filled"].append(measured.operator.adjoint(measured.y))
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


def held_out_scans(
    count: int,
    resolution: int,
    draw_mask: Callable[[torch.Generator], Tensor],
    *,
    num_coils: Sequence[int],
    snr: float | None,
) -> list[Scan]:
    """Knees and brains by turns, each with a mask of its own; two of each number of coils."""
    scans = []
    for number in range(count):
        generator = torch.Generator().manual_seed(_SEED + number)
        scans.append(
            phantom_scan(
                ("knee", "brain")[number % 2],
                shape=(resolution, resolution),
                num_coils=num_coils[number // 2 % len(num_coils)],
                mask=draw_mask(generator),
                snr=snr,
                generator=generator,
            )
        )
    return scans


def targets_of(scans: Sequence[Scan]) -> Tensor:
    """``(scans, n, n)`` complex64."""
    return torch.cat([_given(scan.target) for scan in scans])


def _given(value: Tensor | None) -> Tensor:
    assert value is not None
    return value
