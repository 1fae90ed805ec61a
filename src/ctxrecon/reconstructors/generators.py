"""The generators of the Wasserstein GAN paper: plain, and unrolled."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import check_counts
from ctxrecon.operators import SenseOperator
from ctxrecon.reconstructors.base import Estimate, Reconstructor, data_gradient
from ctxrecon.reconstructors.blocks import ResNet, on_image, with_variance


class ResNetGenerator(Reconstructor):
    """A residual network on ``Aᴴy`` and, at its end, hard data consistency.

    ``x = Σ_c S_cᴴ F⁻¹ (y_c + (1 − M) F S_c v)``, v the output of the network: the plain generator
    of Lei et al., IEEE Trans Med Imaging 40:105 (2021), formula (8): 5 residual blocks and 3
    convolutions. Without its batch normalisation, which would make a slice depend on its
    neighbours in the batch.

    Args:
        width: features.
        blocks: residual blocks.
        text_width: see :class:`~ctxrecon.reconstructors.base.Reconstructor`.
        predict_std: likewise.
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
        """See :meth:`Reconstructor.reconstruct`."""
        v = zero_filled + on_image(self.network, zero_filled, embeds)
        return hard_data_consistency(operator, v, zero_filled), None


class UnrolledGenerator(Reconstructor):
    """K times a descent step on ``½ ‖A x − y‖²`` and a small residual network.

    ``v = x − μ_k Aᴴ(A x − y)``, ``x ← v + N_k(v)``, starting from ``x = Aᴴy``: the unrolled
    generator of Lei et al., IEEE Trans Med Imaging 40:105 (2021), formulae (5) to (7): 3 iterations
    of two residual blocks. μ is learned; the paper writes it with the other sign.

    Args:
        width: features.
        iterations: K.
        blocks: residual blocks of each iteration.
        text_width: see :class:`~ctxrecon.reconstructors.base.Reconstructor`.
        predict_std: likewise.
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
        """See :meth:`Reconstructor.reconstruct`."""
        x, log_variance = zero_filled, None
        for step, network in zip(self.steps, self.networks, strict=True):
            v = x - step * data_gradient(operator, x, zero_filled)
            correction, log_variance = with_variance(network, v, embeds)
            x = v + correction
        return Estimate(x, None, log_variance)


def hard_data_consistency(operator: SenseOperator, v: Tensor, zero_filled: Tensor) -> Tensor:
    """``Σ_c S_cᴴ F⁻¹ (y_c + (1 − M) F S_c v) = SᴴS v − AᴴA v + Aᴴy``.

    Args:
        operator: ``A = M F S``.
        v: ``(batch, ny, nx)`` complex64.
        zero_filled: ``Aᴴ y``.
    """
    seen = operator.coil_gram(v)
    return seen - data_gradient(operator, v, zero_filled)
