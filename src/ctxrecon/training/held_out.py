"""Held-out phantom scans for validation, used in no training or benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ctxrecon.phantom import phantom_scan
from ctxrecon.scan import Scan

# Banks use small seeds, and benchmarks seeds from 10**9 on.
HELD_OUT_SEED = 2 * 10**9
"""Seed of the first held-out scan."""


def held_out_scans(
    count: int,
    resolution: int,
    draw_mask: Callable[[torch.Generator], Tensor],
    *,
    num_coils: Sequence[int],
    snr: float | None,
) -> list[Scan]:
    """Return knees and brains in turn, each with its own mask; two for each number of coils."""
    scans = []
    for number in range(count):
        generator = torch.Generator().manual_seed(HELD_OUT_SEED + number)
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
    """Return the targets of all scans, ``(scans, n, n)`` complex64."""
    return torch.cat([scan.target for scan in scans if scan.target is not None])
