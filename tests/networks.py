"""Small networks by name, without layers initialized to zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ctxrecon.reconstructors import MULTI_CONTRAST, RECONSTRUCTORS

KINDS: dict[str, Callable[..., Any]] = {**RECONSTRUCTORS, **MULTI_CONTRAST}
"""With options of their own, which the base classes do not declare."""


def small_network(name: str, contrasts: int = 2, **options: Any) -> Any:
    """A network of one or several contrasts; layers that start at zero are moved."""
    torch.manual_seed(3)
    if name == "unet_i":
        options["contrasts"] = contrasts
    made = KINDS[name](**options)
    with torch.no_grad():
        for value in made.parameters():
            value += 0.1 * torch.randn(value.shape)
    return made
