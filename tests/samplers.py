"""Samplers of masks by name, small and with their required options."""

from __future__ import annotations

from typing import Any

import torch

from ctxrecon.masks.learned import (
    SAMPLERS,
    Sampler,
)

OPTIONS: dict[str, dict[str, Any]] = {
    "loupe": {"acceleration": 4},
    "per_contrast": {"acceleration": 4, "contrasts": 3},
    "pattern_generator": {},
}


def build(name: str, shape=(8, 64), **options: Any) -> Sampler:
    torch.manual_seed(1)
    return SAMPLERS[name](shape, **{**OPTIONS[name], **options})
