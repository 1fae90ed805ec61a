"""MoDL: model-based deep learning with conjugate gradients inside the network."""

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
    """MoDL: denoising by a network N in alternation with a regularized least-squares solution.

    Repeats ``z = x + N(x)``, ``x = (AᴴA + λ)⁻¹ (Aᴴy + λ z)``. Aggarwal et al., IEEE Trans Med
    Imaging 38:394 (2019). The system is solved by conjugate gradients and differentiated
    implicitly (:func:`~ctxrecon.linalg.damped_solve`), so that memory does not grow with
    ``cg_iterations``.

    Args:
        width: Number of features at full resolution.
        iterations: Number of iterations K.
        blocks: Number of residual blocks of N, if ``depth`` is 0.
        cg_iterations: Maximum number of conjugate-gradient iterations per system.
        depth: Number of downsampling steps of N, a :class:`~.blocks.ResidualUNet`; 0 for the
            paper's network, which keeps the full resolution.
        shared: If true, all iterations share N and λ, as in the paper.
        damping: Initial λ.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head.

    Raises:
        InputError: If a size is not a positive whole number, the depth is negative, or the damping
            is not positive.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import MoDL
        >>> operator = CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))
        >>> network = MoDL(width=4, iterations=2, cg_iterations=2)
        >>> network(operator, torch.ones(2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([2, 32, 32])
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
                f"expected `depth` of at least 0 and a positive `damping`, got {depth}, {damping}"
            )
        self.iterations, self.cg_iterations = iterations, cg_iterations

        def network() -> nn.Module:
            if depth:
                return ResidualUNet(2, width, depth, text_width)
            return ResNet(2, width, blocks, 1, text_width)

        count = 1 if shared else iterations
        self.networks = nn.ModuleList(network() for _ in range(count))
        # λ is the softplus of this parameter.
        self.raw_damping = nn.Parameter(torch.full((count,), math.log(math.expm1(damping))))

    @property
    def damping(self) -> Tensor:
        """Positive λ of each iteration, or a single one if it is shared."""
        return functional.softplus(self.raw_damping)

    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> tuple[Tensor, None]:
        """Return the reconstruction, see :meth:`Reconstructor.reconstruct`."""
        x, dampings = zero_filled, self.damping
        for iteration in range(self.iterations):
            number = iteration % len(self.networks)
            damping = dampings[number]
            z = x + on_image(self.networks[number], x, embeds)
            x = damped_solve(
                operator.normal, zero_filled + damping * z, damping, self.cg_iterations
            )
        return x, None
