"""Denoiser whose input is multiplied by another global phase at each evaluation."""

from __future__ import annotations

import cmath
import math

from torch import Tensor

from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.priors.denoiser import Denoiser

_GOLDEN_RATIO = (1 + math.sqrt(5)) / 2


class EquivariantDenoiser:
    r"""Denoiser ``D`` whose ``k``-th evaluation is made under the global phase ``φ_k``.

    .. math::

        (\hat{x}_0, \hat{\varepsilon}) = e^{-i\varphi_k} D(e^{i\varphi_k} x_t; t),
        \qquad \varphi_k = 2\pi k / \Phi, \quad k = 0, 1, \ldots

    The global phase of an MR image is arbitrary, so the exact denoiser of MR images is unchanged. A
    trained network depends on the phase, and an iterative solver averages this error over its
    evaluations. Terris et al. (Equivariant plug-and-play image reconstruction, CVPR 2024,
    arXiv:2312.01831) draw random geometric transformations; here the phase follows the golden
    ratio, so that deterministic solvers remain deterministic. The first evaluation is that of
    ``D``.

    An instance counts its evaluations: use a new one for each reconstruction.

    Example:
        >>> import torch
        >>> from ctxrecon.priors import EquivariantDenoiser, TextDenoiser
        >>> from ctxrecon.priors import build_scheduler, build_unet
        >>> unet = build_unet(block_out_channels=(8, 16), cross_attention_dim=8).eval()
        >>> states = torch.zeros(1, 77, 8)
        >>> plain = TextDenoiser(unet, build_scheduler(), states, None, guidance_scale=1.0)
        >>> denoiser = EquivariantDenoiser(plain)
        >>> x0, eps = denoiser(torch.zeros(1, 2, 16, 16), t=500)
        >>> x0.shape, eps.shape
        (torch.Size([1, 2, 16, 16]), torch.Size([1, 2, 16, 16]))

    Args:
        denoiser: Denoiser to evaluate.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self._evaluations = 0

    @property
    def alphas_cumprod(self) -> Tensor:
        """``ᾱ_t``, ``(T,)`` float32 on the CPU."""
        return self._denoiser.alphas_cumprod

    @property
    def size_multiple(self) -> int:
        """Number of which ``ny`` and ``nx`` must be multiples."""
        return self._denoiser.size_multiple

    def __call__(self, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Estimate ``x_0`` and ``ε``, each ``(batch, 2, ny, nx)`` float32."""
        angle = 2 * math.pi * (self._evaluations / _GOLDEN_RATIO % 1)
        self._evaluations += 1
        x_0, noise = self._denoiser(_turned(x_t, angle), t)
        return _turned(x_0, -angle), _turned(noise, -angle)


def _turned(x: Tensor, angle: float) -> Tensor:
    """Multiply images ``(batch, 2, ny, nx)`` by ``e^{iφ}``."""
    return complex_to_channels(channels_to_complex(x) * cmath.exp(1j * angle))
