"""Plug-and-play: a denoiser that knows no measurement, and steps to the data between."""

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
"""σ of the first and of the last iteration, of the bright signal."""
_LAMBDA = 0.23
"""DPIR's weight of the prior, with noise of the lowest σ in the data."""
_TRAINED = (0.005, 0.5)
"""Range of the σ that the denoiser is trained for, uniform in its logarithm."""


class PlugAndPlay(Reconstructor):
    """``x = (AᴴA + μ_k)⁻¹ (Aᴴy + μ_k z)``, ``z ← D(x; σ_k)``, iteration after iteration.

    Half-quadratic splitting with a deep denoiser D: DPIR, Zhang et al., IEEE Trans Pattern Anal
    Mach Intell 44:6360 (2022), the plug-and-play backbone of InfoMRI (InfoMRI-PnP). σ_k falls from
    0.2 to 0.01 of the bright signal in equal ratios and ``μ_k = 0.23 (0.01 / σ_k)²``, to start
    with. D is a residual U-Net that is given σ, as DRUNet is; what it gives is in units of σ.

    D learns to take white noise off images and nothing else (:meth:`prior_loss`): the loss of a
    reconstruction gets no gradient to its weights. It trains σ_k and μ_k and, through D, whatever
    A and y depend on, such as the mask.

    Args:
        width: features of D at full size.
        depth: its halvings.
        iterations: number of steps.
        cg_iterations: at most, in each step to the data.
        text_width: see :class:`~ctxrecon.reconstructors.base.Reconstructor`.
        predict_std: likewise.
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
        """See :meth:`Reconstructor.reconstruct`."""
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
        """Mean of ``|D(x + n; σ) − x|² / σ²`` over the parts of an image, for one σ of each."""
        images = images / intensity(images)
        low, high = (math.log(end) for end in _TRAINED)
        drawn = [torch.rand((), generator=each) for each in generators]
        levels = (low + (high - low) * torch.stack(drawn).to(images.device)).exp()
        size, dtype = images.shape[1:], images.dtype
        noise = torch.stack([torch.randn(size, dtype=dtype, generator=each) for each in generators])
        # A complex standard normal has half a unit of variance in each part.
        noise = 2**0.5 * noise.to(images.device)
        noisy = images + levels[:, None, None] * noise
        own: dict[str, Tensor] = dict(self.denoiser.named_parameters())
        error = self._denoised(noisy, levels, embeds, own) - images
        return error.abs().square().flatten(1).mean(dim=1) / 2 / levels.square()

    def _denoised(
        self, x: Tensor, levels: Tensor, embeds: Tensor | None, weights: dict[str, Tensor]
    ) -> Tensor:
        """``D(x; σ)``, ``(batch, ny, nx)``, with one σ of each image."""
        seen = to_network(self.denoiser, x)
        known = levels.log().to(seen)[:, None, None, None].expand(-1, 1, *x.shape[1:])
        correction = functional_call(
            self.denoiser, weights, (torch.cat([seen, known], dim=1), embeds)
        )
        return x + levels[:, None, None] * channels_to_complex(correction)
