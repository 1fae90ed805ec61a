"""Thresholds from the data, Walsh's method, two sets of maps, other devices."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from gaussian import GaussianDenoiser
from test_coil_maps import center_lines, ellipse, residual, similarity, simulated_scan
from torch import Tensor
from torch.nn.functional import pad

from ctxrecon.coils import (
    EspiritMaps,
    espirit,
    estimate_coil_maps,
    find_calibration_region,
    root_sum_of_squares,
    simulate_coil_maps,
    walsh,
)
from ctxrecon.coils import _espirit as module
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.linalg import conjugate_gradient
from ctxrecon.operators import CartesianSense, SoftSense, adjoint_error
from ctxrecon.solvers import DDS

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


# --- the threshold --------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.1, 0.3])
@pytest.mark.parametrize("lines", [8, 24])
def test_automatic_threshold_is_near_the_best_fixed_one(lines, noise, generator):
    kspace, _, _ = simulated_scan(generator, noise=noise)
    clean = ifft2c(simulated_scan(torch.Generator().manual_seed(0), noise=0)[0])
    mask = center_lines((96, 80), lines)

    region = find_calibration_region(mask)
    calibration = kspace[:, :, region[0], region[1]]

    def error(threshold: float | Literal["auto"]) -> float:
        kernel = (6, min(6, lines // 2))
        maps = espirit(calibration, (96, 80), kernel_size=kernel, threshold=threshold, crop=0)
        return residual(clean, maps.coil_maps)

    fixed = {threshold: error(threshold) for threshold in (0.02, 0.03, 0.05, 0.1)}
    assert error("auto") < 1.25 * min(fixed.values()), fixed
    if noise > 0.2:
        assert error("auto") < 0.5 * fixed[0.02], fixed


@pytest.mark.parametrize("positions", [172, 400])
def test_threshold_separates_noise_from_signal(positions, generator):
    """Gavish and Donoho's rule on the matrix that it was derived for."""
    n, rank = 144, 9
    noise = torch.randn(2, n, positions, dtype=torch.complex64, generator=generator)
    left = torch.linalg.qr(noise[:, :, :rank])[0]
    right = torch.randn(2, rank, positions, dtype=torch.complex64, generator=generator)
    matrix = noise + 20 * left @ right
    values = torch.linalg.eigvalsh(matrix @ matrix.mH)
    threshold = module._noise_threshold(values, n, positions)
    assert ((values > threshold**2 * values[:, -1:]).sum(dim=1) == rank).all()


def test_automatic_threshold_of_a_clean_scan_is_the_usual_one(generator):
    values = torch.cat([torch.zeros(1, 90) - 1e-9, torch.ones(1, 10)], dim=1)
    assert module._noise_threshold(values, 100, 200) == pytest.approx(0.02)
    kspace, _, _ = simulated_scan(generator)
    calibration = kspace[..., 36:60, 28:52]
    auto, fixed = (
        espirit(calibration, (96, 80), threshold=threshold) for threshold in ("auto", 0.02)
    )
    assert torch.equal(auto.coil_maps, fixed.coil_maps)


def test_each_item_has_its_own_threshold_and_crop(generator):
    clean, _, _ = simulated_scan(generator, noise=1e-3)
    noisy = clean + 0.2 * torch.randn(clean.shape, dtype=clean.dtype, generator=generator)
    calibration = torch.cat([clean, noisy])[..., 36:60, 28:52]
    for num_maps in (1, 2):
        batch = espirit(calibration, (96, 80), num_maps=num_maps)
        single = [espirit(item[None], (96, 80), num_maps=num_maps) for item in calibration]
        for i, item in enumerate(single):
            torch.testing.assert_close(
                batch.eigenvalues[i : i + 1], item.eigenvalues, atol=1e-3, rtol=0
            )
            torch.testing.assert_close(
                explained(batch)[i : i + 1], explained(item), atol=5e-3, rtol=0
            )


