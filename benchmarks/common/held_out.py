"""Held-out phantom scans: simulation, undersampling, and pairing with wrong prompts."""

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
    draw_person,
    knee_anatomy,
    load_label_volume,
    phantom_scan,
)
from ctxrecon.scan import Scan

NUM_COILS = 8
SNR = 100.0
LABEL_VOLUME = "label volume"
"""Kind of a label-volume slice; the other kinds are ``"knee"`` and ``"brain"``."""
KINDS = ("knee", "brain", LABEL_VOLUME)
"""Kinds of scans, drawn in turn in this order."""

# Training banks use small seeds.
_HELD_OUT_SEED = 10**9
_FINE_SIZE = 256


def scan_seed(seed: int, number: int) -> int:
    """Return the random seed of one scan."""
    return _HELD_OUT_SEED + 10**6 * seed + number


def center_fraction(acceleration: float) -> float:
    """Return the share of lines in the fully sampled center: 8 % at ×4, 4 % at ×8."""
    return 0.32 / acceleration


def held_out_scans(
    count: int,
    resolution: int,
    label_volumes: list[Path],
    seed: int,
    *,
    num_coils: int = NUM_COILS,
) -> list[tuple[str, Scan]]:
    """Draw fully sampled noisy single-slice scans; return each with its kind."""
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
    known_person: bool = False,
    num_coils: int = NUM_COILS,
) -> Scan:
    """Draw one fully sampled noisy slice.

    Args:
        kind: ``"knee"``, ``"brain"`` or :data:`LABEL_VOLUME`.
        own_seed: Random seed of the scan.
        resolution: Matrix size.
        volume: Label volume if ``kind`` is :data:`LABEL_VOLUME`.
        with_finding: Draw procedural anatomies until one shows a pathology.
        known_person: Draw the age and sex of the person of a procedural anatomy first.
        num_coils: Number of simulated coils.
    """
    generator = torch.Generator().manual_seed(own_seed)
    anatomy = held_out_anatomy(
        kind,
        own_seed,
        resolution,
        generator,
        volume,
        with_finding=with_finding,
        known_person=known_person,
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
    known_person: bool = False,
) -> Anatomy:
    """Draw the anatomy of :func:`held_out_scan`, with which it shares its arguments.

    Args:
        kind: ``"knee"``, ``"brain"`` or :data:`LABEL_VOLUME`.
        own_seed: Random seed of the scan.
        resolution: Matrix size.
        generator: Random generator of procedural anatomies.
        volume: Label volume if ``kind`` is :data:`LABEL_VOLUME`.
        with_finding: Draw procedural anatomies until one shows a pathology.
        known_person: Draw the age and sex of the person of a procedural anatomy first.
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
    person = draw_person(np.random.default_rng([own_seed, 1]), kind) if known_person else None
    anatomy = draw(generator, size=size, person=person)
    while with_finding and not anatomy.pathologies:
        anatomy = draw(generator, size=size, person=person)
    return anatomy


def undersample(scan: Scan, acceleration: float, seed: int, true_maps: bool) -> Scan:
    """Undersample a scan by a uniform random mask and estimate coil maps from the rest."""
    ny, nx = scan.kspace.shape[-2:]
    mask = uniform1d(
        (ny, nx),
        acceleration,
        center_fraction(acceleration),
        generator=torch.Generator().manual_seed(seed),
    )
    return sample(scan, mask, true_maps)


def sample(scan: Scan, mask: Tensor, true_maps: bool = False) -> Scan:
    """Apply a mask ``(1, 1, ny, nx)`` and estimate coil maps from the undersampled data."""
    kspace = scan.kspace * mask
    maps = scan.coil_maps if true_maps else estimate_coil_maps(kspace, mask, num_maps=1)
    return replace(scan, kspace=kspace, mask=mask, coil_maps=maps)


def shuffled(count: int, seed: int) -> list[int]:
    """Return a random cyclic permutation, which leaves no element in its place."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    partner = [0] * count
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        partner[here] = there
    return partner
