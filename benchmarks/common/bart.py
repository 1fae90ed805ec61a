"""BART's coil maps and L1-wavelet reconstruction, run through its command line."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.images import Score, SliceResult
from ctxrecon.coils import find_calibration_region
from ctxrecon.io.bart import read_cfl
from ctxrecon.operators import CartesianSense

BART_LAMBDAS = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2)
"""Candidate weights of BART's L1-wavelet, in the units of BART's own data scaling."""

_BART_ITERATIONS = 100
_BART_READOUT = 48
_MAX_KERNEL = 6


def bart_coil_maps(kspace: Tensor, mask: Tensor) -> Tensor:
    """Estimate coil maps by BART's ESPIRiT; its other options keep their defaults.

    The calibration region is as long along the readout as the scan allows.

    Args:
        kspace: k-space of shape ``(1, coils, ny, nx)``.
        mask: Sampling mask of shape ``(1, 1, ny, nx)``, bool.

    Returns:
        Coil maps of shape ``(1, coils, ny, nx)``.
    """
    region = find_calibration_region(mask, max_size=(_BART_READOUT, _BART_READOUT // 2))
    size = [part.stop - part.start for part in region]
    kernel = [min(_MAX_KERNEL, n // 2) for n in size]
    options = ["-m1", "-r", f"{size[0]}:{size[1]}:1", "-k", f"{kernel[0]}:{kernel[1]}:1"]
    return _bart(["ecalib", *options], kspace)


def bart_l1_wavelet(
    kspace: Tensor,
    mask: Tensor,
    maps: Tensor,
    score: Score,
    tried: Sequence[float],
    *,
    iterations: int = _BART_ITERATIONS,
) -> SliceResult:
    """Run ``bart pics`` with an L1-wavelet penalty and keep the weight with the best score.

    ``score`` compares with the reference, which a user does not have: the choice favors BART. The
    time is that of one run.
    """
    best: SliceResult | None = None
    best_score = -np.inf
    for weight in tried:
        options = ["-S", f"-i{iterations}", "-R", f"W:3:0:{weight:g}"]
        started = time.perf_counter()
        images = bart_pics(kspace, maps, options)
        seconds = time.perf_counter() - started
        # If a size is not a multiple of four, BART's Fourier transform has the opposite sign.
        images = images * _phase_to(CartesianSense(mask, maps)(images), kspace)
        value = score(images, maps)
        if best is None or value > best_score:
            best, best_score = SliceResult(images, maps, seconds, chosen=weight), value
    assert best is not None
    return best


def bart_pics(kspace: Tensor, maps: Tensor, options: Sequence[str]) -> Tensor:
    """Run ``bart pics`` on one slice.

    Args:
        kspace: Undersampled k-space of shape ``(1, coils, ny, nx)``.
        maps: Coil maps of the same shape.
        options: Options of ``bart pics``.

    Returns:
        Image of shape ``(1, ny, nx)``, up to a constant phase.
    """
    return _bart(["pics", *options], kspace, maps)[:, 0]


def _bart(command: Sequence[str], *inputs: Tensor) -> Tensor:
    """Run one BART tool on ``(1, coils, ny, nx)`` arrays; return its output in the same shape."""
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, value in enumerate(inputs):
            array = value[0].permute(1, 2, 0)[:, :, None].cpu().numpy().astype("<c8")
            path = Path(folder, f"in{number}")
            path.with_suffix(".hdr").write_text(
                "# Dimensions\n" + " ".join(map(str, array.shape)) + "\n", encoding="ascii"
            )
            path.with_suffix(".cfl").write_bytes(array.tobytes(order="F"))
            names.append(str(path))
        written = Path(folder, "out")
        subprocess.run(
            ["bart", *command, *names, str(written)], check=True, capture_output=True, text=True
        )
        array = np.array(read_cfl(written.with_suffix(".cfl")))
    return torch.from_numpy(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1)[None].copy())


def _phase_to(predicted: Tensor, kspace: Tensor) -> Tensor:
    """Return the unit complex number that rotates the prediction to the measurement's phase."""
    return torch.vdot(predicted.flatten(), kspace.flatten()).sgn()
