"""ISTA-Net⁺: unrolled soft thresholding in a learned transform domain."""

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
    """ISTA-Net⁺: unrolled iterative soft thresholding with learned transforms.

    Each phase computes ``r = x − ρ Aᴴ(A x − y)``, ``x ← r + G(H̃(soft(H(D(r)), θ)))``. Zhang and
    Ghanem, CVPR 2018. D and G are convolutions from and to the image, H and H̃ two convolutions
    with a ReLU between them. The penalty ``0.01 ‖H̃(H(D r)) − D r‖²`` (averaged over pixels and
    features, summed over phases) makes H̃ an inverse of H.

    Args:
        width: Number of features.
        phases: Number of iterations.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head; "joint"
            predicts it with two additional output channels of the network.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import ISTANetPlus
        >>> operator = CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))
        >>> network = ISTANetPlus(width=4, phases=2)
        >>> network(operator, torch.ones(2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([2, 32, 32])
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
        """Return the reconstruction, see :meth:`Reconstructor.reconstruct`."""
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
    """Transform, threshold and inverse transform of one iteration."""

    def __init__(self, width: int, text_width: int | None, out_channels: int) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.ones(1))
        self.threshold = nn.Parameter(torch.full((1,), 0.01))
        self.inward, self.outward = Convolution(2, width), Convolution(width, out_channels)
        self.transform, self.inverse = Transform(width), Transform(width)
        self.modulation = Modulation(text_width, width)

    def forward(self, r: Tensor, embeds: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the correction ``(batch, 2, ny, nx)`` and ``‖H̃(H(D r)) − D r‖²``, ``(batch,)``."""
        features = self.modulation(self.inward(channels_last(r)), embeds)
        coefficients = self.transform(features)
        shrunk = coefficients.sign() * functional.relu(coefficients.abs() - self.threshold)
        asymmetry = (self.inverse(coefficients) - features).square().flatten(1).mean(dim=1)
        return self.outward(self.inverse(shrunk)), asymmetry


class Transform(nn.Sequential):
    """Two convolutions with a ReLU between them."""

    def __init__(self, width: int) -> None:
        super().__init__(
            Convolution(width, width, bias=False),
            nn.ReLU(),
            Convolution(width, width, bias=False),
        )
