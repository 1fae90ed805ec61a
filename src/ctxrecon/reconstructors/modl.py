"""MoDL: conjugate gradients inside the network."""

from __future__ import annotations

import math

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional

from ctxrecon.errors import InputError, check_counts
from ctxrecon.linalg import damped_solve
from ctxrecon.operators import SenseOperator
from ctxrecon.reconstructors.base import Reconstructor
from ctxrecon.reconstructors.blocks import ResidualUNet, ResNet, on_image


class MoDL(Reconstructor):
    """``z = x + N(x)``, ``x = (AᴴA + λ)⁻¹ (Aᴴy + λ z)``, repeated, with one network N.

    Aggarwal et al., IEEE Trans Med Imaging 38:394 (2019). The system is solved by conjugate
    gradients, and gradients go through its solution, not through its iterations
    (:func:`~ctxrecon.linalg.damped_solve`): memory does not grow with ``cg_iterations``.

    Args:
        width: features, at full size.
        iterations: K.
        blocks: residual blocks of N, where it has no halvings.
        cg_iterations: at most, in each system.
        depth: halvings of N, a :class:`~.blocks.ResidualUNet`; 0 for the paper's network, of one
            size throughout.
        shared: whether all iterations share N and λ, as in the paper.
        damping: λ to start with.
        text_width: see :class:`~ctxrecon.reconstructors.base.Reconstructor`.
        predict_std: likewise.

    Raises:
        InputError: sizes that are not whole numbers from 1 on, a negative depth, a damping that is
            not positive.
    """

    @register_to_config
    def __init__(
        self,
        width: int = 64,
        iterations: int = 5,
        blocks: int = 2,
        cg_iterations: int = 8,
        depth: int = 0,
        shared: bool = True,
        damping: float = 0.05,
        text_width: int | None = None,
        predict_std: bool = False,
    ) -> None:
        super().__init__(text_width, predict_std)
        check_counts(width=width, iterations=iterations, blocks=blocks, cg_iterations=cg_iterations)
        if depth < 0 or not damping > 0:
            raise InputError(
                f"expected a depth of 0 or more and a positive damping, got {depth} and {damping}"
            )
        self.iterations, self.cg_iterations = iterations, cg_iterations

        def network() -> nn.Module:
            if depth:
                return ResidualUNet(2, width, depth, text_width)
            return ResNet(2, width, blocks, 1, text_width)

        count = 1 if shared else iterations
        self.networks = nn.ModuleList(network() for _ in range(count))
        # softplus of it is λ.
        self.raw_damping = nn.Parameter(torch.full((count,), math.log(math.expm1(damping))))

    @property
    def damping(self) -> Tensor:
        """λ of each iteration, or the one of all, positive."""
        return functional.softplus(self.raw_damping)

    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> tuple[Tensor, None]:
        """See :meth:`Reconstructor.reconstruct`."""
        x, dampings = zero_filled, self.damping
        for iteration in range(self.iterations):
            number = iteration % len(self.networks)
            damping = dampings[number]
            z = x + on_image(self.networks[number], x, embeds)
            x = damped_solve(
                operator.normal, zero_filled + damping * z, damping, self.cg_iterations
            )
        return x, None
