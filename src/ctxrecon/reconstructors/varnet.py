"""End-to-end variational network."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from ctxrecon.errors import check_counts
from ctxrecon.operators import SenseOperator
from ctxrecon.reconstructors.base import Estimate, Reconstructor, data_gradient
from ctxrecon.reconstructors.blocks import UNet, on_image, with_variance

_MAPS_WIDTH, _MAPS_DEPTH = 8, 3


class VarNet(Reconstructor):
    """Variational network: gradient steps on ``½ ‖A x − y‖²``, each with a U-Net on the image.

    ``x ← x − η_m Aᴴ(A x − y) + U_m(x)``, starting from ``x = Aᴴ y``. This is the end-to-end
    variational network (Sriram et al., arXiv:2004.06688) with an image as its state, as in
    Hammernik et al., Magn Reson Med 79:3055 (2018). The state of the end-to-end network is
    multi-coil k-space, which need not be consistent with any single image; with the same U-Nets it
    needs more cascades.

    Args:
        width: Number of features of the U-Nets at full resolution.
        depth: Number of downsampling steps of the U-Nets.
        cascades: Number of steps.
        learned_maps: If true, a separate U-Net refines the operator's coil maps, coil by coil. The
            paper's network estimates the maps from low-resolution coil images; this one starts
            from the calibrated maps.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head; "joint"
            predicts it with two additional output channels of the network.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import VarNet
        >>> operator = CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))
        >>> network = VarNet(width=4, depth=2, cascades=2)
        >>> network(operator, torch.ones(2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([2, 32, 32])
    """

    serves_joint = True

    @register_to_config
    def __init__(
        self,
        width: int = 18,
        depth: int = 3,
        cascades: int = 6,
        learned_maps: bool = False,
        text_width: int | None = None,
        predict_std: bool | str = False,
    ) -> None:
        super().__init__(text_width, predict_std)
        check_counts(width=width, depth=depth, cascades=cascades)
        self.steps = nn.Parameter(torch.ones(cascades))
        self.networks = nn.ModuleList(
            UNet(2, width, depth, text_width, out) for out in self.channels_of(cascades)
        )
        self.maps_network = UNet(2, _MAPS_WIDTH, _MAPS_DEPTH, None) if learned_maps else None

    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> Estimate:
        """Return the reconstruction, see :meth:`Reconstructor.reconstruct`."""
        if self.maps_network is not None and operator.coil_maps is not None:
            every = operator.coil_maps.flatten(0, -4)
            maps = _improved(self.maps_network, every).reshape(operator.coil_maps.shape)
            operator = type(operator)(operator.mask, maps)
            zero_filled = operator.adjoint(y)
        x, log_variance = descend(self.networks, self.steps, operator, zero_filled, embeds)
        return Estimate(x, None, log_variance)


def descend(
    networks: nn.ModuleList,
    steps: Tensor,
    operator: SenseOperator,
    zero_filled: Tensor,
    embeds: Tensor | None,
    *,
    start: Tensor | None = None,
    beside: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Run ``x ← x − η_m Aᴴ(A x − y) + U_m(x)`` for every network.

    Args:
        networks: Networks U_m.
        steps: Step sizes η_m.
        operator: Forward operator A.
        zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, ny, nx)``.
        embeds: Prompt embeddings ``(batch, text_width)``, or ``None``.
        start: Initial x (default: ``Aᴴ y``).
        beside: Additional image input of every network.

    Returns:
        The final x, and the channels of the last network's output after the image, or ``None``.
    """
    x, log_variance = zero_filled if start is None else start, None
    for step, network in zip(steps, networks, strict=True):
        descent = step * data_gradient(operator, x, zero_filled)
        correction, log_variance = with_variance(network, x, embeds, beside)
        x = x - descent + correction
    return x, log_variance


def _improved(network: nn.Module, maps: Tensor) -> Tensor:
    """Refine maps ``(batch or 1, coils, ny, nx)`` and normalize them where they are not 0."""
    improved = maps + on_image(network, maps.flatten(0, 1), None).view_as(maps)
    power = improved.abs().square().sum(dim=1, keepdim=True)
    inside = (maps != 0).any(dim=1, keepdim=True)
    return improved * torch.where(inside, power.clamp_min(1e-12).rsqrt(), 0.0)
