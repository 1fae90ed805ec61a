"""The U-Net that fastMRI compares with, on complex images."""

from __future__ import annotations

from diffusers.configuration_utils import register_to_config
from torch import Tensor

from ctxrecon.errors import check_counts
from ctxrecon.operators import SenseOperator
from ctxrecon.reconstructors.base import Estimate, Reconstructor
from ctxrecon.reconstructors.blocks import UNet, with_variance


class UNetReconstructor(Reconstructor):
    """``x = Aᴴy + U(Aᴴy)``: a U-Net that takes aliasing off, without data consistency.

    Zbontar et al., arXiv:1811.08839; on the complex coil-combined image.

    Args:
        width: features at full size.
        depth: halvings.
        text_width: see :class:`~ctxrecon.reconstructors.base.Reconstructor`.
        predict_std: likewise.
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
        """See :meth:`Reconstructor.reconstruct`."""
        correction, log_variance = with_variance(self.network, zero_filled, embeds)
        return Estimate(zero_filled + correction, None, log_variance)
