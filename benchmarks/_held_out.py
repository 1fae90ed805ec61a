"""Held-out phantom scans: drawn, undersampled, and with the prompts of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from ctxrecon.coils import estimate_coil_maps
from ctxrecon.phantom import (
    Anatomy,
    anatomy_from_labels,
    load_label_volume,
    phantom_scan,
)
from ctxrecon.sampling import uniform1d
from ctxrecon.scan import Scan

NUM_COILS = 8
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
    """Fully sampled noisy scans of one slice, with the kind of each."""
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
        scan = phantom_scan(
            anatomy,
            shape=(resolution, resolution),
            num_coils=NUM_COILS,
            snr=SNR,
            generator=torch.Generator().manual_seed(own_seed),
        )
        scans.append((kind, scan))
    return scans


def undersample(scan: Scan, acceleration: float, seed: int, true_maps: bool) -> Scan:
    """One mask of its own, and coil maps from what it leaves."""
    ny, nx = scan.kspace.shape[-2:]
    mask = uniform1d(
        (ny, nx),
        acceleration,
        center_fraction(acceleration),
        generator=torch.Generator().manual_seed(seed),
    )
    kspace = scan.kspace * mask
    maps = scan.coil_maps if true_maps else estimate_coil_maps(kspace, mask)
    return replace(scan, kspace=kspace, mask=mask, coil_maps=maps)


def shuffled(count: int, seed: int) -> list[int]:
    """A permutation that leaves nothing in its place: a random cycle."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    partner = [0] * count
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        partner[here] = there
    return partner
