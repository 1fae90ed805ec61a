"""Every operator goes through every pipeline by the same call."""

from __future__ import annotations

import logging

import pytest
import torch
from narrow import images_of, present

import ctxrecon
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks import radial_trajectory, uniform1d
from ctxrecon.measurement import Measurement
from ctxrecon.metrics import psnr
from ctxrecon.operators import (
    CartesianSense,
    Inpainting,
    MultiEcho,
    NonCartesianSense,
    SoftSense,
    SuperResolution,
)
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import BaselinePipeline, build_pipeline, load_reconstructor
from ctxrecon.scan import Scan

SHAPE = (32, 32)
BATCH = 2


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def image():
    scans = [
        phantom_scan(name, shape=SHAPE, num_coils=1, snr=None, generator=seeded(3))
        for name in ("brain", "knee")
    ]
    return torch.cat([present(scan.target) for scan in scans])


@pytest.fixture(scope="module")
def prior():
    pipe = build_pipeline(block_out_channels=(8, 8, 16), sample_size=32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def operator_named(name):
    maps = simulate_coil_maps(4, SHAPE, generator=seeded(1))
    mask = uniform1d(SHAPE, 2, 0.3, generator=seeded(2))
    if name == "cartesian":
        return CartesianSense(mask, maps)
    if name == "radial":
        pytest.importorskip("finufft")
        return NonCartesianSense(radial_trajectory(24, 64), maps)
    if name == "soft":
        other = maps.flip(1)
        other = other - maps * (maps.conj() * other).sum(dim=1, keepdim=True)
        return SoftSense(mask, torch.stack([maps, 0.3 * other], dim=1))
    if name == "inpainting":
        return Inpainting(torch.rand((1, 1, *SHAPE), generator=seeded(4)) > 0.3)
    if name == "super-resolution":
        return SuperResolution((1, *SHAPE), 2)
    masks = [uniform1d(SHAPE, 2, 0.3, generator=seeded(seed)) for seed in (5, 6)]
    return MultiEcho([CartesianSense(each, maps) for each in masks])


NAMES = ("cartesian", "radial", "soft", "inpainting", "super-resolution", "echoes")


def measured(name, image):
    """Operator, data and the images that are to be found."""
    operator = operator_named(name)
    if name == "echoes":
        x = torch.stack([image, 0.5 * image], dim=1)
        return operator, operator(x), x.flatten(0, 1)
    if name == "soft":
        return operator, operator(torch.cat([image, 0 * image], dim=1)), image
    return operator, operator(image), image


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("solver", ["dds", "pnp_admm", "diffpir"])
def test_the_prior_takes_it(name, solver, image, prior):
    operator, y, truth = measured(name, image)
    output = prior(y, operator=operator, solver=solver, num_inference_steps=4, generator=seeded())
    assert output.images.shape == truth.shape
    assert output.residual.shape == (len(truth),)
    assert bool((output.residual < 1).all())


@pytest.mark.parametrize("solver", ["dds", "pnp_admm"])
def test_the_weight_of_the_prior_is_chosen_on_a_grid_only(solver, image, prior, caplog):
    operator, y, truth = measured("radial", image)
    call = {"num_inference_steps": 4, "solver": solver, "noise_std": "auto"}
    with caplog.at_level(logging.INFO):
        output = prior(y, operator=operator, generator=seeded(), **call)
    assert output.images.shape == truth.shape
    assert "weight of the prior not chosen" in caplog.text


def test_radial_slices_without_signal(image):
    pytest.importorskip("finufft")
    trajectory = radial_trajectory(24, 64).view(1, 24, 64, 2)
    maps = simulate_coil_maps(4, SHAPE, generator=seeded(1))
    samples = NonCartesianSense(trajectory.flatten(0, 2), maps)(image[:1])
    kspace = torch.cat([torch.zeros_like(samples), samples]).unflatten(-1, (24, 64))
    whole = Scan(kspace, None, trajectory=trajectory, matrix=SHAPE)
    measurement = Measurement.from_scan(whole)
    assert measurement.empty.tolist() == [True, False]
    alone = Measurement.from_scan(whole[1])
    torch.testing.assert_close(present(measurement.coil_maps)[1:], present(alone.coil_maps))
    assert Measurement.from_scan(whole[0]).empty.tolist() == [True]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", ["cg_sense", "l1_wavelet", "total_variation"])
def test_baselines_take_it(name, method, image):
    operator, y, truth = measured(name, image)
    output = BaselinePipeline(method)(y, operator=operator)
    assert images_of(output).shape == truth.shape
    least = 5 if (name, method) == ("inpainting", "cg_sense") else 20  # it fills no holes
    assert bool((psnr(images_of(output).abs(), truth.abs()) > least).all())
    measurement = Measurement.from_operator(operator, y.numpy())
    again = BaselinePipeline(method)(measurement)
    torch.testing.assert_close(again.images, output.images)


def test_networks_take_what_is_on_a_grid(image):
    operator, y, truth = measured("cartesian", image)
    pipe = load_reconstructor()
    pipe.set_progress_bar_config(disable=True)
    given = images_of(pipe(y, operator=operator))
    torch.testing.assert_close(
        given, images_of(pipe(y, operator.mask, coil_maps=operator.coil_maps))
    )
    assert given.shape == truth.shape


def test_a_cartesian_operator_is_what_its_mask_and_maps_are(image, prior):
    operator, y, _ = measured("cartesian", image)
    calls = {"num_inference_steps": 3, "solver": "dds"}
    by_operator = prior(y, operator=operator, generator=seeded(), **calls)
    by_arrays = prior(y, operator.mask, coil_maps=operator.coil_maps, generator=seeded(), **calls)
    torch.testing.assert_close(by_operator.images, by_arrays.images)


def test_slices_of_a_measurement_are_those_measured_alone(image):
    operator, y, _ = measured("cartesian", image)
    both = ctxrecon.Measurement.from_operator(operator, y)
    for number in range(BATCH):
        one = both[number]
        assert torch.equal(one.y, y[number : number + 1])
        assert one.operator.domain_shape == (1, *SHAPE)
    repeated = both[torch.tensor([1, 1, 0])]
    assert torch.equal(repeated.y, y[[1, 1, 0]])
    assert repeated.to("cpu") is repeated
    assert repeated.to("meta").operator.device == torch.device("meta")


def test_each_slice_keeps_its_own_mask_and_maps(image):
    masks = torch.cat([uniform1d(SHAPE, 2, 0.3, generator=seeded(seed)) for seed in (7, 8)])
    maps = torch.cat([simulate_coil_maps(4, SHAPE, generator=seeded(seed)) for seed in (7, 8)])
    operator = CartesianSense(masks, maps)
    y = operator(image)
    operator.normal(image)  # fills what is computed once
    swapped = operator[torch.tensor([1, 0])]
    alone = CartesianSense(masks.flip(0), maps.flip(0))
    torch.testing.assert_close(swapped(image.flip(0)), y.flip(0))
    torch.testing.assert_close(swapped.normal(image), alone.normal(image))
    trajectory = NonCartesianSense(radial_trajectory(8, 32), maps)
    second = trajectory[torch.tensor([1])]
    torch.testing.assert_close(second(image[1:]), trajectory(image)[1:])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y, a: {"kspace": y, "operator": "radial"}, "LinearOperator"),
        (lambda y, a: {"kspace": y[..., :-1], "operator": a}, "range"),
        (lambda y, a: {"kspace": y.abs(), "operator": a}, "phase"),
        (lambda y, a: {"kspace": y * float("nan"), "operator": a}, "NaN"),
        (lambda y, a: {"kspace": y, "operator": a, "mask": torch.ones(32)}, "leave them out"),
        (
            lambda y, a: {"kspace": Measurement.from_operator(a, y), "operator": a},
            "contains its operator",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message, image, prior):
    operator, y, _ = measured("cartesian", image)
    for call in (prior, BaselinePipeline("cg_sense"), load_reconstructor()):
        with pytest.raises(InputError, match=message):
            call(**change(y, operator))


def test_echoes_are_batched_like_slices(image, prior):
    operator, y, _ = measured("echoes", image)
    calls = {"operator": operator, "solver": "dds", "num_inference_steps": 2}
    together = prior(y, generator=seeded(), **calls)
    one_by_one = prior(y, generator=seeded(), batch_size=1, **calls)
    torch.testing.assert_close(one_by_one.images, together.images, rtol=1e-4, atol=1e-4)
    samples = prior(y, generator=seeded(), num_samples=2, **calls).samples
    assert samples.shape == (2 * BATCH, 2, *SHAPE)
    folded = operator.folded(BATCH)
    x = torch.cat([image, 2 * image])
    chosen = torch.tensor([3, 0])
    torch.testing.assert_close(folded[chosen](x[chosen]), folded(x)[chosen])
    torch.testing.assert_close(folded[chosen].normal(x[chosen]), folded.normal(x)[chosen])


def test_full_kspace_of_one_coil_is_an_identity(image):
    ones = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    output = BaselinePipeline("cg_sense")(
        fft2c(image[:, None]), operator=CartesianSense(ones), regularization=0.0
    )
    torch.testing.assert_close(output.images, image, rtol=1e-4, atol=1e-5)
