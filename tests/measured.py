"""Random measurements of several slices, for tests of networks and pipelines."""

from __future__ import annotations

import torch
from gaussian import complex_noise, seeded

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks import make_mask
from ctxrecon.operators import CartesianSense


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


class DoubleSense:
    """``W F S`` in double precision, the weights W once wherever the mask of ``M F S`` is."""

    def __init__(self, weights: torch.Tensor, coil_maps: torch.Tensor) -> None:
        self.weights, self.coil_maps = weights, coil_maps

    def adjoint(self, y: torch.Tensor) -> torch.Tensor:
        return (self.coil_maps.conj() * ifft2c(y)).sum(dim=1)

    def normal(self, x: torch.Tensor) -> torch.Tensor:
        return self.adjoint(self.weights * fft2c(self.coil_maps * x[:, None]))

    def coil_gram(self, x: torch.Tensor) -> torch.Tensor:
        return self.coil_maps.abs().square().sum(dim=1) * x
