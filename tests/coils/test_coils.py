"""Receiver coils: simulated arrays, combination, compression and prewhitening."""

from __future__ import annotations

import pytest
import torch

from ctxrecon.coils import (
    compress_coils,
    mvue,
    prewhiten,
    root_sum_of_squares,
    simulate_coil_maps,
)
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c


def complex_normal(*shape: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=generator)


@pytest.mark.parametrize("shape", [(96, 72), (33, 20), (8, 8), (1, 1)])
@pytest.mark.parametrize("num_coils", [1, 2, 8])
def test_simulated_maps_have_unit_power(shape, num_coils, generator):
    maps = simulate_coil_maps(num_coils, shape, batch_size=2, generator=generator)
    assert maps.shape == (2, num_coils, *shape)
    assert maps.dtype == torch.complex64
    torch.testing.assert_close(root_sum_of_squares(maps), torch.ones(2, *shape))


def test_simulated_maps_batched_equal_one_by_one():
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    batch = simulate_coil_maps(6, (64, 48), batch_size=3, generator=generators[0])
    single = [simulate_coil_maps(6, (64, 48), generator=generators[1]) for _ in range(3)]
    torch.testing.assert_close(batch, torch.cat(single))
    assert not torch.allclose(batch[0], batch[1])


def test_simulated_array_covers_the_field_of_view(generator):
    magnitude = simulate_coil_maps(8, (64, 64), batch_size=8, generator=generator).abs()
    assert magnitude.amax(dim=(2, 3)).min() > 0.3, "every coil sees some place well"
    assert magnitude[..., 16:48, 16:48].amax(dim=1).max() < 0.9, "none is alone in the middle"
    assert magnitude.amin(dim=(2, 3)).max() < 0.25, "none sees everything alike"


def test_simulated_maps_are_as_smooth_as_a_real_array(shared_data, generator):
    """Angle between the coil vectors of pixels 8 apart; it does not depend on their phase."""
    import numpy as np

    real = torch.as_tensor(np.load(shared_data / "coil_maps_32ch" / "coil_maps.npy"))
    real = real.to(torch.complex64)[None]
    real = real / root_sum_of_squares(real)[:, None].clamp_min(1e-9)
    simulated = simulate_coil_maps(32, (128, 128), batch_size=4, generator=generator)

    def mean_angle(maps):
        maps = maps[..., 32:96, 32:96]
        overlap = (maps[..., 8:, :].conj() * maps[..., :-8, :]).sum(dim=1).abs()
        return overlap.clamp_max(1).acos().mean()

    assert 0.5 < mean_angle(simulated) / mean_angle(real) < 2


def test_simulation_refuses_nothing_to_simulate():
    with pytest.raises(InputError, match="at least one coil"):
        simulate_coil_maps(0, (8, 8))


def test_mvue_inverts_the_fully_sampled_model(generator):
    maps = simulate_coil_maps(4, (24, 20), generator=generator)
    image = complex_normal(3, 24, 20, generator=generator)
    torch.testing.assert_close(mvue(fft2c(2 * maps * image[:, None]), 2 * maps), image)


def test_mvue_is_zero_where_maps_are(generator):
    maps = simulate_coil_maps(4, (24, 20), generator=generator)
    maps[..., :5] = 0
    image = mvue(complex_normal(1, 4, 24, 20, generator=generator), maps)
    assert (image[..., :5] == 0).all()
    assert torch.isfinite(image.abs()).all()


def test_mvue_refuses_maps_of_another_array(generator):
    kspace = complex_normal(1, 4, 8, 8, generator=generator)
    with pytest.raises(InputError, match="expected coil maps"):
        mvue(kspace, kspace[:, :3])


def test_compression_keeps_a_low_rank_array_exactly(generator):
    virtual = complex_normal(2, 3, 16, 12, generator=generator)
    mixing = complex_normal(10, 3, generator=generator)
    kspace = torch.einsum("cv,bvyx->bcyx", mixing, virtual)
    compressed = compress_coils(kspace, 3)
    assert compressed.kspace.shape == (2, 3, 16, 12)
    assert compressed.energy == pytest.approx(1, abs=1e-5)
    restored = torch.einsum("vc,bvyx->bcyx", compressed.matrix.conj(), compressed.kspace)
    torch.testing.assert_close(restored, kspace, rtol=1e-3, atol=1e-3)


def test_compression_is_orthonormal_ordered_and_scale_free(generator):
    kspace = complex_normal(2, 6, 16, 12, generator=generator)
    kspace = kspace * torch.arange(1, 7)[:, None, None]
    compressed = compress_coils(kspace, 4)
    torch.testing.assert_close(compressed.matrix @ compressed.matrix.mH, torch.eye(4) + 0j)
    power = compressed.kspace.abs().square().sum(dim=(0, 2, 3))
    assert (power.diff() <= 0).all()
    assert compressed.energy == pytest.approx(
        float(power.sum() / kspace.abs().square().sum()), abs=1e-5
    )
    tiny = compress_coils(kspace * 1e-12, 4)
    assert tiny.energy == pytest.approx(compressed.energy, abs=1e-5)


@pytest.mark.parametrize("num_coils", [0, 7])
def test_compression_refuses_a_wrong_number(num_coils, generator):
    with pytest.raises(InputError, match=r"expected 1 to 6 virtual coils"):
        compress_coils(complex_normal(1, 6, 8, 8, generator=generator), num_coils)


def test_compression_refuses_zeros():
    with pytest.raises(InputError, match="only zeros"):
        compress_coils(torch.zeros(1, 6, 8, 8, dtype=torch.complex64), 3)


def test_prewhitening_gives_unit_uncorrelated_noise(generator):
    mixing = 1e-7 * complex_normal(5, 5, generator=generator)
    noise = mixing @ complex_normal(5, 20_000, generator=generator)
    scan = mixing @ complex_normal(5, 20_000, generator=generator)
    white = prewhiten(scan.reshape(5, 100, 200)[None], noise)[0].flatten(1)
    covariance = white @ white.mH / white.shape[1]
    torch.testing.assert_close(covariance, torch.eye(5) + 0j, atol=0.05, rtol=0)


def test_prewhitening_refuses_unfit_noise(generator):
    kspace = complex_normal(1, 4, 8, 8, generator=generator)
    noise = complex_normal(4, 400, generator=generator)
    with pytest.raises(InputError, match=r"4 coils, samples"):
        prewhiten(kspace, noise[:3])
    with pytest.raises(InputError, match=r"40.*39"):
        prewhiten(kspace, noise[:, :39])
    broken = noise.clone()
    broken[1, 7] = float("nan")
    with pytest.raises(InputError, match="expected finite noise samples"):
        prewhiten(kspace, broken)
    for factor in (0, 1):  # a dead coil, a duplicated one
        broken = noise.clone()
        broken[3] = factor * noise[0]
        with pytest.raises(InputError, match="got a singular covariance"):
            prewhiten(kspace, broken)


def test_malformed_kspace_is_refused(generator):
    kspace = complex_normal(1, 4, 8, 8, generator=generator)
    with pytest.raises(InputError, match=r"k-space.*ndarray"):
        compress_coils(kspace.numpy(), 2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"complex k-space"):
        compress_coils(kspace[0], 2)
    with pytest.raises(InputError, match="expected complex k-space"):
        compress_coils(kspace.real, 2)
    with pytest.raises(InputError, match="empty"):
        compress_coils(kspace[:0], 2)
    kspace[0, 1, 2, 3] = torch.tensor(complex("nan"))
    with pytest.raises(InputError, match="expected finite k-space"):
        compress_coils(kspace, 2)
