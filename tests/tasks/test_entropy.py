"""Entropy of k-space samples: comparison with full covariances, gradient, preferred masks."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian import complex_noise, seeded

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.masks.learned import LOUPE, PatternGenerator
from ctxrecon.metrics import redundancy_ratio
from ctxrecon.tasks import KSpaceStatistics, marginal_entropy
from ctxrecon.tasks.entropy import reflection

SHAPE = (4, 6)
SIGMA = 0.3


def spectrum(shape=SHAPE) -> torch.Tensor:
    """A symmetric one that falls to the outside."""
    ky, kx = (torch.arange(n) - n // 2 for n in shape)
    return 2 / (1 + (ky**2)[:, None] + (kx**2)[None]).double()


def images(count: int, *, phase: torch.Tensor | float = 0.0, shape=SHAPE) -> torch.Tensor:
    """Real Gaussian images of independent frequencies, times a phase."""
    white = torch.randn((count, *shape), generator=seeded(0), dtype=torch.float64)
    real = ifft2c(fft2c(white.to(torch.complex128)) * spectrum(shape).sqrt()).real
    return real * torch.exp(1j * torch.as_tensor(phase, dtype=torch.complex128))


def whole_entropy(drawn: torch.Tensor, mask: torch.Tensor, sigma: float = SIGMA) -> float:
    """``½ log det 2πe(Σ + s)`` of all real and imaginary parts that are sampled."""
    samples = fft2c(drawn.to(torch.complex128))[:, mask[0, 0]]
    parts = torch.view_as_real(samples).flatten(1)
    covariance = torch.cov(parts.T) + sigma**2 / 2 * torch.eye(parts.shape[1])
    return 0.5 * float(torch.logdet(2 * math.pi * math.e * covariance))


def some_mask(kind: str) -> torch.Tensor:
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    if kind == "alone":  # no position with its reflection
        mask[..., 1:2, 1:] = True
    elif kind == "pairs":
        mask[..., 1:, 2] = mask[..., 1:, 4] = True
    elif kind == "own reflections":
        mask[..., 2, 3] = mask[..., 0, 3] = mask[..., 2, 0] = mask[..., 0, 0] = True
    elif kind == "mixed":
        mask[..., 2, :] = mask[..., 1, 1] = mask[..., 0, 2] = True
    else:
        mask[:] = True
    return mask


@pytest.mark.parametrize("kind", ["alone", "pairs", "own reflections", "mixed", "all"])
@pytest.mark.parametrize("phase", [0.0, math.pi / 4])
def test_the_estimate_is_that_of_the_whole_covariance(kind, phase):
    drawn, mask = images(20_000, phase=phase), some_mask(kind)
    found = float(marginal_entropy(mask, KSpaceStatistics.of(drawn), SIGMA))
    assert found == pytest.approx(whole_entropy(drawn, mask), abs=0.05)


def test_formulas_of_the_paper():
    """h₁ and h₂ of real images whose real and imaginary parts are independent."""
    drawn = images(20_000)
    alone, paired = KSpaceStatistics.of(drawn).entropies(SIGMA)
    kspace = fft2c(drawn)
    v_r, v_i, s = kspace.real.var(dim=0), kspace.imag.var(dim=0), SIGMA**2 / 2
    unit = 2 * math.pi * math.e
    h1 = 0.5 * ((unit * (v_r + s)).log() + (unit * (v_i + s)).log())
    h2 = 0.25 * ((unit**2 * s * (2 * v_r + s)).log() + (unit**2 * s * (2 * v_i + s)).log())
    torch.testing.assert_close(alone, h1, rtol=0, atol=1e-3)
    own = torch.zeros(SHAPE, dtype=torch.bool)
    own[::2, ::3] = True  # zero and Nyquist frequencies of 4 × 6
    torch.testing.assert_close(paired[~own], h2[~own], rtol=0, atol=1e-3)
    torch.testing.assert_close(paired[own], alone[own])


def test_reflections_of_a_rough_phase_tell_something_new():
    phase = 10 * torch.randn(SHAPE, generator=seeded(3))
    drawn, mask = images(20_000, phase=phase), some_mask("pairs")
    statistics = KSpaceStatistics.of(drawn)
    alone, paired = statistics.entropies(SIGMA)
    assert float((alone - paired)[1:, 2].max()) < 0.15
    real = KSpaceStatistics.of(images(20_000)).entropies(SIGMA)
    assert float((real.alone - real.paired)[1:, 2].min()) > 0.4
    # Positions of one pair are exact; what others share is left out, an upper bound.
    assert float(marginal_entropy(mask, statistics, SIGMA)) >= whole_entropy(drawn, mask) - 0.05


def test_limits():
    drawn = images(500)
    statistics = KSpaceStatistics.of(drawn)
    small = [statistics.entropies(sigma) for sigma in (1e-2, 1e-3)]
    fallen = (small[0].paired - small[1].paired)[1, 2]
    # ¼ log s in each of two parts: log 10 for a tenth of σ.
    assert float(fallen) == pytest.approx(math.log(10), rel=1e-2)
    brighter = KSpaceStatistics.of(2 * drawn).entropies(SIGMA)
    assert bool((brighter.alone > statistics.entropies(SIGMA).alone).all())


def test_it_is_invariant_to_a_common_phase_and_to_chunks():
    drawn = images(70)
    turned = drawn * torch.exp(torch.tensor(0.7j))
    one, other = (KSpaceStatistics.of(each).entropies(SIGMA) for each in (drawn, turned))
    torch.testing.assert_close(one.alone, other.alone)
    torch.testing.assert_close(one.paired, other.paired)
    parts = torch.view_as_real(fft2c(drawn))[:, 1, 2]
    found = KSpaceStatistics.of(drawn).covariance[1, 2, :2, :2]
    torch.testing.assert_close(found, torch.cov(parts.T))


def test_gradient():
    statistics = KSpaceStatistics.of(images(100))
    mask = torch.rand(2, 1, *SHAPE, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: marginal_entropy(m, statistics, SIGMA), mask)


def test_refusals():
    statistics = KSpaceStatistics.of(images(10))
    with pytest.raises(InputError, match="positive noise_std"):
        statistics.entropies(0.0)
    with pytest.raises(InputError, match=r"\(batch, 1, 4, 6\)"):
        marginal_entropy(torch.ones(1, 1, 6, 4), statistics, SIGMA)
    with pytest.raises(InputError, match="two images"):
        KSpaceStatistics.of(complex_noise((1, 4, 4), seeded(0)))


class TestObjective:
    """z is the sign of one coefficient of real images whose frequencies are independent."""

    SHAPE = (6, 6)
    LABEL = (3, 5)

    def learned(self, sampler, task: float, entropy: float, steps: int = 150) -> torch.Tensor:
        """The positions that are likelier than not, after training."""
        variance = spectrum(self.SHAPE)
        # An order without ties, the same for reflections.
        rank = torch.arange(36.0).view(6, 6)
        variance = variance * (1 + 1e-2 * (rank * rank.flip(0, 1)) / 36)
        white = torch.randn((4000, *self.SHAPE), generator=seeded(0), dtype=torch.float64)
        real = ifft2c(fft2c(white.to(torch.complex128)) * variance.sqrt()).real
        entropies = KSpaceStatistics.of(real).entropies(SIGMA)
        optimizer = torch.optim.Adam(sampler.parameters(), lr=0.1)
        source = seeded(7)
        for _ in range(steps):
            mask = sampler.relaxed(3.0, 16, source)
            # Without the coefficient, or its reflection, the sign is a coin.
            known = 1 - (1 - mask[..., 3, 5]) * (1 - mask[..., 3, 1])
            loss = task * math.log(2) * (1 - known).mean() + entropy * entropies.of(mask).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.entropies = entropies
        return sampler.probabilities(3.0)[0, 0] > 0.5

    @pytest.fixture(params=["loupe", "generator"])
    def sampler(self, request):
        torch.manual_seed(2)
        if request.param == "loupe":
            return LOUPE(self.SHAPE, 3.0, lines=False, center_fraction=0.0)
        return PatternGenerator(
            self.SHAPE, (0.3, 0.4), lines=False, center_fraction=0.0, embedding=36
        )

    def test_the_task_alone_takes_its_coefficient(self, sampler):
        taken = self.learned(sampler, task=1.0, entropy=0.0)
        assert bool(taken[3, 5] | taken[3, 1])

    def test_suppression_takes_weak_positions_and_pairs(self, sampler):
        taken = self.learned(sampler, task=10.0, entropy=0.1)
        assert bool(taken[3, 5] | taken[3, 1])
        assert not bool(taken[3, 3])  # the zero frequency, where the variance is largest
        assert float(redundancy_ratio(taken[None, None])) > 0.9
        # No mask is below the sum of so many smallest h₂; a random one is at 13.5.
        bound = float(self.entropies.paired.flatten().sort().values[: int(taken.sum())].sum())
        assert bound < self.entropy(taken) < bound + 1.5

    def test_reconstruction_takes_strong_positions_without_pairs(self, sampler):
        taken = self.learned(sampler, task=0.0, entropy=-0.3)
        assert bool(taken[3, 3])
        assert float(redundancy_ratio(taken[None, None])) < 0.1  # the zero frequency itself
        # The optimum: the largest h₁, of each pair the larger one.
        alone = self.entropies.alone.clone()
        rows = columns = reflection(6)
        number = torch.arange(36).view(6, 6)
        alone[number > number[rows][:, columns]] = -torch.inf
        best = float(alone.flatten().sort(descending=True).values[: int(taken.sum())].sum())
        assert best - 0.5 < self.entropy(taken) <= best + 0.02  # reflections differ by noise

    def entropy(self, taken: torch.Tensor) -> float:
        return float(self.entropies.of(taken[None, None]))
