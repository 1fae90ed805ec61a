"""Plug-and-play reconstruction: a measurement-independent denoiser and data-consistency steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.func import functional_call

from ctxrecon.errors import check_counts
from ctxrecon.fourier import channels_to_complex
from ctxrecon.linalg import damped_solve
from ctxrecon.operators import SenseOperator
from ctxrecon.reconstructors.base import Reconstructor, intensity
from ctxrecon.reconstructors.blocks import ResidualUNet, to_network

_HIGHEST, _LOWEST = 0.2, 0.01
"""Noise level σ of the first and of the last iteration, relative to the bright signal."""
_LAMBDA = 0.23
"""DPIR's weight of the prior, for data with noise of the lowest σ."""
_TRAINED = (0.005, 0.5)
"""Range of σ, log-uniform, for which the denoiser is trained."""


class PlugAndPlay(Reconstructor):
    """Half-quadratic splitting with a deep denoiser D.

    Iterates ``x = (AᴴA + μ_k)⁻¹ (Aᴴy + μ_k z)``, ``z ← D(x; σ_k)``. DPIR, Zhang et al., IEEE Trans
    Pattern Anal Mach Intell 44:6360 (2022), the plug-and-play backbone of InfoMRI (InfoMRI-PnP).
    Initially σ_k falls geometrically from 0.2 to 0.01 of the bright signal, and
    ``μ_k = 0.23 (0.01 / σ_k)²``. D is a residual U-Net with σ as an input, like DRUNet; its output
    is in units of σ.

    D is trained to remove white noise from images only (:meth:`prior_loss`): the reconstruction
    loss passes no gradient to its weights. That loss trains σ_k and μ_k and, through D, everything
    that A and y depend on, such as the mask.

    Args:
        width: Number of features of D at full resolution.
        depth: Number of downsampling steps of D.
        iterations: Number of iterations.
        cg_iterations: Maximum number of conjugate-gradient iterations per data-consistency step.
        text_width: Width of the prompt embeddings that modulate the features; ``None`` for a
            network without text conditioning.
        predict_std: If true, also predict the error of each pixel with a separate head.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense
        >>> from ctxrecon.reconstructors import PlugAndPlay
        >>> operator = CartesianSense(torch.ones(1, 1, 32, 32, dtype=torch.bool))
        >>> network = PlugAndPlay(width=4, depth=2, iterations=2, cg_iterations=2)
        >>> network(operator, torch.ones(2, 1, 32, 32, dtype=torch.complex64)).images.shape
        torch.Size([2, 32, 32])
    """

    learns_prior = True

    @register_to_config
    def __init__(
        self,
        width: int = 32,
        depth: int = 2,
        iterations: int = 6,
        cg_iterations: int = 6,
        text_width: int | None = None,
        predict_std: bool = False,
    ) -> None:
        super().__init__(text_width, predict_std)
        check_counts(width=width, depth=depth, iterations=iterations, cg_iterations=cg_iterations)
        self.cg_iterations = cg_iterations
        self.denoiser = ResidualUNet(3, width, depth, text_width, out_channels=2)
        levels = torch.linspace(math.log(_HIGHEST), math.log(_LOWEST), iterations)
        self.log_levels = nn.Parameter(levels)
        self.log_dampings = nn.Parameter(math.log(_LAMBDA * _LOWEST**2) - 2 * levels)

    def reconstruct(
        self, operator: SenseOperator, y: Tensor, zero_filled: Tensor, embeds: Tensor | None
    ) -> tuple[Tensor, None]:
        """Return the reconstruction, see :meth:`Reconstructor.reconstruct`."""
        fixed = {name: value.detach() for name, value in self.denoiser.named_parameters()}
        z = zero_filled
        for level, damping in zip(self.log_levels.exp(), self.log_dampings.exp(), strict=True):
            x = damped_solve(
                operator.normal, zero_filled + damping * z, damping, self.cg_iterations
            )
            z = self._denoised(x, level.expand(len(x)), embeds, fixed)
        return z, None

    def prior_loss(
        self,
        images: Tensor,
        generators: Sequence[torch.Generator],
        embeds: Tensor | None = None,
    ) -> Tensor:
        """Return the mean of ``|D(x + n; σ) − x|² / σ²`` with one σ per image, ``(batch,)``."""
        images = images / intensity(images)
        low, high = (math.log(end) for end in _TRAINED)
        drawn = [torch.rand((), generator=each) for each in generators]
        levels = (low + (high - low) * torch.stack(drawn).to(images.device)).exp()
        size, dtype = images.shape[1:], images.dtype
        noise = torch.stack([torch.randn(size, dtype=dtype, generator=each) for each in generators])
        # A complex standard normal has variance ½ in each part.
        noise = 2**0.5 * noise.to(images.device)
        noisy = images + levels[:, None, None] * noise
        own: dict[str, Tensor] = dict(self.denoiser.named_parameters())
        error = self._denoised(noisy, levels, embeds, own) - images
        return error.abs().square().flatten(1).mean(dim=1) / 2 / levels.square()

    def _denoised(
        self, x: Tensor, levels: Tensor, embeds: Tensor | None, weights: dict[str, Tensor]
    ) -> Tensor:
        """Return ``D(x; σ)``, ``(batch, ny, nx)``, with one σ per image."""
        seen = to_network(self.denoiser, x)
        known = levels.log().to(seen)[:, None, None, None].expand(-1, 1, *x.shape[1:])
        correction = functional_call(
            self.denoiser, weights, (torch.cat([seen, known], dim=1), embeds)
        )
        return x + levels[:, None, None] * channels_to_complex(correction)