# --- Walsh ------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(96, 80), (107, 131), (30, 24)])
def test_walsh_finds_a_simulated_array(shape, generator):
    kspace, maps, inside = simulated_scan(generator, shape, batch=2)
    mask = center_lines(shape, 24)
    estimate = estimate_coil_maps(kspace * mask, mask, method="walsh")
    assert estimate.shape == maps.shape
    assert estimate.dtype == torch.complex64
    for agreement in similarity(maps, estimate):
        assert agreement[inside].median() > 0.998
        assert agreement[inside].quantile(0.05) > 0.97
    single = estimate_coil_maps(kspace[1:] * mask, mask, method="walsh")
    torch.testing.assert_close(estimate[1:], single, atol=1e-4, rtol=0)


def test_walsh_is_the_eigenvector_of_the_local_covariance(generator):
    """One coil image a multiple of another: the map is that vector, the phase ESPIRiT's."""
    image, inside = ellipse((64, 64))
    vector = torch.tensor([0.6, 0.8j, 0])
    kspace = fft2c(vector[:, None, None] * image)[None]
    kspace = kspace + 1e-4 * torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
    maps = walsh(kspace[..., 20:44, 20:44], (64, 64))[0][:, inside]
    expected = (vector * vector[1].conj() / vector[1].abs())[:, None].expand_as(maps)
    torch.testing.assert_close(maps, expected, atol=1e-2, rtol=0)


def test_walsh_crops_what_is_not_coherent(generator):
    kspace, _, inside = simulated_scan(generator, noise=0.05)
    calibration = kspace[..., 36:60, 28:52]
    support = {
        crop: root_sum_of_squares(walsh(calibration, (96, 80), crop=crop))[0] > 0
        for crop in (0, 0.9, "auto")
    }
    assert support[0].all()
    assert support["auto"][inside].float().mean() > 0.99
    assert support["auto"].sum() <= support[0.9].sum() < 0.95 * inside.numel()


def test_walsh_refuses_what_it_does_not_have(generator):
    kspace, _, _ = simulated_scan(generator, (32, 32), coils=2)
    with pytest.raises(InputError, match=r"num_maps=2.*walsh"):
        estimate_coil_maps(kspace, method="walsh", num_maps=2)
    with pytest.raises(InputError, match="expected complex k-space"):
        walsh(kspace.real, (32, 32))


# --- two sets of maps -------------------------------------------------------------------------


def folded_scan(generator: torch.Generator, noise: float = 1e-3) -> tuple[Tensor, Tensor]:
    """k-space and coil images ``(1, 6, 72, 54)`` of an object wider than the field of view."""
    maps = simulate_coil_maps(6, (72, 80), generator=generator)
    y = torch.linspace(-1, 1, 72)[:, None]
    x = torch.linspace(-1, 1, 80)
    inside = (y / 0.75) ** 2 + (x / 0.9) ** 2 < 1
    images = pad(maps * inside * (1 + 0.3 * torch.sin(9 * y) * torch.cos(13 * x)), (14, 14))
    left, center, right = images.split([27, 54, 27], dim=-1)
    images = center + torch.cat([right, left], dim=-1)
    kspace = fft2c(images)
    noise_samples = torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
    return kspace + noise * noise_samples, images


def explained(maps: EspiritMaps) -> Tensor:
    """Projector on the span of the maps, ``(batch, coils, coils, ny, nx)``, soft at the crop."""
    sets = maps.coil_maps if maps.coil_maps.ndim == 5 else maps.coil_maps[:, None]
    weights = maps.eigenvalues.reshape(sets.shape[0], sets.shape[1], 1, *sets.shape[3:])
    weights = ((weights - 0.96) / 0.04).clamp(0, 1)
    return torch.einsum("bkcyx,bkdyx->bcdyx", weights * sets, sets.conj())


