"""Random measurements of several slices, for tests of networks and pipelines."""

from __future__ import annotations

import torch
from gaussian import complex_noise, seeded

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.operators import CartesianSense
from ctxrecon.sampling import make_mask


def measurement(
    batch: int = 2, shape: tuple[int, int] = (24, 20), coils: int = 3, seed: int = 0
) -> tuple[CartesianSense, torch.Tensor, torch.Tensor]:
    """Operator, k-space and image; a mask for each slice."""
    source = seeded(seed)
    maps = None
    if coils > 1:
        maps = simulate_coil_maps(coils, shape, batch_size=batch, generator=source)
    mask = make_mask("variable_density2d", shape, 3.0, 0.3, batch_size=batch, generator=source)
    operator = CartesianSense(mask, maps)
    image = complex_noise((batch, *shape), source)
    return operator, operator(image), image


def part(operator: CartesianSense, index: int) -> CartesianSense:
    """The operator of one slice of a batch."""
    maps = operator.coil_maps
    return CartesianSense(
        operator.mask[index : index + 1], None if maps is None else maps[index : index + 1]
    )
