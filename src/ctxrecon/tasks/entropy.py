"""Entropy of k-space measurements as a function of the sampling mask.

InfoMRI reduces the information that a measurement ``y = M (F x + n)`` carries about the image by
its entropy: ``I(x; y) = H(y) − H(n)``, whose last term depends on the number of samples only. Each
pair of point-reflected positions is modeled as Gaussian and independent of all other pairs, whose
entropy is an upper bound (equations (27) to (37)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ctxrecon.checks import check_number
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c

_AT_ONCE = 32
"""Number of images whose k-space is held in memory at a time."""
_UNIT = math.log(2 * math.pi * math.e)


@dataclass(frozen=True, eq=False)
class KSpaceStatistics:
    """Covariance of k-space over a set of images, at each position and its point reflection.

    Attributes:
        covariance: Covariance ``(ny, nx, 4, 4)``, float64, of the real and imaginary part of a
            position and of its reflection; the zero frequency lies at ``n // 2``. Real images have
            ``[[v, ±v], [±v, v]]`` in each part.

    Example:
        >>> import torch
        >>> from ctxrecon.tasks import KSpaceStatistics, marginal_entropy
        >>> generator = torch.Generator().manual_seed(0)
        >>> statistics = KSpaceStatistics.of(torch.randn(64, 8, 8, generator=generator))
        >>> mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
        >>> marginal_entropy(mask, statistics, noise_std=0.1).shape
        torch.Size([1])
    """

    covariance: Tensor

    @classmethod
    def of(cls, images: Tensor) -> KSpaceStatistics:
        """Estimate the statistics from a set of images.

        Args:
            images: Two or more real or complex images ``(count, ny, nx)``, such as a training set,
                on the intensity scale on which the noise level is given.

        Raises:
            InputError: If the images have another shape, or there are fewer than two.
        """
        if images.ndim != 3 or len(images) < 2:
            raise InputError(
                f"expected two or more images (count, ny, nx), got shape {tuple(images.shape)}"
            )
        mean = _sum(images, None) / len(images)
        return cls(_sum(images, mean) / (len(images) - 1))

    def entropies(self, noise_std: float) -> SampleEntropies:
        """Return the contribution of each sample to the entropy of a measurement, in nats.

        Args:
            noise_std: Standard deviation σ of the complex noise of a sample, σ²/2 in each part.

        Raises:
            InputError: If the noise is not positive: without noise the entropy of real images is
                unbounded below.
        """
        check_number("noise_std", noise_std, above=0)
        noisy = self.covariance + noise_std**2 / 2 * torch.eye(4).to(self.covariance)
        alone = _UNIT + torch.linalg.slogdet(noisy[..., :2, :2]).logabsdet / 2
        paired = _UNIT + torch.linalg.slogdet(noisy).logabsdet / 4
        rows, columns = (reflection(n) for n in self.covariance.shape[:2])
        own = (rows == torch.arange(len(rows)))[:, None] & (columns == torch.arange(len(columns)))
        return SampleEntropies(alone, torch.where(own.to(alone.device), alone, paired))


class SampleEntropies(NamedTuple):
    """Contribution of each sample to the entropy in nats, ``(ny, nx)`` float64.

    Attributes:
        alone: h₁, if the point reflection is not sampled:
            ``½ log 2πe(v_R + s) + ½ log 2πe(v_I + s)`` for independent parts.
        paired: h₂, half of the pair's entropy, if it is sampled: for real images
            ``¼ log[(2πe)² s(2v_R + s)] + ¼ log[(2πe)² s(2v_I + s)]``. Equal to ``alone`` at
            positions that are their own reflections.
    """

    alone: Tensor
    paired: Tensor

    def of(self, mask: Tensor) -> Tensor:
        """Return ``Ĥ = Σ_j m_j [(1 − m_j′) h₁(j) + m_j′ h₂(j)]`` in nats, ``(batch,)`` float64.

        Args:
            mask: Mask ``(batch, 1, ny, nx)``, bool or from 0 to 1, such as from
                :meth:`~ctxrecon.masks.learned.Sampler.relaxed`. The result is differentiable in
                it.

        Raises:
            InputError: If the mask has another shape.
        """
        shape = tuple(self.alone.shape)
        if mask.ndim != 4 or tuple(mask.shape[1:]) != (1, *shape):
            raise InputError(
                f"expected a mask (batch, 1, {shape[0]}, {shape[1]}), got {tuple(mask.shape)}"
            )
        m = mask[:, 0].to(self.alone.dtype)
        rows, columns = (reflection(n).to(m.device) for n in shape)
        reflected = m[:, rows[:, None], columns[None, :]]
        alone, paired = self.alone.to(m.device), self.paired.to(m.device)
        return (m * ((1 - reflected) * alone + reflected * paired)).sum(dim=(-2, -1))


def marginal_entropy(mask: Tensor, statistics: KSpaceStatistics, noise_std: float) -> Tensor:
    """Estimate the entropy of a measurement with a given mask, in nats.

    To evaluate many masks, keep the result of :meth:`KSpaceStatistics.entropies`.

    Args:
        mask: Mask ``(batch, 1, ny, nx)``, bool or from 0 to 1.
        statistics: Statistics of the images.
        noise_std: Standard deviation σ of the complex noise of a sample.

    Returns:
        Entropies ``(batch,)``, float64, differentiable in the mask.

    Raises:
        InputError: If the mask has another shape, or the noise is not positive.
    """
    return statistics.entropies(noise_std).of(mask)


def reflection(length: int) -> Tensor:
    """Return the index of each position's reflection through the zero frequency ``n // 2``."""
    return (2 * (length // 2) - torch.arange(length)) % length


def _sum(images: Tensor, mean: Tensor | None) -> Tensor:
    """Sum the four parts over the images, or their centered products if a mean is given."""
    total: Tensor | None = None
    for batch in images.split(_AT_ONCE):
        kspace = fft2c(batch.to(torch.complex128))
        rows, columns = (reflection(n).to(kspace.device) for n in kspace.shape[1:])
        pair = torch.stack([kspace, kspace[:, rows[:, None], columns[None, :]]], dim=-1)
        parts = torch.view_as_real(pair).flatten(-2)
        if mean is None:
            here = parts.sum(dim=0)
        else:
            parts = parts - mean
            here = torch.einsum("byxi,byxj->yxij", parts, parts)
        total = here if total is None else total + here
    assert total is not None
    return total