def test_two_sets_explain_a_folded_object(generator):
    kspace, images = folded_scan(generator)
    calibration = kspace[..., 12:60, 15:39]
    one = espirit(calibration, (72, 54)).coil_maps
    two = espirit(calibration, (72, 54), num_maps=2)
    assert two.coil_maps.shape == (1, 2, 6, 72, 54)
    assert two.eigenvalues.shape == (1, 2, 72, 54)
    products = torch.einsum("bkcyx,blcyx->klyx", two.coil_maps.conj(), two.coil_maps)
    norms = products.diagonal().movedim(-1, 0).real
    assert (((norms - 1).abs() < 1e-4) | (norms == 0)).all()
    assert products[0, 1].abs().max() < 1e-4
    assert two.eigenvalues[:, 1, 36, 27] < 0.9, "the centre is not folded"
    assert two.eigenvalues[:, 1, 36, 1] > 0.95, "the border is"
    combined = (two.coil_maps.conj() * images[:, None]).sum(dim=2, keepdim=True)
    rest = images - (two.coil_maps * combined).sum(dim=1)
    relative = float(torch.linalg.vector_norm(rest) / torch.linalg.vector_norm(images))
    assert relative < 0.02
    assert residual(images, one) > 0.2


def test_a_second_set_is_empty_where_one_suffices(generator):
    kspace, _, _ = simulated_scan(generator, noise=0.02)
    mask = center_lines((96, 80), 24)
    two = estimate_coil_maps(kspace * mask, mask, num_maps=2)
    one = estimate_coil_maps(kspace * mask, mask)
    assert (root_sum_of_squares(two[:, 1]) > 0).float().mean() < 0.02
    both = (root_sum_of_squares(two[:, 0]) > 0) & (root_sum_of_squares(two[:, 1]) == 0)
    both &= root_sum_of_squares(one) > 0
    assert both.float().mean() > 0.4
    torch.testing.assert_close(
        two[:, 0].movedim(1, -1)[both], one.movedim(1, -1)[both], atol=1e-3, rtol=0
    )


def test_two_sets_on_the_grid_agree_with_every_pixel(generator, monkeypatch):
    kspace, _ = folded_scan(generator)
    calibration = kspace[..., 12:60, 15:39]
    coarse = espirit(calibration, (72, 54), num_maps=2)
    monkeypatch.setattr(module, "POINTS_PER_SAMPLE", 1000)
    full = espirit(calibration, (72, 54), num_maps=2)
    difference = (explained(coarse) - explained(full)).abs().amax(dim=(1, 2))
    assert difference.quantile(0.99) < 0.02


def test_bad_numbers_of_sets_are_refused(generator):
    kspace, _, _ = simulated_scan(generator, (32, 32), coils=2)
    with pytest.raises(InputError, match="num_maps"):
        estimate_coil_maps(kspace, num_maps=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"two coils.*one"):
        estimate_coil_maps(kspace[:, :1], num_maps=2)


# --- the operator -----------------------------------------------------------------------------


@pytest.fixture
def soft(generator) -> SoftSense:
    mask = torch.rand(2, 1, 13, 10, generator=generator) < 0.5
    return SoftSense(mask, torch.randn(1, 2, 3, 13, 10, dtype=torch.complex64, generator=generator))


def test_soft_sense_is_the_sum_of_its_sets(soft, generator):
    assert soft.domain_shape == (2, 26, 10)
    assert soft.range_shape == (2, 3, 13, 10)
    x = torch.randn(soft.domain_shape, dtype=torch.complex64, generator=generator)
    parts = [
        CartesianSense(soft.mask, soft.coil_maps[:, k])(soft.images(x)[:, k]) for k in range(2)
    ]
    torch.testing.assert_close(soft(x), parts[0] + parts[1])
    assert adjoint_error(soft) < 1e-5
    torch.testing.assert_close(soft.normal(x), soft.adjoint(soft(x)), atol=1e-4, rtol=1e-4)
    single = SoftSense(soft.mask[1:], soft.coil_maps)
    torch.testing.assert_close(single.normal(x[1:]), soft.normal(x)[1:])


