"""Noise of a measurement: estimation, use in solvers, comparison with the residual."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import torch
from gaussian import complex_noise, random_prior, random_sense, seeded
from narrow import tensor

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.coils.noise import estimate_noise_std
from ctxrecon.errors import InputError
from ctxrecon.inference.noise import noise_ratio
from ctxrecon.operators import CartesianSense
from ctxrecon.pipelines import prepare_measurement
from ctxrecon.solvers import DAPS, DDNM, DiffPIR, PiGDM, PnPADMM, PnPHQS

SHAPE = (64, 56)


def object_and_maps(coils: int) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.zeros(1, *SHAPE, dtype=torch.complex64)
    image[:, 12:50, 10:44] = 1.0
    image[:, 20:30, 20:30] = torch.tensor(0.5j)
    return image, simulate_coil_maps(coils, SHAPE, generator=seeded(2))


def lines(step: int) -> torch.Tensor:
    mask = torch.zeros(1, 1, *SHAPE, dtype=torch.bool)
    mask[..., ::step] = True
    mask[..., 24:32] = True
    return mask


@pytest.mark.parametrize("coils", [4, 8, 15])
@pytest.mark.parametrize("step", [1, 4])
def test_the_noise_of_a_scan_is_found(coils, step):
    image, maps = object_and_maps(coils)
    mask = lines(step)
    for true in (0.02, 0.2):
        y = CartesianSense(mask, maps)(image)
        y = (y + true * complex_noise(tuple(y.shape), seeded(coils))) * mask
        found = float(estimate_noise_std(y, mask)[0])
        assert 0.95 * true < found < 1.25 * true
        assert float(estimate_noise_std(9 * y, mask)[0]) == pytest.approx(9 * found, rel=1e-4)


def test_pure_noise_and_zero_filled_samples():
    noise = 0.3 * complex_noise((2, 1, *SHAPE), seeded(0))
    noise[1] *= 2
    everywhere = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    found = estimate_noise_std(noise, everywhere)
    torch.testing.assert_close(found, torch.tensor([0.3, 0.6]), rtol=0.1, atol=0)
    padded = torch.zeros(1, 1, 128, 112, dtype=torch.complex64)
    padded[..., 32:96, 28:84] = noise[:1]
    wide = torch.ones(1, 1, 128, 112, dtype=torch.bool)
    torch.testing.assert_close(estimate_noise_std(padded, wide), found[:1])


def test_too_few_samples_to_tell():
    few = torch.ones(1, 4, 8, 8, dtype=torch.complex64)
    with pytest.raises(InputError, match=r"64.* 16"):
        estimate_noise_std(few, torch.ones(1, 1, 8, 8, dtype=torch.bool))


@pytest.mark.parametrize(
    "make",
    [DiffPIR, PiGDM, PnPHQS, PnPADMM, DDNM, DAPS, partial(DAPS, langevin_steps=3)],
    ids=repr,
)
def test_a_noise_level_of_each_image(make):
    """A batch with different noise levels equals its images reconstructed alone."""
    source = seeded(5)
    prior, operator = random_prior((6, 5), source), random_sense((6, 5), source)
    y = operator(complex_noise((3, 6, 5), source))
    levels = torch.tensor([0.03, 0.3, 0.8])
    call = {"timesteps": [900, 500, 200, 40]}
    together = make(noise_std=levels)(
        prior, operator, y, generator=[seeded(s) for s in range(3)], **call
    )
    for index, level in enumerate(levels.tolist()):
        alone = make(noise_std=level)(
            prior, operator, y[index : index + 1], generator=[seeded(index)], **call
        )
        torch.testing.assert_close(alone[0], together[index], atol=1e-3, rtol=1e-3)


def test_a_bad_level_of_one_image():
    with pytest.raises(InputError, match=r"positive noise_std, got 0\.0"):
        PnPADMM(noise_std=torch.tensor([0.1, 0.0]))
    assert tensor(DiffPIR(noise_std=torch.tensor([0.1, 0.0])).noise_std).shape == (2,)


@pytest.fixture(scope="module")
def scan():
    image, maps = object_and_maps(6)
    images = torch.cat([50 * image, 3 * image])
    mask = lines(2)
    y = CartesianSense(mask, maps)(images)
    y[0] += 1.0 * complex_noise(tuple(y[0].shape), seeded(0))
    y[1] += 0.3 * complex_noise(tuple(y[1].shape), seeded(1))
    return {"kspace": y * mask, "mask": mask, "coil_maps": maps}


def test_the_scans_noise_in_its_own_units_reaches_the_solver(pipe, scan):
    settings = {"num_inference_steps": 3, "solver": "pnp_hqs", "generator": seeded(0)}
    told = pipe(**scan, noise_std=[1.0, 0.3], **settings).images
    for index, (level, factor) in enumerate([(1.0, 1.0), (0.3, 1e4)]):
        one = {name: value for name, value in scan.items()}
        one["kspace"] = factor * scan["kspace"][index : index + 1]
        alone = pipe(**one, noise_std=factor * level, **settings).images / factor
        torch.testing.assert_close(alone[0], told[index], rtol=1e-3, atol=1e-3 * float(level))
    assert not torch.allclose(told, pipe(**scan, noise_std=5.0, **settings).images)
    found = estimate_noise_std(scan["kspace"], scan["mask"])
    by_hand = pipe(**scan, noise_std=found, **settings).images
    torch.testing.assert_close(pipe(**scan, noise_std="auto", **settings).images, by_hand)


def test_the_residual_is_held_against_the_noise(pipe, scan, caplog):
    settings = {"num_inference_steps": 3, "solver": "pnp_hqs"}
    caplog.set_level(logging.WARNING, logger="ctxrecon.inference.noise")
    output = pipe(**scan, noise_std=[1.0, 0.3], **settings)
    assert not caplog.records
    measurement = prepare_measurement(**scan)
    ratio = noise_ratio(measurement, output.residual, torch.tensor([1.0, 0.3]))
    m = int(scan["mask"].sum()) * 6
    expected = (1 - SHAPE[0] * SHAPE[1] / m) ** 0.5  # noise that no image of n pixels can fit
    assert (ratio > 0.9 * expected).all()
    assert (ratio < 1.1).all()
    pipe(**scan, noise_std=[0.1, 3.0], **settings)
    first, second = [record.getMessage() for record in caplog.records]
    assert "slice 0" in first
    assert "does not explain the data" in first
    assert "slice 1" in second
    assert "follows the noise" in second


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"solver": "dds", "noise_std": 0.1}, "DDS.*noise"),
        ({"noise_std": "guess"}, "guess"),
        ({"noise_std": [0.1, 0.2, 0.3]}, "2 slices"),
        ({"noise_std": [0.1, -0.2]}, "one positive number"),
        ({"noise_std": float("nan")}, "one positive number"),
    ],
)
def test_noise_that_makes_no_sense(pipe, scan, change, sentence):
    with pytest.raises(InputError, match=sentence):
        pipe(**scan, **({"solver": "pnp_admm"} | change))


@pytest.mark.parametrize("unit", [1e-18, 1e20])
def test_noise_of_any_units_and_of_dependent_coils(unit):
    image, maps = object_and_maps(8)
    y = CartesianSense(lines(1), maps)(image) + 0.1 * complex_noise((1, 8, *SHAPE), seeded(3))
    found = float(estimate_noise_std(unit * y, lines(1))[0])
    assert 0.95 * unit < found / 0.1 < 1.25 * unit
    repeated = torch.cat([y, y], dim=1)
    assert 0.09 < float(estimate_noise_std(repeated, lines(1))[0]) < 0.15


@pytest.mark.parametrize("coils", [1, 2])
def test_noise_of_few_coils_without_the_edges_of_the_image(coils):
    image, maps = object_and_maps(coils)
    y = CartesianSense(lines(3), maps)(image)
    assert float(estimate_noise_std(y, lines(3))[0]) < 0.01  # air
    noisy = y + 0.1 * complex_noise(tuple(y.shape), seeded(3)) * lines(3)
    assert float(estimate_noise_std(noisy, lines(3))[0]) == pytest.approx(0.1, rel=0.25)
    scattered = lines(3) & (torch.rand((1, 1, *SHAPE), generator=seeded(4)) < 0.8)
    assert 0 <= float(estimate_noise_std(noisy * scattered, scattered)[0]) < 0.14


def test_by_default_noise_is_what_the_scan_shows_unless_the_solver_has_its_own(pipe, scan, caplog):
    scan = dict(scan)
    caplog.set_level(logging.INFO, logger="ctxrecon.inference.noise")
    settings = {"num_inference_steps": 3, "generator": seeded(0)}
    scan["kspace"] = scan["kspace"] + 10 * complex_noise(scan["kspace"].shape, seeded(9))
    scan["kspace"] = scan["kspace"][:1] * scan["mask"]
    found = pipe(**scan, **settings).images
    assert "estimated from the scan" in caplog.text
    torch.testing.assert_close(pipe(**scan, solver=PnPADMM(), **settings).images, found)
    auto = pipe(**scan, noise_std="auto", **settings).images
    own = pipe(**scan, solver=PnPADMM(noise_std=0.01), **settings).images
    assert (found - auto).norm() < 0.1 * (found - own).norm()


def test_the_solvers_default_is_the_least_and_serves_where_nothing_shows_noise(pipe, caplog):
    caplog.set_level(logging.INFO, logger="ctxrecon.inference.noise")
    image, maps = object_and_maps(6)
    mask = lines(2)
    clean = {"kspace": CartesianSense(mask, maps)(image), "mask": mask, "coil_maps": maps}
    default = PnPADMM(noise_std=PnPADMM.default_noise_std)
    few = {"kspace": clean["kspace"][..., 24:40, 20:36], "mask": mask[..., 24:40, 20:36]}
    few["coil_maps"] = maps[..., 24:40, 20:36]
    for measured, said in ((clean, "default, the minimum"), (few, "too few samples")):
        caplog.clear()
        by_itself = pipe(**measured, num_inference_steps=3).images
        assert said in caplog.text
        expected = pipe(**measured, num_inference_steps=3, solver=default).images
        torch.testing.assert_close(by_itself, expected)


def test_ddnm_is_told_of_noise_only_when_it_is_given(pipe, scan):
    settings = {"num_inference_steps": 3, "generator": seeded(0)}
    free = pipe(**scan, solver="ddnm", **settings).images
    settings["generator"] = seeded(0)
    assert torch.equal(pipe(**scan, solver=DDNM(noise_std=0.0), **settings).images, free)
    settings["generator"] = seeded(0)
    assert not torch.allclose(pipe(**scan, solver="ddnm", noise_std=1.0, **settings).images, free)
