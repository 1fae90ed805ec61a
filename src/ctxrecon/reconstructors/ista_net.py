"""ISTA-Net⁺: unrolled soft thresholding in a learned transform."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from ctxrecon.errors import check_counts
from ctxrecon.operators import SenseOperator
from ctxrecon.reconstructors.base import Estimate, Reconstructor, data_gradient
from ctxrecon.reconstructors.blocks import (
    Convolution,
    Modulation,
    channels_last,
    image_and_variance,
    to_network,
)

_PENALTY = 0.01


class ISTANetPlus(Reconstructor):
    """``r = x − ρ Aᴴ(A x − y)``, ``x ← r + G(H̃(soft(H(D(r)), θ)))``, phase after phase.

    Zhang and Ghanem, CVPR 2018. D and G are convolutions from the image and back to it, H and H̃
    two convolutions with a rectifier between. The penalty ``0.01 ‖H̃(H(D r)) − D r‖²`` (the mean
    over pixels and features, the sum over phases) makes H̃ invert H.

    Args:
        width: features.
        phases: number of iterations.
        text_width: see :class:`~ctxrecon.reconstructors.base.Reconstructor`.
        predict_std: likewise.
    """

    serves_joint = True

    @register_to_config
    def __init__(
        self,
        width: int = 32,
        phases: int = 9,
        text_width: int | None = None,
        predict_std: bool | str = False,
    ) -> None:
        super().__init__(text_width, predict_std)
        check_counts(width=width, phases=phases)
        self.stages = nn.ModuleList(
            Phase(width, text_width, out) for out in self.channels_of(phases)
        )

    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> Estimate:
        """See :meth:`Reconstructor.reconstruct`."""
        x, log_variance = zero_filled, None
        asymmetries = []
        for phase in self.stages:
            assert isinstance(phase, Phase)
            r = x - phase.step * data_gradient(operator, x, zero_filled)
            channels, asymmetry = phase(to_network(phase, r), embeds)
            correction, log_variance = image_and_variance(channels)
            x = r + correction
            asymmetries.append(asymmetry)
        return Estimate(x, _PENALTY * torch.stack(asymmetries).sum(dim=0), log_variance)


class Phase(nn.Module):
    """One iteration's transform, threshold and way back."""

    def __init__(self, width: int, text_width: int | None, out_channels: int) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.ones(1))
        self.threshold = nn.Parameter(torch.full((1,), 0.01))
        self.inward, self.outward = Convolution(2, width), Convolution(width, out_channels)
        self.transform, self.inverse = Transform(width), Transform(width)
        self.modulation = Modulation(text_width, width)

    def forward(self, r: Tensor, embeds: Tensor | None) -> tuple[Tensor, Tensor]:
        """The correction ``(batch, 2, ny, nx)`` and ``‖H̃(H(D r)) − D r‖²``, ``(batch,)``."""
        features = self.modulation(self.inward(channels_last(r)), embeds)
        coefficients = self.transform(features)
        shrunk = coefficients.sign() * functional.relu(coefficients.abs() - self.threshold)
        asymmetry = (self.inverse(coefficients) - features).square().flatten(1).mean(dim=1)
        return self.outward(self.inverse(shrunk)), asymmetry


class Transform(nn.Sequential):
    """Two convolutions with a rectifier between."""

    def __init__(self, width: int) -> None:
        super().__init__(
            Convolution(width, width, bias=False),
            nn.ReLU(),
            Convolution(width, width, bias=False),
        )
