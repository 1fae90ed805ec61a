"""Generators of Lei et al.'s Wasserstein GAN: plain and unrolled."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import check_counts
from ctxrecon.operators import SenseOperator
from ctxrecon.reconstructors.base import Estimate, Reconstructor, data_gradient
from ctxrecon.reconstructors.blocks import ResNet, on_image, with_variance


class ResNetGenerator(Reconstructor):
    """Residual network on ``Aᴴy`` followed by hard data consistency.

    ``x = Σ_c S_cᴴ F⁻¹ (y_c + (1 − M) F S_c v)`` with the output v of the network: the plain
    generator of Lei et al., IEEE Trans Med Imaging 40:105 (2021), formula (8), with 5 residual
    blocks and 3 convolutions. Its batch normalization is left out, since it would make a slice
    depend on the other slices of the batch.

    Args:
        width: Number of features.
        blocks: Number of residual blocks.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import ResNetGenerator
        >>> operator = CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))
        >>> network = ResNetGenerator(width=4, blocks=1)
        >>> network(operator, torch.ones(2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([2, 32, 32])
    """

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        blocks: int = 5,
        text_width: int | None = None,
        predict_std: bool = False,
    ) -> None:
        super().__init__(text_width, predict_std)
        check_counts(width=width, blocks=blocks)
        self.network = ResNet(2, width, blocks, 3, text_width)

    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> tuple[Tensor, None]:
        """Return the reconstruction, see :meth:`Reconstructor.reconstruct`."""
        v = zero_filled + on_image(self.network, zero_filled, embeds)
        return hard_data_consistency(operator, v, zero_filled), None


class UnrolledGenerator(Reconstructor):
    """Unrolled gradient descent on ``½ ‖A x − y‖²`` with a small residual network per iteration.

    ``v = x − μ_k Aᴴ(A x − y)``, ``x ← v + N_k(v)``, starting from ``x = Aᴴy``: the unrolled
    generator of Lei et al., IEEE Trans Med Imaging 40:105 (2021), formulae (5) to (7), with 3
    iterations of two residual blocks. μ is learned; the paper uses the opposite sign.

    Args:
        width: Number of features.
        iterations: Number of iterations K.
        blocks: Number of residual blocks of each iteration.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head; "joint"
            predicts it with two additional output channels of the network.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import UnrolledGenerator
        >>> operator = CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))
        >>> network = UnrolledGenerator(width=4, iterations=2, blocks=1)
        >>> network(operator, torch.ones(2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([2, 32, 32])
    """

    serves_joint = True

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        iterations: int = 3,
        blocks: int = 2,
        text_width: int | None = None,
        predict_std: bool | str = False,
    ) -> None:
        super().__init__(text_width, predict_std)
        check_counts(width=width, iterations=iterations, blocks=blocks)
        self.steps = nn.Parameter(torch.ones(iterations))
        self.networks = nn.ModuleList(
            ResNet(2, width, blocks, 1, text_width, out) for out in self.channels_of(iterations)
        )

    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> Estimate:
        """Return the reconstruction, see :meth:`Reconstructor.reconstruct`."""
        x, log_variance = zero_filled, None
        for step, network in zip(self.steps, self.networks, strict=True):
            v = x - step * data_gradient(operator, x, zero_filled)
            correction, log_variance = with_variance(network, v, embeds)
            x = v + correction
        return Estimate(x, None, log_variance)


def hard_data_consistency(operator: SenseOperator, v: Tensor, zero_filled: Tensor) -> Tensor:
    """Return ``Σ_c S_cᴴ F⁻¹ (y_c + (1 − M) F S_c v) = SᴴS v − AᴴA v + Aᴴy``.

    Args:
        operator: Forward operator ``A = M F S``.
        v: Images ``(batch, ny, nx)``, complex64.
        zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)`` complex64.
    """
    seen = operator.coil_gram(v)
    return seen - data_gradient(operator, v, zero_filled)
