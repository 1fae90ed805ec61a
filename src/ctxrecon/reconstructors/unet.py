"""The U-Net baseline of fastMRI, on complex images."""

from __future__ import annotations

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from ctxrecon.errors import check_counts
from ctxrecon.operators import SenseOperator
from ctxrecon.reconstructors.base import Estimate, Reconstructor
from ctxrecon.reconstructors.blocks import UNet, with_variance


class UNetReconstructor(Reconstructor):
    """U-Net that removes aliasing, ``x = Aᴴy + U(Aᴴy)``, without data consistency.

    Zbontar et al., arXiv:1811.08839, applied to the complex coil-combined image.

    Args:
        width: Number of features at full resolution.
        depth: Number of downsampling steps.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head; "joint"
            predicts it with two additional output channels of the network.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import UNetReconstructor
        >>> operator = CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))
        >>> network = UNetReconstructor(width=4, depth=2)
        >>> network(operator, torch.ones(2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([2, 32, 32])
    """

    serves_joint = True

    @register_to_config
    def __init__(
        self,
        width: int = 32,
        depth: int = 3,
        text_width: int | None = None,
        predict_std: bool | str = False,
    ) -> None:
        super().__init__(text_width, predict_std)
        check_counts(width=width, depth=depth)
        self.network = UNet(2, width, depth, text_width, self.out_channels)

    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> Estimate:
        """Return the reconstruction, see :meth:`Reconstructor.reconstruct`."""
        correction, log_variance = with_variance(self.network, zero_filled, embeds)
        return Estimate(zero_filled + correction, None, log_variance)
