"""How much measurements tell of images: the entropy of k-space samples, by its mask.

InfoMRI suppresses what a measurement tells of the image by the entropy of ``y = M (F x + n)``:
``I(x; y) = H(y) − H(n)``, whose last term depends on the number of samples alone. Pairs of
positions that are point reflections of each other are taken as Gaussian and independent of other
pairs, of which the entropy is an upper bound (equations (27) to (37)).
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
"""Images whose k-space is in memory at once."""
_UNIT = math.log(2 * math.pi * math.e)


@dataclass(frozen=True, eq=False)
class KSpaceStatistics:
    """How k-space varies over a set of images: at each position with its point reflection.

    Attributes:
        covariance: ``(ny, nx, 4, 4)`` float64, of the real and the imaginary part of a position,
            then those of its reflection; the zero frequency lies at ``n // 2``. Real images have
            ``[[v, ±v], [±v, v]]`` in each part.
    """

    covariance: Tensor

    @classmethod
    def of(cls, images: Tensor) -> KSpaceStatistics:
        """Those of a set of images.

        Args:
            images: ``(count, ny, nx)`` real or complex, two or more, such as a training set on
                the intensity scale on which the noise is known.

        Raises:
            InputError: images of another shape, or fewer than two.
        """
        if images.ndim != 3 or len(images) < 2:
            raise InputError(
                f"expected two images or more (count, ny, nx), got shape {tuple(images.shape)}"
            )
        mean = _sum(images, None) / len(images)
        return cls(_sum(images, mean) / (len(images) - 1))

    def entropies(self, noise_std: float) -> SampleEntropies:
        """What each sample adds to the entropy of a measurement, in nats.

        Args:
            noise_std: σ of the complex noise of a sample, σ²/2 in each part.

        Raises:
            InputError: a noise that is not positive: without noise the entropy of real images has
                no bound from below.
        """
        check_number("noise_std", noise_std, above=0)
        noisy = self.covariance + noise_std**2 / 2 * torch.eye(4).to(self.covariance)
        alone = _UNIT + torch.linalg.slogdet(noisy[..., :2, :2]).logabsdet / 2
        paired = _UNIT + torch.linalg.slogdet(noisy).logabsdet / 4
        rows, columns = (reflection(n) for n in self.covariance.shape[:2])
        own = (rows == torch.arange(len(rows)))[:, None] & (columns == torch.arange(len(columns)))
        return SampleEntropies(alone, torch.where(own.to(alone.device), alone, paired))


class SampleEntropies(NamedTuple):
    """The entropy that each sample adds, in nats, ``(ny, nx)`` float64.

    Attributes:
        alone: h₁, where its point reflection is not sampled:
            ``½ log 2πe(v_R + s) + ½ log 2πe(v_I + s)`` for independent parts.
        paired: h₂, half of the pair's, where it is: for real images
            ``¼ log[(2πe)² s(2v_R + s)] + ¼ log[(2πe)² s(2v_I + s)]``. Equal to ``alone`` at the
            positions that are their own reflections.
    """

    alone: Tensor
    paired: Tensor

    def of(self, mask: Tensor) -> Tensor:
        """``Ĥ = Σ_j m_j [(1 − m_j′) h₁(j) + m_j′ h₂(j)]`` in nats, ``(batch,)`` float64.

        Args:
            mask: ``(batch, 1, ny, nx)``, bool or from 0 to 1, such as from
                :meth:`~ctxrecon.masks.learned.Sampler.relaxed`; differentiable in it.

        Raises:
            InputError: a mask of another shape.
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
    """Estimate of the entropy of a measurement with this mask, in nats, ``(batch,)`` float64.

    To evaluate many masks, keep :meth:`KSpaceStatistics.entropies`.

    Args:
        mask: ``(batch, 1, ny, nx)``, bool or from 0 to 1; differentiable in it.
        statistics: of the images.
        noise_std: σ of the complex noise of a sample.

    Raises:
        InputError: a mask of another shape, or a noise that is not positive.
    """
    return statistics.entropies(noise_std).of(mask)


def reflection(length: int) -> Tensor:
    """Index of each position's reflection through the zero frequency at ``n // 2``."""
    return (2 * (length // 2) - torch.arange(length)) % length


def _sum(images: Tensor, mean: Tensor | None) -> Tensor:
    """Sum over the images of the four parts, or of their products where the mean is given."""
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
