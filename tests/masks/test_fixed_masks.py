"""Masks of the strongest samples of images, and fixed masks by name."""

from __future__ import annotations

import pytest
import torch
from gaussian import complex_noise, seeded

from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.masks import MASKS, make_mask
from ctxrecon.masks.learned import (
    FixedMasks,
    kspace_energy,
    spectrum_mask,
)

# spectrum_mask


def test_the_spectrum_mask_takes_the_strongest_samples():
    energy = torch.rand(12, 16, generator=seeded(0))
    mask = spectrum_mask(energy, 4, 0.0, lines=False)
    assert mask.shape == (1, 1, 12, 16)
    assert int(mask.sum()) == 48
    assert float(energy[mask[0, 0]].min()) > float(energy[~mask[0, 0]].max())
    lines = spectrum_mask(energy, 4, 0.0)[0, 0]
    assert int(lines[0].sum()) == 4
    strength = energy.sum(dim=0)
    assert float(strength[lines[0]].min()) > float(strength[~lines[0]].max())
    center = spectrum_mask(energy, 4, 0.125)[0, 0, 0]
    assert center[7:9].all()


@pytest.mark.parametrize("acceleration", [2, 4, 8, 15, 32])
@pytest.mark.parametrize("shape", [(64, 48), (31, 45)])
def test_the_spectrum_mask_has_the_budget_of_other_masks(shape, acceleration):
    energy = torch.ones(shape)
    for lines, other in ((True, "uniform1d"), (False, "variable_density2d")):
        mask = spectrum_mask(energy, acceleration, lines=lines)
        assert mask.sum() == make_mask(other, shape, acceleration).sum()


def test_energy_is_the_mean_over_images():
    kspace = complex_noise((3, 8, 9), seeded(0))
    energy = kspace_energy(ifft2c(kspace))
    torch.testing.assert_close(
        energy, kspace.abs().double().square().mean(dim=0), rtol=1e-5, atol=0
    )
    real = torch.rand(3, 16, 16, generator=seeded(0))
    symmetric = spectrum_mask(kspace_energy(real), 3, 0.0)
    assert symmetric.shape == (1, 1, 16, 16)


class TestFixedMasks:
    """Fixed masks, the baseline of learned samplers."""

    @pytest.mark.parametrize("mask", ["uniform1d", "gaussian1d", "poisson_disk2d"])
    def test_they_are_the_masks_of_that_name(self, mask, tmp_path):
        sampler = FixedMasks((32, 40), 4.0, mask, 0.1)
        sampler.save_pretrained(tmp_path)
        again = FixedMasks.from_pretrained(tmp_path)
        expected = make_mask(mask, (32, 40), 4.0, 0.1, batch_size=2, generator=seeded(3))
        assert torch.equal(again(batch_size=2, generator=seeded(3)), expected)
        relaxed = again.relaxed(batch_size=2, generator=seeded(3))
        assert torch.equal(relaxed, expected.float())
        always = again.as_mask(again.budget().center)
        assert bool((expected >= always).all())

    @pytest.mark.parametrize("mask", list(MASKS))
    def test_the_center_is_always_taken(self, mask):
        """Coil maps are estimated from it."""
        sampler = FixedMasks((32, 40), 8.0, mask)
        center = sampler.as_mask(sampler.budget().center)
        assert bool((sampler(batch_size=3, generator=seeded(0)) >= center).all())

    def test_a_range_of_ratios(self):
        sampler = FixedMasks((32, 40), mask="uniform1d", ratios=(0.2, 0.5))
        drawn = [sampler.draw_acceleration(seeded(n)) for n in range(50)]
        assert 2 <= min(drawn) < 2.6 < 4 < max(drawn) <= 5
        assert int(sampler(4.0)[0, 0, 0].sum()) == 10
        assert FixedMasks((32, 40), 4.0).draw_acceleration() == 4.0
        with pytest.raises(InputError, match="of its own"):
            sampler()

    @pytest.mark.parametrize(("mask", "lines"), [("spectrum1d", True), ("spectrum2d", False)])
    def test_masks_by_the_spectrum_of_images(self, mask, lines, tmp_path):
        images = complex_noise((5, 24, 16), seeded(0))
        sampler = FixedMasks((24, 16), mask=mask, center_fraction=0.0, ratios=(0.1, 0.5))
        with pytest.raises(InputError, match="no spectrum yet"):
            sampler(4.0)
        sampler.fit(images)
        sampler.save_pretrained(tmp_path)
        again = FixedMasks.from_pretrained(tmp_path)
        for acceleration in (2.0, 7.0):
            expected = spectrum_mask(kspace_energy(images), acceleration, 0.0, lines=lines)
            assert torch.equal(again(acceleration, 3), expected.expand(3, -1, -1, -1))
            relaxed = again.relaxed(acceleration, 3, seeded(0))
            assert torch.equal(relaxed, expected.float().expand(3, -1, -1, -1))

    def test_images_without_a_spectrum(self):
        sampler = FixedMasks((8, 8), 2.0, "spectrum2d")
        with pytest.raises(InputError, match="8, 8"):
            sampler.fit(torch.ones(2, 8, 6))
        with pytest.raises(InputError, match="without signal"):
            sampler.fit(torch.zeros(2, 8, 8))
        with pytest.raises(InputError, match="leave the images out"):
            FixedMasks((8, 8), 2.0).fit(torch.ones(2, 8, 8))
        sampler.fit(torch.ones(2, 8, 8))
        with pytest.raises(InputError, match="batch size"):
            sampler(2.0, 0)

    def test_malformed_options(self):
        with pytest.raises(InputError, match="unknown mask 'spiral'"):
            FixedMasks((8, 8), 2.0, "spiral")
        with pytest.raises(InputError, match="or a range"):
            FixedMasks((8, 8))
        with pytest.raises(InputError, match="or a range"):
            FixedMasks((8, 8), 2.0, ratios=(0.2, 0.5))
        with pytest.raises(InputError, match=r"within \(0, 1\]"):
            FixedMasks((8, 8), ratios=(0.2, 1.5))
