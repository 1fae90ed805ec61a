"""Phantom scans and masks for tests of warnings about measurements."""

from __future__ import annotations

import torch
from gaussian import seeded

from ctxrecon.masks import make_mask
from ctxrecon.phantom import phantom_scan
from ctxrecon.scan import Scan

AXES = (-2, -1)
SHAPE = (96, 80)
MASK = make_mask("uniform1d", SHAPE, 3, 0.12, generator=seeded(1))
EVERYWHERE = torch.ones(1, 1, *SHAPE, dtype=torch.bool)


def full_scan(
    anatomy: str = "brain",
    shape: tuple[int, int] = SHAPE,
    coils: int = 4,
    seed: int = 0,
    snr: float | None = 25.0,
) -> Scan:
    """A fully sampled scan, which keeps every convention."""
    return phantom_scan(anatomy, shape=shape, num_coils=coils, snr=snr, generator=seeded(seed))
