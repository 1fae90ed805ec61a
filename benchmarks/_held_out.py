"""Held-out phantom scans: drawn, undersampled, and with the prompts of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ctxrecon.coils import estimate_coil_maps, simulate_coil_maps
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.operators import Crop
from ctxrecon.phantom import (
    Anatomy,
    anatomy_from_labels,
    load_label_volume,
    measure,
    phantom_scan,
)
from ctxrecon.sampling import uniform1d
from ctxrecon.scan import Scan

NUM_COILS = 8
READOUT_OVERSAMPLING = 2
SNR = 100.0

# Training banks are drawn from generators seeded by small numbers.
_HELD_OUT_SEED = 10**9
_FINE_SIZE = 256


def scan_seed(seed: int, number: int) -> int:
    """Seed of everything random about one scan."""
    return _HELD_OUT_SEED + 10**6 * seed + number


def center_fraction(acceleration: float) -> float:
    """8 % at ×4, 4 % at ×8."""
    return 0.32 / acceleration


def held_out_scans(
    count: int, resolution: int, label_volumes: list[Path], seed: int
) -> list[tuple[str, Scan]]:
    """Fully sampled, readout-oversampled noisy scans of one slice, with the kind of each."""
    kinds = ["knee", "brain"] + ["label volume"] * bool(label_volumes)
    volumes = [load_label_volume(path) for path in label_volumes]
    scans = []
    for number in tqdm(range(count), desc="drawing scans", unit="scan"):
        kind = kinds[number % len(kinds)]
        own_seed = scan_seed(seed, number)
        anatomy: str | Anatomy = kind
        if kind == "label volume":
            rng = np.random.default_rng(own_seed)
            anatomy = anatomy_from_labels(
                volumes[number // len(kinds) % len(volumes)],
                float(rng.random()),
                rng,
                size=_FINE_SIZE,
                voxel_mm=float(rng.uniform(0.82, 1.0)),
            )
        generator = torch.Generator().manual_seed(own_seed)
        shape = (resolution, resolution)
        drawn = phantom_scan(anatomy, shape=shape, num_coils=1, snr=None, generator=generator)
        assert drawn.target is not None
        full = (READOUT_OVERSAMPLING * shape[0], shape[1])
        scan = measure(
            Crop((1, *full), shape).adjoint(drawn.target),
            simulate_coil_maps(NUM_COILS, full, generator=generator),
            None,
            snr=SNR,
            metadata=drawn.metadata,
            generator=generator,
        )
        scans.append((kind, scan))
    return scans


def undersample(scan: Scan, acceleration: float, seed: int, true_maps: bool) -> Scan:
    """One mask of its own; coil maps; then the readout oversampling removed."""
    assert scan.coil_maps is not None
    assert scan.target is not None
    ny, nx = scan.kspace.shape[-2:]
    mask = uniform1d(
        (ny, nx),
        acceleration,
        center_fraction(acceleration),
        generator=torch.Generator().manual_seed(seed),
    )
    kspace = scan.kspace * mask
    maps = scan.coil_maps if true_maps else estimate_coil_maps(kspace, mask)
    shape = (ny // READOUT_OVERSAMPLING, nx)
    crop, crop_coils = Crop((1, ny, nx), shape), Crop((NUM_COILS, ny, nx), shape)
    mask = mask[..., : shape[0], :]
    return Scan(
        kspace=fft2c(crop_coils(ifft2c(kspace[0])))[None] * mask,
        mask=mask,
        coil_maps=crop_coils(maps[0])[None],
        metadata=scan.metadata,
        target=crop(scan.target),
        noise_std=scan.noise_std,
    )


def shuffled(count: int, seed: int) -> list[int]:
    """A permutation that leaves nothing in its place: a random cycle."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    partner = [0] * count
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        partner[here] = there
    return partner
