"""Held-out phantom scans: drawn, undersampled, and with the prompts of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

from ctxrecon.coils import estimate_coil_maps
from ctxrecon.masks import uniform1d
from ctxrecon.phantom import (
    Anatomy,
    anatomy_from_labels,
    brain_anatomy,
    knee_anatomy,
    load_label_volume,
    phantom_scan,
)
from ctxrecon.scan import Scan

NUM_COILS = 8
SNR = 100.0
LABEL_VOLUME = "label volume"
"""Kind of a slice of a label volume; the other kinds are ``"knee"`` and ``"brain"``."""
KINDS = ("knee", "brain", LABEL_VOLUME)
"""Kinds of scans in the order that they are drawn in, by turns."""

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
    count: int,
    resolution: int,
    label_volumes: list[Path],
    seed: int,
    *,
    num_coils: int = NUM_COILS,
) -> list[tuple[str, Scan]]:
    """Fully sampled noisy scans of one slice, with the kind of each."""
    kinds = KINDS if label_volumes else KINDS[:-1]
    volumes = [load_label_volume(path) for path in label_volumes]
    scans = []
    for number in tqdm(range(count), desc="drawing scans", unit="scan"):
        kind = kinds[number % len(kinds)]
        volume = volumes[number // len(kinds) % len(volumes)] if kind == LABEL_VOLUME else None
        own_seed = scan_seed(seed, number)
        scans.append((kind, held_out_scan(kind, own_seed, resolution, volume, num_coils=num_coils)))
    return scans


def held_out_scan(
    kind: str,
    own_seed: int,
    resolution: int,
    volume: NDArray[np.int16] | None = None,
    *,
    with_finding: bool = False,
    num_coils: int = NUM_COILS,
) -> Scan:
    """One fully sampled noisy slice.

    Args:
        kind: ``"knee"``, ``"brain"`` or :data:`LABEL_VOLUME`.
        own_seed: of everything random about it.
        resolution: matrix size.
        volume: the label volume, where ``kind`` says so.
        with_finding: draws procedural anatomies until one shows a pathology.
        num_coils: of the simulated array.
    """
    generator = torch.Generator().manual_seed(own_seed)
    anatomy = held_out_anatomy(
        kind, own_seed, resolution, generator, volume, with_finding=with_finding
    )
    return phantom_scan(
        anatomy,
        shape=(resolution, resolution),
        num_coils=num_coils,
        snr=SNR,
        generator=generator,
    )


def held_out_anatomy(
    kind: str,
    own_seed: int,
    resolution: int,
    generator: torch.Generator,
    volume: NDArray[np.int16] | None = None,
    *,
    with_finding: bool = False,
) -> Anatomy:
    """The anatomy of :func:`held_out_scan`, whose other arguments these are.

    Args:
        generator: draws procedural anatomies.
    """
    if volume is not None:
        rng = np.random.default_rng(own_seed)
        return anatomy_from_labels(
            volume,
            float(rng.random()),
            rng,
            size=_FINE_SIZE,
            voxel_mm=float(rng.uniform(0.82, 1.0)),
        )
    draw = {"knee": knee_anatomy, "brain": brain_anatomy}[kind]
    size = max(_FINE_SIZE, resolution)
    anatomy = draw(generator, size=size)
    while with_finding and not anatomy.pathologies:
        anatomy = draw(generator, size=size)
    return anatomy


def undersample(scan: Scan, acceleration: float, seed: int, true_maps: bool) -> Scan:
    """One mask of its own, and coil maps from what it leaves."""
    ny, nx = scan.kspace.shape[-2:]
    mask = uniform1d(
        (ny, nx),
        acceleration,
        center_fraction(acceleration),
        generator=torch.Generator().manual_seed(seed),
    )
    return sample(scan, mask, true_maps)


def sample(scan: Scan, mask: Tensor, true_maps: bool = False) -> Scan:
    """What the mask ``(1, 1, ny, nx)`` leaves, with coil maps estimated from it."""
    kspace = scan.kspace * mask
    maps = scan.coil_maps if true_maps else estimate_coil_maps(kspace, mask, num_maps=1)
    return replace(scan, kspace=kspace, mask=mask, coil_maps=maps)


def shuffled(count: int, seed: int) -> list[int]:
    """A permutation that leaves nothing in its place: a random cycle."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    partner = [0] * count
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        partner[here] = there
    return partner
