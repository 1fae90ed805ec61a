"""Weight of the prior, chosen by held-out samples."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from gaussian import GaussianDenoiser, complex_noise, seeded
from narrow import present, tensor

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.coils.noise import estimate_noise_std
from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.inference.weighting import (
    FACTORS,
    best_candidate,
    held_back,
    part_of,
    prediction_errors,
)
from ctxrecon.measurement import Measurement
from ctxrecon.operators import CartesianSense, sense_operator
from ctxrecon.solvers import DDS, PnPADMM

SHAPE = (40, 48)
LOGGER = "ctxrecon.inference.weighting"
QUICK = {"num_inference_steps": 4}


def lines(step: int, shape: tuple[int, int] = SHAPE) -> torch.Tensor:
    mask = torch.zeros(1, 1, *shape, dtype=torch.bool)
    mask[..., ::step] = True
    mask[..., shape[1] // 2 - 4 : shape[1] // 2 + 4] = True
    return mask


def spectrum() -> torch.Tensor:
    """Variances that fall with the distance from the centre of k-space, as those of images do."""
    y, x = (torch.arange(n) - n // 2 for n in SHAPE)
    return 40 / (1 + y[:, None] ** 2 + x**2).float()


@pytest.fixture(scope="module")
def scan():
    """Two slices of one law, the second 30 times as bright, with noise in proportion."""
    generator = seeded(1)
    images = ifft2c((2 * spectrum()).sqrt() * complex_noise((2, *SHAPE), generator))
    maps = simulate_coil_maps(4, SHAPE, generator=generator)
    y = CartesianSense(lines(2), maps)(images)
    y = (y + 0.1 * complex_noise(tuple(y.shape), generator)) * lines(2)
    y[1] *= 30
    return {"kspace": y, "mask": lines(2), "coil_maps": maps}


@pytest.mark.parametrize(("right", "chosen"), [(True, 1.0), (False, 0.3)])
def test_a_right_prior_is_trusted_and_a_wrong_one_less(scan, right, chosen):
    """The exact MAP estimate of a Gaussian prior at each level of the noise."""
    variance = spectrum() if right else 1e-2 * spectrum()
    prior = GaussianDenoiser(torch.zeros(SHAPE, dtype=torch.complex64), variance)
    solver = PnPADMM(cg_iterations=30).with_noise(0.1)
    measurement = Measurement.from_arrays(scan["kspace"][:1], scan["mask"], scan["coil_maps"])

    def reconstruct(kept):
        each = kept[[0] * len(FACTORS)]
        weighted = solver.reweighted(torch.tensor(FACTORS))
        return weighted(prior, each.operator, each.y, timesteps=[300, 200, 150, 100, 50, 20, 10])

    errors = prediction_errors(measurement, held_back(present(measurement.mask)), reconstruct)
    assert errors.shape == (1, len(FACTORS))
    assert FACTORS[int(best_candidate(errors))] == chosen


def test_another_factor_than_1_has_to_predict_clearly_better():
    errors = torch.tensor([[1.0, 0.95, 0.96], [1.0, 0.92, 0.91], [1.0, 0.5, 0.6]])
    assert best_candidate(errors).tolist() == [0, 2, 1]


def test_every_fifth_outer_line_is_held_back():
    mask = lines(2)
    held = held_back(mask)[0, 0]
    columns = held.any(dim=0)
    assert torch.equal(held, columns.expand(SHAPE))
    outer = [c for c in range(0, 48, 2) if not 20 <= c <= 28]
    # Line 28 belongs to the calibration region, beside its eight lines.
    assert columns.nonzero()[:, 0].tolist() == outer[2::5]
    turned = held_back(mask.transpose(2, 3).contiguous())
    assert torch.equal(turned[0, 0], held.T)
    filled = mask.clone()
    filled[:, :, :6] = False  # rows that are zero filled
    assert torch.equal(held_back(filled)[0, 0], held & filled[0, 0])


def test_points_are_held_back_where_the_mask_is_no_set_of_lines():
    mask = torch.rand((2, 1, 64, 64), generator=seeded(0)) < 0.4
    mask[:, :, 28:36, 28:36] = True
    held = held_back(mask)
    assert not (held & ~mask).any()
    assert not held[:, :, 28:36, 28:36].any()
    share = held.sum() / mask.sum()
    assert 0.18 < float(share) < 0.2
    assert torch.equal(held_back(mask[1:]), held[1:])


@pytest.mark.parametrize("mask", [lines(1), lines(16), lines(2) & False], ids=["all", "few", "no"])
def test_nothing_is_held_back_where_too_little_would_be(mask):
    assert not held_back(mask).any()


@pytest.fixture
def round_object():
    """A smooth image, its coil maps and the mask of all samples."""
    image = torch.zeros(1, 128, 130, dtype=torch.complex64)
    y, x = (torch.arange(n) - n // 2 for n in (128, 130))
    image[0] = torch.exp(-(y[:, None] ** 2) / 512 - (x - 6) ** 2 / 512)
    mask = torch.ones(1, 1, 128, 130, dtype=torch.bool)
    return image, simulate_coil_maps(3, (128, 130), generator=seeded(0)), mask


def test_the_middle_of_k_space_is_the_same_image_in_larger_pixels(round_object):
    image, maps, mask = round_object
    full = Measurement.from_arrays(CartesianSense(mask, maps)(image), mask, maps)
    half, gain = part_of(full, None)
    assert half.image_shape == (64, 65)
    assert gain == 2
    predicted = half.operator(gain * image[:, ::2, 1::2])
    assert float((predicted - half.y).norm() / half.y.norm()) < 0.02


@pytest.mark.parametrize("axis", [0, 1])
def test_a_band_of_complete_lines_is_a_measurement_of_its_own(round_object, axis):
    image, maps, mask = round_object
    mask = torch.rand((1, 1, *((1, 130), (128, 1))[axis]), generator=seeded(1)) < 0.4
    mask = mask.expand(1, 1, 128, 130).contiguous()
    full = Measurement.from_arrays(CartesianSense(mask, maps)(image), mask, maps)
    band, gain = part_of(full, axis)
    assert gain == 1
    middle = image.narrow(axis + 1, image.shape[axis + 1] // 2 - 24, 48)
    assert band.image_shape == tuple(middle.shape[1:])
    torch.testing.assert_close(band.operator(middle), band.y, atol=1e-5, rtol=1e-4)


def test_auto_weighs_the_estimated_noise_and_logs_it(pipe, scan, caplog):
    caplog.set_level(logging.INFO, logger=LOGGER)
    chosen = pipe(**scan, noise_std="auto", **QUICK).images
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.count("noise ×") == 2 * len(scan["kspace"])
    factors = [float(part.split("noise × ")[1].split()[0]) for part in message.split("; ")]
    assert set(factors) <= set(FACTORS)
    level = estimate_noise_std(scan["kspace"], scan["mask"]) * torch.tensor(factors)
    by_hand = pipe(**scan, noise_std=level, **QUICK).images
    torch.testing.assert_close(chosen, by_hand, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("solver", ["pnp_admm", "diffpir", "dds"])
def test_a_slice_is_weighed_alone_whatever_the_batch_and_the_seed(pipe, scan, caplog, solver):
    caplog.set_level(logging.INFO, logger=LOGGER)
    settings = {"solver": solver, "noise_std": "auto", **QUICK}
    together = pipe(**scan, generator=[seeded(5), seeded(6)], batch_size=1, **settings).images
    first = caplog.messages[-1]
    for index in range(2):
        one = {**scan, "kspace": scan["kspace"][index : index + 1]}
        alone = pipe(**one, generator=seeded(5 + index), **settings).images
        assert caplog.messages[-1].split(": ")[1] in first
        scale = float(alone.abs().max())
        torch.testing.assert_close(alone[0], together[index], rtol=1e-3, atol=1e-3 * scale)


def test_what_is_given_is_not_overruled(pipe, scan, caplog):
    caplog.set_level(logging.INFO, logger=LOGGER)
    for call in (
        {"noise_std": 0.1},
        {"solver": PnPADMM(noise_std=0.01)},
        {"solver": DDS(data_weight=5.0)},
    ):
        pipe(**scan, **call, **QUICK)
    assert "weight of the prior" not in caplog.text
    with pytest.raises(InputError, match="DDS takes no noise level"):
        pipe(**scan, solver=DDS(data_weight=5.0), noise_std="auto", **QUICK)


def test_where_nothing_can_be_held_back_the_noise_decides(pipe, scan, caplog):
    caplog.set_level(logging.INFO, logger=LOGGER)
    full = {**scan, "mask": lines(1)}
    full["kspace"] = full["kspace"] + 0.1 * complex_noise((2, 4, *SHAPE), seeded(3))
    found = pipe(**full, noise_std="auto", **QUICK).images
    assert "too few samples" in caplog.text
    level = estimate_noise_std(full["kspace"], full["mask"])
    torch.testing.assert_close(found, pipe(**full, noise_std=level, **QUICK).images)


def test_dds_weighs_the_data_of_each_image():
    weighted = DDS(cg_iterations=7).reweighted(torch.tensor([1.0, 0.5]))
    assert tensor(weighted.data_weight).tolist() == [5.0, 20.0]
    assert weighted.cg_iterations == 7
    assert not weighted.weight_is_unset
    assert DDS().weight_is_unset
    assert not DDS(data_weight=5.0).weight_is_unset
    prior = GaussianDenoiser(torch.zeros(6, 5, dtype=torch.complex64), torch.ones(6, 5))
    operator = CartesianSense(torch.ones(1, 1, 6, 5, dtype=torch.bool))
    y = complex_noise((2, 1, 6, 5), seeded(0))
    call: dict[str, Any] = {"timesteps": [900, 500, 100]}
    both = weighted(prior, operator, y, generator=[seeded(1), seeded(2)], **call)
    for index, xi in enumerate((5.0, 20.0)):
        one = DDS(data_weight=xi, cg_iterations=7)
        alone = one(prior, operator, y[index : index + 1], generator=[seeded(1 + index)], **call)
        torch.testing.assert_close(alone[0], both[index])
    with pytest.raises(InputError, match="positive data_weight"):
        DDS(data_weight=torch.tensor([1.0, 0.0]))


def test_slices_of_one_and_of_two_sets_of_maps(pipe, caplog):
    caplog.set_level(logging.INFO, logger=LOGGER)
    shape = (64, 48)  # a band of 48 rows
    first, other = (simulate_coil_maps(4, shape, generator=seeded(seed)) for seed in (0, 1))
    other = other - first * (first.conj() * other).sum(dim=1, keepdim=True)
    other = other / other.abs().square().sum(dim=1, keepdim=True).sqrt()
    maps = torch.stack([first, other], dim=1).repeat(2, 1, 1, 1, 1)
    maps[0, 1] = 0
    mask = lines(2, shape)
    radius = torch.hypot(
        *torch.meshgrid(*(torch.arange(n) - n // 2.0 for n in shape), indexing="ij")
    )
    images = ifft2c(20 * complex_noise((2, 2, *shape), seeded(2)) / (1 + radius))
    y = sense_operator(mask, maps)(images.flatten(1, 2))
    y = (y + 0.05 * complex_noise(tuple(y.shape), seeded(3))) * mask
    together = pipe(y, mask, coil_maps=maps, noise_std="auto", **QUICK).images
    for index in range(2):
        one = {"coil_maps": maps[index : index + 1], "noise_std": "auto", **QUICK}
        alone = pipe(y[index : index + 1], mask, **one).images
        torch.testing.assert_close(alone[0], together[index], rtol=1e-3, atol=1e-2)
    messages = [one for one in caplog.messages if "weight of the prior by" in one]
    assert [message.count("error") for message in messages] == [2, 1, 1]
