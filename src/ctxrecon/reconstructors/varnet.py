"""The end-to-end variational network."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.operators import CartesianSense
from ctxrecon.reconstructors.base import Reconstructor, check_positive
from ctxrecon.reconstructors.blocks import UNet, on_image

_MAPS_WIDTH, _MAPS_DEPTH = 8, 3


class VarNet(Reconstructor):
    """Descent steps on multi-coil k-space, each with a U-Net on the combined image.

    ``k ← k − η_m M (k − y) + F S U_m(Sᴴ F⁻¹ k)``, from ``k = y``: the end-to-end variational
    network, Sriram et al., arXiv:2004.06688.

    Args:
        width: features of the U-Nets at full size.
        depth: their halvings.
        cascades: number of steps.
        learned_maps: whether a U-Net of its own improves the operator's coil maps, coil by coil.
            The paper's makes them from low-resolution coil images alone; here it starts from those
            that the calibration gave.
        text_width: see :class:`~ctxrecon.reconstructors.base.Reconstructor`.
        predict_std: likewise.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 18,
        depth: int = 3,
        cascades: int = 6,
        learned_maps: bool = False,
        text_width: int | None = None,
        predict_std: bool = False,
    ) -> None:
        super().__init__(text_width, predict_std)
        check_positive(width=width, depth=depth, cascades=cascades)
        self.steps = nn.Parameter(torch.ones(cascades))
        self.networks = nn.ModuleList(UNet(2, width, depth, text_width) for _ in range(cascades))
        self.maps_network = UNet(2, _MAPS_WIDTH, _MAPS_DEPTH, None) if learned_maps else None

    def reconstruct(
        self, operator: CartesianSense, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> tuple[Tensor, None]:
        """See :meth:`Reconstructor.reconstruct`."""
        maps = self.coil_maps(operator)
        kspace = y
        for step, network in zip(self.steps, self.networks, strict=True):
            refined = fft2c(maps * on_image(network, _combined(maps, kspace), embeds)[:, None])
            kspace = kspace - step * operator.mask * (kspace - y) + refined
        return _combined(maps, kspace), None

    def coil_maps(self, operator: CartesianSense) -> Tensor:
        """Those of the operator, improved if that is learned; ``(batch or 1, coils, ny, nx)``.

        Improved maps have unit power where the given ones are not zero.
        """
        maps = operator.coil_maps
        if maps is None:
            return torch.ones_like(operator.mask, dtype=torch.complex64)
        if self.maps_network is None:
            return maps
        correction = on_image(self.maps_network, maps.flatten(0, 1), None)
        improved = maps + correction.view_as(maps)
        power = improved.abs().square().sum(dim=1, keepdim=True)
        inside = (maps != 0).any(dim=1, keepdim=True)
        return improved * torch.where(inside, power.clamp_min(1e-12).rsqrt(), 0.0)


def _combined(maps: Tensor, kspace: Tensor) -> Tensor:
    """``Sᴴ F⁻¹ k``."""
    return (maps.conj() * ifft2c(kspace)).sum(dim=1)
