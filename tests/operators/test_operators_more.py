from __future__ import annotations

import builtins
import math

import pytest
import torch
from gaussian import GaussianDenoiser

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.masks.trajectories import radial_trajectory, spiral_trajectory
from ctxrecon.operators import (
    CartesianSense,
    Crop,
    Inpainting,
    MultiEcho,
    NonCartesianSense,
    SuperResolution,
    adjoint_error,
    valid_adjoint,
)
from ctxrecon.solvers import DDS

NY, NX = 12, 10
TIMESTEPS = [990, 700, 450, 200, 60, 5]


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def draw_mask(batch=1, seed=0):
    mask = torch.rand(batch, 1, NY, NX, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[..., NY // 2, NX // 2] = True
    return mask


def draw_maps(batch=1, coils=3, shape=(NY, NX), seed=1):
    maps = draw(batch, coils, *shape, seed=seed)
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


def cartesian_grid(ny, nx):
    """The trajectory of all samples of a Cartesian scan, in the order of the flattened k-space."""
    ky = 2 * math.pi * (torch.arange(ny, dtype=torch.float64) - ny // 2) / ny
    kx = 2 * math.pi * (torch.arange(nx, dtype=torch.float64) - nx // 2) / nx
    return torch.cartesian_prod(ky, kx)


def radial_weights(trajectory):
    weights = trajectory.norm(dim=1)
    return weights * NY * NX / weights.sum()


def radial(**settings):
    return NonCartesianSense(radial_trajectory(14, 20), draw_maps(**settings))


def weighted():
    trajectory = radial_trajectory(14, 20)
    return NonCartesianSense(trajectory, draw_maps(), radial_weights(trajectory))


OPERATORS = {
    "inpainting": lambda: Inpainting(draw_mask()),
    "inpainting-batch": lambda: Inpainting(draw_mask(batch=3)),
    "super-resolution": lambda: SuperResolution((1, NY, NX), 2),
    "super-resolution-batch": lambda: SuperResolution((2, 9, 15), 3),
    "radial": radial,
    "radial-batch": lambda: radial(batch=3),
    "radial-odd": lambda: NonCartesianSense(radial_trajectory(9, 15), draw_maps(shape=(9, 7))),
    "radial-weighted": weighted,
    "spiral": lambda: NonCartesianSense(spiral_trajectory(4, 60, 2.0), draw_maps()),
    "multi-echo": lambda: MultiEcho([CartesianSense(draw_mask(seed=e)) for e in range(4)]),
    "multi-echo-radial": lambda: MultiEcho([radial(batch=2), radial()]),
    "folded": lambda: MultiEcho([CartesianSense(draw_mask(seed=e)) for e in range(2)]).folded(3),
    "inpainting-crop": lambda: Inpainting(draw_mask()) @ Crop((1, 16, 16), (NY, NX)),
    "super-resolution-crop": lambda: SuperResolution((1, NY, NX), 2) @ Crop((1, 16, 16), (NY, NX)),
    "radial-crop": lambda: radial() @ Crop((1, 16, 16), (NY, NX)),
    "folded-crop": lambda: (
        MultiEcho([Inpainting(draw_mask(seed=e)) for e in range(2)]).folded()
        @ Crop((2, 16, 16), (NY, NX))
    ),
}


@pytest.fixture(params=OPERATORS)
def operator(request):
    return OPERATORS[request.param]()


def test_adjoint_normal_and_norm(operator):
    """For NUFFTs of a relative error of 1e-6, each; Toeplitz and two NUFFTs agree to 2e-6."""
    assert valid_adjoint(operator)
    assert adjoint_error(operator) < 2e-6
    x = draw(*operator.domain_shape)
    y = operator(x)
    assert y.shape == operator.range_shape
    assert y.dtype == torch.complex64
    expected = operator.adjoint(y)
    assert float((operator.normal(x) - expected).norm() / expected.norm()) < 2e-6
    energy = y.abs().square().flatten(1).sum(dim=1)
    torch.testing.assert_close(operator.squared_norm(x), energy, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["inpainting", "super-resolution", "radial-weighted", "spiral", "multi-echo", "radial-crop"],
)
def test_batched_is_one_by_one(name):
    operator = OPERATORS[name]()
    x = draw(3, *operator.domain_shape[1:])
    y, normal, norm = operator(x), operator.normal(x), operator.squared_norm(x)
    for i in range(3):
        one = slice(i, i + 1)
        torch.testing.assert_close(operator(x[one]), y[one], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(operator.normal(x[one]), normal[one], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(operator.squared_norm(x[one]), norm[one])


def test_nothing_can_be_changed(operator):
    with pytest.raises(AttributeError, match="immutable"):
        operator.mask = None


def test_changing_the_input_afterwards_changes_nothing():
    mask, trajectory, maps = draw_mask(), radial_trajectory(14, 20), draw_maps()
    weights = radial_weights(trajectory)
    operators = [Inpainting(mask), NonCartesianSense(trajectory, maps, weights)]
    x = draw(1, NY, NX)
    before = [operator(x) for operator in operators]
    mask.logical_not_()
    for tensor in (trajectory, maps, weights):
        tensor.zero_()
    for operator, y in zip(operators, before, strict=True):
        torch.testing.assert_close(operator(x), y)


def test_wrong_shapes_and_types_are_refused(operator):
    for shape, call in (
        (operator.domain_shape, operator.forward),
        (operator.domain_shape, operator.normal),
        (operator.domain_shape, operator.squared_norm),
        (operator.range_shape, operator.adjoint),
    ):
        with pytest.raises(InputError, match="shape"):
            call(draw(*shape[:-1], shape[-1] + 1))
        with pytest.raises(InputError, match="complex64"):
            call(torch.zeros(shape))


# Super-resolution


@pytest.mark.parametrize(("shape", "factor"), [((12, 20), 2), ((9, 15), 3), ((12, 10), 1)])
def test_a_low_frequency_image_survives_a_low_resolution_scan(shape, factor):
    """A plane wave inside the centre is the same wave on the larger voxels, ``factor`` times."""
    (ny, nx), (small_y, small_x) = shape, (shape[0] // factor, shape[1] // factor)

    def wave(y, x):
        """One period along y, −1 along x."""
        r_y, r_x = torch.arange(y) - y // 2, torch.arange(x) - x // 2
        return torch.exp(2j * math.pi * (r_y[:, None] / y - r_x / x))[None].to(torch.complex64)

    operator, x = SuperResolution((1, ny, nx), factor), wave(ny, nx)
    y = operator(x)
    torch.testing.assert_close(y, factor * wave(small_y, small_x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(operator.adjoint(y), x, rtol=1e-5, atol=1e-5)
    anything = draw(*operator.range_shape)
    torch.testing.assert_close(operator(operator.adjoint(anything)), anything, rtol=1e-5, atol=1e-5)


def test_super_resolution_measures_the_center_of_kspace():
    x = draw(1, NY, NX)
    y = SuperResolution((1, NY, NX), 2)(x)
    center = Crop((1, NY, NX), (NY // 2, NX // 2))
    torch.testing.assert_close(fft2c(y), center(fft2c(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "factor", "sentence"),
    [
        ((1, 12, 10), 0, "positive integer as factor"),
        ((1, 12, 10), 2.0, "positive integer as factor"),
        ((1, 12, 10), 4, "multiples of 4.*Crop"),
        ((12, 10), 2, r"\(batch, ny, nx\)"),
    ],
)
def test_factors_that_do_not_fit(shape, factor, sentence):
    with pytest.raises(InputError, match=sentence):
        SuperResolution(shape, factor)


# Non-Cartesian


@pytest.mark.parametrize("shape", [(12, 10), (9, 7)])
def test_a_full_cartesian_trajectory_is_cartesian_sense(shape):
    ny, nx = shape
    maps = draw_maps(batch=2, shape=shape)
    cartesian = CartesianSense(torch.ones(1, 1, ny, nx, dtype=torch.bool), maps)
    operator = NonCartesianSense(cartesian_grid(ny, nx), maps)
    x = draw(2, ny, nx)
    y = cartesian(x)
    torch.testing.assert_close(operator(x), y.flatten(-2), rtol=1e-5, atol=1e-5)
    for got, expected in (
        (operator.adjoint(y.flatten(-2)), cartesian.adjoint(y)),
        (operator.normal(x), cartesian.normal(x)),
    ):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_point_and_a_plane_wave_have_their_textbook_transforms():
    trajectory = radial_trajectory(7, 16)
    operator = NonCartesianSense(trajectory, torch.ones(1, 1, NY, NX, dtype=torch.complex64))
    point = torch.zeros(1, NY, NX, dtype=torch.complex64)
    row, column = 3, 8
    point[0, row, column] = 1
    shift = torch.tensor([row - NY // 2, column - NX // 2], dtype=torch.float64)
    phase = torch.exp(-1j * trajectory @ shift.to(torch.complex128)[:, None])[:, 0]
    expected = (phase / math.sqrt(NY * NX)).to(torch.complex64)
    torch.testing.assert_close(operator(point)[0, 0], expected, rtol=1e-5, atol=1e-6)

    # exp(i p·r) becomes Dirichlet kernels around p, those of even numbers of pixels.
    r_y, r_x = torch.arange(NY) - NY // 2, torch.arange(NX) - NX // 2
    p_y, p_x = 0.7, -1.1
    wave = torch.exp(1j * (p_y * r_y[:, None] + p_x * r_x))[None].to(torch.complex64)

    def dirichlet(n, k):  # Σ_r exp(−i k r) over r = −n/2 … n/2 − 1, summed as a geometric series
        return torch.exp(0.5j * k) * torch.sin(n * k / 2) / torch.sin(k / 2)

    kernel = dirichlet(NY, trajectory[:, 0] - p_y) * dirichlet(NX, trajectory[:, 1] - p_x)
    expected = (kernel / math.sqrt(NY * NX)).to(torch.complex64)
    torch.testing.assert_close(operator(wave)[0, 0], expected, rtol=1e-5, atol=1e-5)


def test_density_weights_are_square_roots_on_both_sides():
    trajectory, maps = radial_trajectory(14, 20), draw_maps()
    weights = radial_weights(trajectory)
    plain, operator = NonCartesianSense(trajectory, maps), weighted()
    x, samples = draw(1, NY, NX), draw(*plain.range_shape)
    compensated = operator.compensate(plain(x))
    torch.testing.assert_close(compensated, operator(x), rtol=1e-5, atol=1e-6)
    expected = plain.adjoint((weights * samples).to(torch.complex64))
    got = operator.adjoint(operator.compensate(samples))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain.compensate(samples), samples)
    # Normalised weights and maps: the diagonal of AᴴA is 1, as for a full Cartesian scan.
    point = torch.zeros(1, NY, NX, dtype=torch.complex64)
    point[0, 4, 4] = 1
    assert float(operator.squared_norm(point)) == pytest.approx(1, abs=1e-4)


def test_gradients_are_adjoints():
    maps = draw_maps().requires_grad_()
    operator = NonCartesianSense(radial_trajectory(14, 20), maps)
    x, weight = draw(2, NY, NX).requires_grad_(), draw(2, 3, 14 * 20, seed=3)
    gradient, of_maps = torch.autograd.grad((operator(x) * weight.conj()).sum().real, (x, maps))
    torch.testing.assert_close(gradient, operator.adjoint(weight), rtol=1e-5, atol=1e-5)
    assert float(of_maps.abs().sum()) > 0
    y, image = weight.clone().requires_grad_(), draw(2, NY, NX, seed=4)
    (gradient,) = torch.autograd.grad((operator.adjoint(y) * image.conj()).sum().real, y)
    torch.testing.assert_close(gradient, operator(image), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad((operator.normal(x) * image.conj()).sum().real, x)
    torch.testing.assert_close(gradient, operator.normal(image), rtol=1e-5, atol=1e-5)


def test_normal_needs_no_nufft(monkeypatch):
    operator, x = radial(), draw(1, NY, NX)
    first = operator.normal(x)
    monkeypatch.setattr("ctxrecon.operators.non_cartesian._finufft", None)
    torch.testing.assert_close(operator.normal(x), first)


def test_without_finufft_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments, **keywords):
        if name == "finufft":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match="pip install finufft"):
        radial()


TRAJECTORY = radial_trajectory(2, 5)
ONES = torch.ones(1, 1, NY, NX, dtype=torch.complex64)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((TRAJECTORY.numpy(), ONES), "real .*ndarray"),
        ((TRAJECTORY.to(torch.complex64), ONES), "real .*complex64"),
        ((TRAJECTORY.T, ONES), r"columns \(ky, kx\), got \(2, 10\)"),
        ((TRAJECTORY * 6, ONES), "2π / n"),
        ((TRAJECTORY * torch.nan, ONES), "-π to π.* nan"),
        ((TRAJECTORY, ONES.real), "complex64 .*float32"),
        ((TRAJECTORY, ONES[0]), r"coils, ny, nx\), got \(1, 12, 10\)"),
        ((TRAJECTORY, ONES * torch.nan), "NaN or infinite"),
        ((TRAJECTORY, ONES, [1.0] * 10), "real .*list"),
        ((TRAJECTORY, ONES, torch.ones(9)), r"of shape \(10,\)"),
        ((TRAJECTORY, ONES, -torch.ones(10)), "not negative"),
        ((TRAJECTORY, ONES, torch.zeros(10)), "not all zero"),
    ],
)
def test_what_non_cartesian_sense_refuses(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        NonCartesianSense(*arguments)


# Several echoes


def test_each_echo_has_its_own_measurement():
    echoes = [CartesianSense(draw_mask(seed=e), draw_maps(seed=e)) for e in range(3)]
    operator = MultiEcho(echoes)
    assert operator.domain_shape == (1, 3, NY, NX)
    assert operator.range_shape == (1, 3, 3, NY, NX)
    x = draw(2, 3, NY, NX)
    y, folded = operator(x), operator.folded(batch_size=2)
    for e, echo in enumerate(echoes):
        torch.testing.assert_close(y[:, e], echo(x[:, e]))
    assert folded.range_shape == (6, 3, NY, NX)
    torch.testing.assert_close(folded(x.flatten(0, 1)), y.flatten(0, 1))
    norms = torch.stack([echo.squared_norm(x[:, e]) for e, echo in enumerate(echoes)], dim=1)
    torch.testing.assert_close(folded.squared_norm(x.flatten(0, 1)), norms.flatten())
    torch.testing.assert_close(operator.squared_norm(x), norms.sum(dim=1))


@pytest.mark.parametrize(
    ("echoes", "sentence"),
    [
        (lambda: [], "one or more operators"),
        (lambda: [draw_mask()], "one or more operators"),
        (lambda: [radial(), Inpainting(draw_mask())], "all echoes"),
        (lambda: [radial(batch=2), radial(batch=3)], "one batch"),
    ],
)
def test_echoes_that_do_not_fit_together(echoes, sentence):
    with pytest.raises(InputError, match=sentence):
        MultiEcho(echoes())


def test_echoes_folded_into_a_batch_that_does_not_fit():
    with pytest.raises(InputError, match=r"batch_size .* 3 .* 2"):
        MultiEcho([radial(batch=3)]).folded(batch_size=2)
    with pytest.raises(InputError, match="a positive batch_size"):
        MultiEcho([radial()]).folded(batch_size=0)


# Solvers


@pytest.mark.parametrize(
    "name", ["inpainting", "super-resolution", "radial", "radial-weighted", "spiral", "folded"]
)
def test_dds_runs_unchanged_and_fits_the_data(name, generator):
    operator = OPERATORS[name]()
    prior = GaussianDenoiser(draw(NY, NX), 0.2 + torch.rand(NY, NX, generator=generator))
    batch = max(2, operator.domain_shape[0])
    mean = draw(NY, NX).expand(batch, NY, NX)
    y = operator(mean + 0.8 * draw(batch, NY, NX, seed=5))

    def seeded(item):
        return torch.Generator().manual_seed(item)

    image = DDS(data_weight=20.0)(
        prior, operator, y, timesteps=TIMESTEPS, generator=[seeded(i) for i in range(batch)]
    )
    before = (operator(mean) - y).flatten(1).norm(dim=1)
    after = (operator(image) - y).flatten(1).norm(dim=1)
    assert bool((after < 0.02 * before).all())
    if operator.domain_shape[0] == 1:
        alone = DDS(data_weight=20.0)(
            prior, operator, y[1:2], timesteps=TIMESTEPS, generator=seeded(1)
        )
        torch.testing.assert_close(alone[0], image[1], rtol=1e-4, atol=1e-4)