def test_soft_sense_refuses_what_does_not_fit(soft, generator):
    with pytest.raises(InputError, match=r"sets, coils"):
        SoftSense(soft.mask, soft.coil_maps[:, 0])
    with pytest.raises(InputError, match="expected complex64 coil maps"):
        SoftSense(soft.mask, soft.coil_maps.to(torch.complex128))
    with pytest.raises(InputError, match="expected a bool mask"):
        SoftSense(soft.mask.float(), soft.coil_maps)
    with pytest.raises(InputError, match="stacked along"):
        soft(torch.zeros(2, 13, 10, dtype=torch.complex64))
    with pytest.raises(AttributeError, match="immutable"):
        soft.mask = soft.mask


def test_a_folded_object_is_reconstructed_with_two_sets(generator):
    kspace, images = folded_scan(generator)
    mask = center_lines((72, 54), 24)
    mask[..., ::2] = True
    truth = root_sum_of_squares(images)
    errors = []
    for num_maps in (1, 2):
        maps = estimate_coil_maps(kspace * mask, mask, num_maps=num_maps)
        operator = SoftSense(mask, maps.reshape(1, num_maps, 6, 72, 54))
        x = conjugate_gradient(
            (operator.gram + 1e-3),
            operator.adjoint(kspace * mask),
            num_iterations=30,
        )
        magnitude = root_sum_of_squares(operator.images(x))
        errors.append(float((magnitude - truth).norm() / truth.norm()))
    assert errors[1] < 0.03
    assert errors[0] > 5 * errors[1]


def test_a_solver_takes_soft_sense_unchanged(generator):
    kspace, _ = folded_scan(generator)
    mask = center_lines((72, 54), 24)
    mask[..., ::2] = True
    operator = SoftSense(mask, estimate_coil_maps(kspace * mask, mask, num_maps=2))
    shape = operator.domain_shape[1:]
    prior = GaussianDenoiser(torch.zeros(shape, dtype=torch.complex64), torch.ones(shape))
    x = DDS(eta=0.0, data_weight=100.0, cg_iterations=15)(
        prior, operator, kspace * mask, timesteps=[900, 500, 100], generator=generator
    )
    assert x.shape == operator.domain_shape
    rest = operator(x) - kspace * mask
    assert torch.linalg.vector_norm(rest) < 0.05 * torch.linalg.vector_norm(kspace * mask)


# --- devices ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_maps": 2}, {"method": "walsh"}])
def test_tensors_are_made_where_the_data_are(options, generator):
    kspace, _, _ = simulated_scan(generator, (32, 28), coils=3)
    reference = estimate_coil_maps(kspace, **options)
    with torch.device("meta"):  # a tensor made without a device would not mix with the others
        estimate = estimate_coil_maps(kspace, **options)
    torch.testing.assert_close(estimate, reference)


@needs_cuda
@pytest.mark.parametrize("options", [{}, {"method": "walsh"}])
def test_the_gpu_gives_the_same_maps(options, generator):
    kspace, _, _ = simulated_scan(generator, batch=2)
    mask = center_lines((96, 80), 12)
    here = estimate_coil_maps(kspace * mask, mask, crop=0, **options)
    there = estimate_coil_maps((kspace * mask).cuda(), mask.cuda(), crop=0, **options)
    assert there.is_cuda
    torch.testing.assert_close(there.cpu(), here, atol=2e-3, rtol=0)


@needs_cuda
def test_the_gpu_gives_the_same_two_sets(generator):
    kspace, _ = folded_scan(generator)
    calibration = kspace[..., 12:60, 15:39]
    here = espirit(calibration, (72, 54), num_maps=2)
    there = espirit(calibration.cuda(), (72, 54), num_maps=2)
    there = EspiritMaps(*(part.cpu() for part in there))
    torch.testing.assert_close(there.eigenvalues, here.eigenvalues, atol=1e-3, rtol=0)
    difference = (explained(there) - explained(here)).abs().amax(dim=(1, 2))
    assert difference.quantile(0.999) < 0.02
