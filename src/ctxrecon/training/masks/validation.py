"""Validation of a sampler on held-out multi-contrast subjects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ctxrecon.errors import InputError
from ctxrecon.figures import comparison_figure
from ctxrecon.fourier import fft2c
from ctxrecon.metadata import ScanMetadata
from ctxrecon.metrics import image_metrics, map_metrics
from ctxrecon.phantom import (
    ContrastScan,
    brain_anatomy,
    contrast_scan,
    draw_protocol,
    knee_anatomy,
    multi_echo,
    pd_pair,
)
from ctxrecon.pipelines.joint import JointOutput, JointPipeline
from ctxrecon.tasks import foreground_mask
from ctxrecon.training.held_out import HELD_OUT_SEED
from ctxrecon.training.samplers import middle_acceleration

_FINE_SIZE = 256


def draw_protocols(
    contrasts: str, anatomy: str, generator: torch.Generator
) -> Sequence[ScanMetadata]:
    """Draw the protocols of a subject's contrasts.

    Args:
        contrasts: One of :data:`~ctxrecon.training.masks.config.CONTRASTS`.
        anatomy: Anatomy, such as ``"knee"``.
        generator: Source of randomness.
    """
    if contrasts == "one":
        return [draw_protocol(generator, anatomy)]
    return (multi_echo if contrasts == "multi_echo" else pd_pair)(generator)


class ContrastScans:
    """Held-out procedural subjects, fully sampled.

    Args:
        count: Number of scans.
        resolution: Matrix size ``n``.
        contrasts: One of :data:`~ctxrecon.training.masks.config.CONTRASTS`.
        anatomy: "knee" or "brain" (default: both in turn, and knees only for "pd_pair").
        num_coils: Number of coils of the simulated array.
        snr: Ratio of the bright signal to the complex noise; 0 for no noise.
        magnitude: If true, the magnitudes are scanned, see :func:`magnitude_scan`.
    """

    def __init__(
        self,
        count: int,
        resolution: int,
        contrasts: str,
        anatomy: str | None,
        num_coils: int,
        snr: float,
        *,
        magnitude: bool = False,
    ) -> None:
        kinds = [anatomy] if anatomy else ["knee", "brain"][: 1 if contrasts == "pd_pair" else 2]
        draws = {"knee": knee_anatomy, "brain": brain_anatomy}
        self.scans: list[ContrastScan] = []
        for number in range(count):
            generator = torch.Generator().manual_seed(HELD_OUT_SEED + number)
            draw = draws[kinds[number % len(kinds)]]
            subject = draw(generator, size=max(_FINE_SIZE, resolution))
            scan = contrast_scan(
                subject,
                draw_protocols(contrasts, subject.name, generator),
                shape=(resolution, resolution),
                num_coils=num_coils,
                snr=snr or None,
                generator=generator,
            )
            self.scans.append(magnitude_scan(scan) if magnitude else scan)

    def validate(self, pipe: JointPipeline, picture: Path) -> dict[str, float]:
        """Return mean PSNR in dB and SSIM, also of maps; plot the first contrast of a scan."""
        rows, outputs = [], []
        for number, scan in enumerate(self.scans):
            output = sample_and_reconstruct(pipe, scan, HELD_OUT_SEED + number)
            rows.append(joint_scores(pipe, output, scan))
            outputs.append(output)
        if not rows:
            raise InputError("expected at least one validation scan, got none")
        shown = min(1, len(rows) - 1)
        scan, output = self.scans[shown], outputs[shown]
        comparison_figure(
            picture,
            {"mask": output.masks[0, 0, 0].float(), "reconstructed": output.images[0, 0].cpu()},
            scan.images[0, 0],
            title="Held-out phantom",
        )
        return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}


def magnitude_scan(scan: ContrastScan) -> ContrastScan:
    """Return a scan of the magnitude images with a coil without phase and the original noise.

    Except for the noise, its k-space is conjugate symmetric.

    Args:
        scan: Single-coil scan.
    """
    noise = scan.kspace - fft2c(scan.coil_maps[:, None] * scan.images[:, :, None])
    images = scan.images.abs().to(scan.images.dtype)
    return replace(
        scan,
        kspace=fft2c(images)[:, :, None] + noise,
        coil_maps=torch.ones_like(scan.coil_maps),
        images=images,
    )


def sample_and_reconstruct(
    pipe: JointPipeline,
    scan: ContrastScan,
    seed: int,
    acceleration: float | None = None,
    *,
    stages: bool = False,
) -> JointOutput:
    """Run the pipeline on a fully sampled scan, with a seeded mask.

    Args:
        pipe: Pipeline of sampler and network.
        scan: Fully sampled scan with the contrasts of the pipeline.
        seed: Random seed of the mask.
        acceleration: Acceleration factor (default: the sampler's own, or the middle of its range).
        stages: If true, also return the stages, see :meth:`JointPipeline.__call__`.
    """
    if acceleration is None:
        acceleration = middle_acceleration(pipe.sampler)
    return pipe(
        scan.kspace,
        prompt=[one.to_prompt() for one in scan.metadata],
        acceleration=acceleration,
        generator=torch.Generator().manual_seed(seed),
        stages=stages,
    )


def joint_scores(pipe: JointPipeline, output: JointOutput, scan: ContrastScan) -> dict[str, float]:
    """Return mean PSNR and SSIM, the PSNR of each contrast (from 0), and the T2* map's scores.

    Images are compared with the noiseless ones. The map is compared with the map that the same
    relaxometer computes from these, with and without the background
    (:func:`~ctxrecon.metrics.map_metrics`).
    """
    images = output.images[0].cpu()
    found = image_metrics(images, scan.images[0])
    row = {name: float(found[name].mean()) for name in ("psnr", "ssim")}
    row |= {f"psnr_contrast_{c}": float(value) for c, value in enumerate(found["psnr"])}
    if output.t2star is not None and pipe.relaxometer is not None:
        truth = pipe.relaxometer(scan.images.to(output.t2star.device)).cpu()
        maps = map_metrics(output.t2star.cpu(), truth, foreground_mask(scan.images))
        row |= {f"map_{name}": float(value) for name, value in maps.items()}
    return row
