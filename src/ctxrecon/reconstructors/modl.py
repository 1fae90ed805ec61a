"""MoDL: conjugate gradients inside the network."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from ctxrecon.linalg import damped_solve
from ctxrecon.operators import CartesianSense
from ctxrecon.reconstructors.base import Reconstructor, check_positive
from ctxrecon.reconstructors.blocks import ResNet, on_image


class MoDL(Reconstructor):
    """``z = x + N(x)``, ``x = (AᴴA + λ)⁻¹ (Aᴴy + λ z)``, repeated with one network N.

    Aggarwal et al., IEEE Trans Med Imaging 38:394 (2019). The system is solved by conjugate
    gradients, and gradients go through its solution, not through its iterations
    (:func:`~ctxrecon.linalg.damped_solve`): memory does not grow with ``cg_iterations``.

    Args:
        width: features.
        iterations: K; all share the weights.
        blocks: residual blocks of N.
        cg_iterations: at most, in each system.
        text_width: see :class:`~ctxrecon.reconstructors.base.Reconstructor`.
        predict_std: likewise.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        iterations: int = 5,
        blocks: int = 2,
        cg_iterations: int = 8,
        text_width: int | None = None,
        predict_std: bool = False,
    ) -> None:
        super().__init__(text_width, predict_std)
        check_positive(
            width=width, iterations=iterations, blocks=blocks, cg_iterations=cg_iterations
        )
        self.iterations, self.cg_iterations = iterations, cg_iterations
        self.network = ResNet(2, width, blocks, 1, text_width)
        # softplus(-3) is 0.05, the paper's λ.
        self.raw_damping = nn.Parameter(torch.full((1,), -3.0))

    @property
    def damping(self) -> Tensor:
        """λ, positive."""
        return functional.softplus(self.raw_damping)

    def reconstruct(
        self, operator: CartesianSense, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> tuple[Tensor, None]:
        """See :meth:`Reconstructor.reconstruct`."""
        x, damping = zero_filled, self.damping
        for _ in range(self.iterations):
            z = x + on_image(self.network, x, embeds)
            x = damped_solve(
                operator.normal, zero_filled + damping * z, damping, self.cg_iterations
            )
        return x, None
