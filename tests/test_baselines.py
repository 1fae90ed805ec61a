from __future__ import annotations

import doctest
import sys

import numpy as np
import pytest
import torch
from narrow import images_of, present

from ctxrecon.baselines import (
    BASELINES,
    cg_sense,
    l1_wavelet,
    linear,
    phase_constrained,
    sparse,
    total_variation,
    zero_filled,
)
from ctxrecon.baselines.wavelets import max_level, wavedec2
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks import gaussian1d
from ctxrecon.metrics import psnr
from ctxrecon.operators import CartesianSense, sense_operator
from ctxrecon.pipelines.baseline import BaselinePipeline

SHAPE = (48, 56)
ITERATIVE = ["cg_sense", "phase_constrained", "l1_wavelet", "total_variation"]


@pytest.fixture(scope="module")
def scan():
    """Two slices of overlapping ellipses seen by six coils, noise of 0.2 % of the maximum."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    body = (x**2 / 0.6 + y**2 / 0.7 < 1).float()
    left = ((x + 0.3) ** 2 + y**2 < 0.06).float()
    right = ((x - 0.25) ** 2 + (y - 0.2) ** 2 / 2 < 0.05).float()
    image = torch.stack([body + 0.5 * left, body - 0.6 * right]) * torch.exp(0.8j * x * y)
    maps = simulate_coil_maps(6, SHAPE, batch_size=2, generator=generator)
    mask = gaussian1d(SHAPE, 3, 0.15, batch_size=2, generator=generator)
    noise = torch.randn(2, 6, *SHAPE, dtype=torch.complex64, generator=generator)
    kspace = mask * (fft2c(maps * image[:, None]) + 0.002 * noise)
    return kspace, mask, maps, image


@pytest.fixture(scope="module")
def results(scan):
    """The images of each method with its defaults."""
    kspace, mask, maps, _ = scan
    return {name: method(sense_operator(mask, maps), kspace) for name, method in BASELINES.items()}


@pytest.mark.parametrize("method", ITERATIVE)
def test_each_beats_zero_filling(scan, results, method):
    image = scan[3]
    start = psnr(results["zero_filled"], image)
    result = results[method]
    assert result.shape == image.shape
    assert result.dtype == torch.complex64
    assert (psnr(result, image) > start + 1.5).all()
    # The phase is right too, not only the magnitude.
    assert (result - image).norm() < 0.15 * image.norm()


def test_sparsity_beats_cg_sense(scan, results):
    image = scan[3]
    linear = psnr(results["cg_sense"], image)
    assert (psnr(results["l1_wavelet"], image) > linear).all()
    assert (psnr(results["total_variation"], image) > linear).all()


@pytest.mark.parametrize("method", BASELINES)
def test_the_units_of_the_scan_do_not_matter(scan, method):
    kspace, mask, maps, _ = scan
    reconstruct = BASELINES[method]
    options = {} if method == "zero_filled" else {"num_iterations": 30}
    result = reconstruct(sense_operator(mask[:1], maps[:1]), kspace[:1], **options)
    scaled = reconstruct(sense_operator(mask[:1], maps[:1]), 1e-6 * kspace[:1], **options)
    torch.testing.assert_close(1e6 * scaled, result, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", BASELINES)
def test_a_batch_equals_its_slices(scan, method):
    kspace, mask, maps, _ = scan
    reconstruct = BASELINES[method]
    options = {} if method == "zero_filled" else {"num_iterations": 8}
    batch = reconstruct(sense_operator(mask, maps), kspace, **options)
    for i in range(2):
        one = slice(i, i + 1)
        single = reconstruct(sense_operator(mask[one], maps[one]), kspace[one], **options)
        torch.testing.assert_close(batch[one], single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", BASELINES)
def test_shared_maps_and_masks_apply_to_the_batch(scan, method):
    kspace, mask, maps, _ = scan
    reconstruct = BASELINES[method]
    options = {} if method == "zero_filled" else {"num_iterations": 5}
    shared = reconstruct(sense_operator(mask[:1], maps[:1]), kspace, **options)
    repeated = (mask[:1].expand(2, -1, -1, -1), maps[:1].expand(2, -1, -1, -1))
    torch.testing.assert_close(shared, reconstruct(sense_operator(*repeated), kspace, **options))


@pytest.mark.parametrize("method", BASELINES)
def test_a_fully_sampled_single_coil_is_given_back(scan, method):
    image = scan[3]
    mask = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    result = BASELINES[method](sense_operator(mask, None), fft2c(image[:, None]))
    assert (psnr(result, image) > 33).all()


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("acceleration", [1, 2])
def test_a_smooth_phase_makes_up_for_partial_fourier(scan, axis, acceleration):
    _, _, maps, image = scan
    sampled = torch.arange(SHAPE[axis]) >= 3 * SHAPE[axis] // 8
    center = (torch.arange(SHAPE[axis]) - SHAPE[axis] // 2).abs() < 6
    sampled &= center | (torch.arange(SHAPE[axis]) % acceleration == 0)
    mask = sampled.expand(SHAPE) if axis == -1 else sampled[:, None].expand(SHAPE)
    operator = sense_operator(mask[None, None], maps)
    y = operator(image)
    gain = psnr(phase_constrained(operator, y).abs(), image.abs())
    gain -= psnr(cg_sense(operator, y).abs(), image.abs())
    assert (gain > 2).all()
    free = phase_constrained(operator, y, phase_weight=0)
    torch.testing.assert_close(free, cg_sense(operator, y), rtol=1e-2, atol=2e-3)


def test_zero_filling_divides_by_the_coil_energy(scan):
    _, _, maps, image = scan
    mask = torch.ones(1, 1, *SHAPE, dtype=torch.bool)
    unnormalized = 3 * maps
    unnormalized[..., :5] = 0
    result = zero_filled(sense_operator(mask, unnormalized), fft2c(unnormalized * image[:, None]))
    torch.testing.assert_close(result[..., 5:], image[..., 5:], rtol=1e-4, atol=1e-4)
    assert not result[..., :5].any()


def test_unnormalized_maps_do_not_break_the_steps(scan, results):
    kspace, mask, maps, image = scan
    for reconstruct in (l1_wavelet, total_variation):
        result = 5 * reconstruct(sense_operator(mask, 5 * maps), kspace, num_iterations=40)
        assert (psnr(result, image) > psnr(results["zero_filled"], image)).all()


def test_cg_sense_solves_its_normal_equations(scan):
    kspace, mask, maps, _ = scan
    x = cg_sense(sense_operator(mask, maps), kspace, num_iterations=80, regularization=0.05)
    operator = CartesianSense(mask, maps)
    torch.testing.assert_close(
        operator.normal(x) + 0.05 * x, operator.adjoint(kspace), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("method", ["l1_wavelet", "total_variation"])
def test_iterations_lower_the_objective(scan, method):
    """Against the objective that the docstring states, with no part of the solver."""
    kspace, mask, maps, _ = scan
    y, m, s = kspace[:1], mask[:1], maps[:1]
    scale = torch.quantile(zero_filled(sense_operator(m, s), y).abs(), 0.99)
    operator, weight = CartesianSense(m, s), 2e-3

    def penalty(x: torch.Tensor) -> float:
        if method == "total_variation":
            return sum(float((x - x.roll(1, axis)).abs().sum()) for axis in (-2, -1))
        return sum(float(band.abs().sum()) for band in wavedec2(x, max_level(SHAPE)))

    def objective(image: torch.Tensor) -> float:
        x = image / scale
        return 0.5 * float((operator(x) - y / scale).norm() ** 2) + weight * penalty(x)

    few, many = (
        objective(
            BASELINES[method](sense_operator(m, s), y, num_iterations=n, regularization=weight)
        )
        for n in (5, 100)
    )
    assert many < few
    assert many < objective(cg_sense(sense_operator(m, s), y))


def test_every_wavelet_iteration_is_sigpys_but_for_the_shifts(scan, monkeypatch):
    app = pytest.importorskip("sigpy.mri.app")
    monkeypatch.setattr(sparse, "_MAX_SHIFT", 1)
    kspace, mask, maps, _ = (value[:1] for value in scan)
    operator = CartesianSense(mask, maps)
    scale = torch.quantile(zero_filled(operator, kspace).abs(), 0.99)
    theirs = app.L1WaveletRecon(
        (kspace / scale)[0].numpy(),
        maps[0].numpy(),
        2e-3,
        weights=mask[0].float().numpy(),
        wave_name="db2",
        alpha=1.0,
        max_iter=20,
        show_pbar=False,
    ).run()
    ours = l1_wavelet(operator, kspace, num_iterations=20) / scale
    torch.testing.assert_close(ours[0], torch.from_numpy(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "iterations", "tolerance"),
    [
        ({"sigma": 0.02, "tau": 1 / (0.02 * 9), "max_iter": 20}, 20, 1e-4),
        ({"solver": "ADMM", "rho": 0.1, "max_iter": 100, "max_cg_iter": 5}, 1000, 2e-3),
    ],
    ids=["each primal-dual iteration", "the minimum found by ADMM"],
)
def test_total_variation_is_sigpys(generator, options, iterations, tolerance):
    app = pytest.importorskip("sigpy.mri.app")
    shape = (16, 20)
    image = torch.zeros(1, *shape, dtype=torch.complex64)
    image[:, 3:11, 5:14] = 1
    image[:, 6:9, 8:16] += 0.5j
    maps = simulate_coil_maps(3, shape, generator=generator)
    mask = gaussian1d(shape, 2, 0.3, generator=generator)
    operator = CartesianSense(mask, maps)
    noise = torch.randn(image.shape, dtype=torch.complex64, generator=generator)
    y = operator(image + 0.05 * noise)
    scale = torch.quantile(zero_filled(operator, y).abs(), 0.99)
    theirs = app.TotalVariationRecon(
        (y / scale)[0].numpy(),
        maps[0].numpy(),
        0.01,
        weights=mask[0].float().numpy(),
        show_pbar=False,
        **options,
    ).run()
    ours = total_variation(operator, y, regularization=0.01, num_iterations=iterations) / scale
    torch.testing.assert_close(ours[0], torch.from_numpy(theirs), rtol=0, atol=tolerance)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize(("weight", "levels"), [(0.2, (0.9, 0.1)), (1.2, (0.5, 0.5))])
def test_total_variation_of_a_stripe_is_known(axis, weight, levels):
    """Half of a period is 1: its two edges move each level by λ / 2 until they meet."""
    image = torch.zeros(1, 8, 8, dtype=torch.complex64)
    image.transpose(axis, -1)[..., 2:6] = torch.exp(torch.tensor(0.7j))
    operator = CartesianSense(torch.ones(1, 1, 8, 8, dtype=torch.bool), None)
    result = total_variation(operator, operator(image), regularization=weight, num_iterations=1000)
    inside, outside = (level * torch.exp(torch.tensor(0.7j)) for level in levels)
    expected = torch.where(image.abs() > 0, inside, outside)
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-3)


def test_differences_have_their_adjoint(generator):
    x = torch.randn(2, 7, 5, dtype=torch.complex128, generator=generator)
    u = torch.randn(2, 2, 7, 5, dtype=torch.complex128, generator=generator)
    direct = torch.vdot(u.flatten(), sparse._differences(x).flatten())
    torch.testing.assert_close(
        torch.vdot(sparse._differences_adjoint(u).flatten(), x.flatten()), direct
    )


@pytest.mark.parametrize("method", ["l1_wavelet", "total_variation"])
def test_penalties_act_on_each_set_of_maps_separately(scan, method):
    kspace, mask, maps, _ = scan
    sets = torch.stack([maps, torch.zeros_like(maps)], dim=1)
    both = BASELINES[method](sense_operator(mask, sets), kspace, num_iterations=10)
    single = BASELINES[method](sense_operator(mask, maps), kspace, num_iterations=10)
    torch.testing.assert_close(both[:, : SHAPE[0]], single, rtol=1e-4, atol=1e-5)
    assert not both[:, SHAPE[0] :].any()


@pytest.mark.parametrize("method", BASELINES)
def test_no_baseline_needs_sigpy(scan, results, method, monkeypatch):
    for name in ("sigpy", "pywt", "numba"):
        monkeypatch.setitem(sys.modules, name, None)
    kspace, mask, maps, _ = scan
    result = BASELINES[method](sense_operator(mask, maps), kspace)
    torch.testing.assert_close(result, results[method])


@pytest.mark.parametrize("module", [linear, sparse])
def test_examples_run(module):
    tried = doctest.testmod(module)
    assert tried.attempted > 5
    assert tried.failed == 0


def test_more_regularization_is_smoother(scan):
    kspace, mask, maps, _ = scan
    for reconstruct in (l1_wavelet, total_variation):
        rough, smooth = (
            reconstruct(
                sense_operator(mask[:1], maps[:1]),
                kspace[:1],
                num_iterations=30,
                regularization=weight,
            )
            .diff(dim=-1)
            .abs()
            .sum()
            for weight in (1e-4, 5e-2)
        )
        assert smooth < rough


@pytest.mark.parametrize("method", ITERATIVE)
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"regularization": -1.0}, r"regularization .* -1\.0"),
        ({"regularization": float("nan")}, "regularization .* nan"),
        ({"num_iterations": 0}, "iteration.* 0"),
    ],
)
def test_senseless_options_are_refused(scan, method, options, sentence):
    with pytest.raises(InputError, match=sentence):
        BASELINES[method](sense_operator(*scan[1:3]), scan[0], **options)


@pytest.mark.parametrize("method", BASELINES)
def test_the_pipeline_gives_what_the_function_gives(scan, results, method, capfd):
    kspace, mask, maps, _ = scan
    given = [value.numpy() for value in (kspace, mask, maps)]
    output = BaselinePipeline(method)(given[0], given[1], prompt="a brain", coil_maps=given[2])
    torch.testing.assert_close(output.images, results[method])
    assert output.std is None
    assert output.prompts is None
    residual = present(output.residual)
    assert residual.shape == (2,)
    assert (residual < 1).all()
    assert torch.equal(present(output.coil_maps), maps)
    assert capfd.readouterr().err == "", "no progress bars"


def test_the_pipeline_works_through_batches_with_a_bar(scan, results, capfd):
    kspace, mask, maps, _ = scan
    pipe = BaselinePipeline("cg_sense")
    output = pipe(kspace, mask, coil_maps=maps, batch_size=1)
    torch.testing.assert_close(output.images, results["cg_sense"], rtol=1e-4, atol=1e-5)
    shown = capfd.readouterr().err
    assert "cg_sense" in shown
    assert "2/2" in shown
    with pytest.raises(InputError, match="batch_size"):
        pipe(kspace, mask, coil_maps=maps, batch_size=0)


def test_the_pipeline_needs_k_space_alone(scan):
    kspace = scan[0]
    output = BaselinePipeline("cg_sense")(kspace[0].numpy(), num_iterations=10, output_type="np")
    assert isinstance(output.images, np.ndarray)
    assert output.images.shape == (1, *SHAPE)
    assert output.images.dtype == np.complex64
    assert float(present(output.residual)) < 0.2


def test_the_pipeline_refuses_what_it_does_not_know(scan):
    kspace, mask, maps, _ = scan
    with pytest.raises(InputError, match=r"'grappa'.*zero_filled"):
        BaselinePipeline("grappa")
    with pytest.raises(InputError, match=r"zero_filled .*regularization"):
        BaselinePipeline("zero_filled")(kspace, mask, coil_maps=maps, regularization=0.1)
    with pytest.raises(InputError, match=r"output_type .*'png'"):
        BaselinePipeline("zero_filled")(kspace, mask, coil_maps=maps, output_type="png")
    with pytest.raises(TypeError, match="lambda_"):
        BaselinePipeline("cg_sense")(kspace, mask, coil_maps=maps, lambda_=0.1)  # type: ignore[call-overload]


def test_real_brain_scan(shared_data):
    """On a real 4-coil brain at ×4, compressed sensing gains 3 dB over zero-filling."""
    coil_images = torch.from_numpy(np.load(shared_data / "brain_t2_4ch" / "coil_images.npy"))
    reference = coil_images.abs().square().sum(dim=0).sqrt()[None]
    kspace = fft2c(coil_images.to(torch.complex64))
    mask = gaussian1d((256, 256), 4, 0.08, generator=torch.Generator().manual_seed(0))
    images = {
        name: images_of(BaselinePipeline(name)(kspace * mask[0], mask))
        for name in ("zero_filled", "l1_wavelet")
    }
    gain = psnr(images["l1_wavelet"], reference) - psnr(images["zero_filled"], reference)
    assert float(gain) > 3
