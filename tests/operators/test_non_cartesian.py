"""Non-uniform Fourier transforms: textbook values, gradients, refusals."""

from __future__ import annotations

import logging
import math
from types import ModuleType, SimpleNamespace

import pytest
import torch
from small_operators import (
    NX,
    NY,
    draw,
    draw_maps,
    radial,
    radial_weights,
    weighted,
)

from ctxrecon.errors import InputError
from ctxrecon.masks.trajectories import radial_trajectory
from ctxrecon.operators import (
    CartesianSense,
    NonCartesianSense,
    density_compensation,
    non_cartesian,
)
from ctxrecon.operators.density import coverage


def cartesian_grid(ny, nx):
    """The trajectory of all samples of a Cartesian scan, in the order of the flattened k-space."""
    ky = 2 * math.pi * (torch.arange(ny, dtype=torch.float64) - ny // 2) / ny
    kx = 2 * math.pi * (torch.arange(nx, dtype=torch.float64) - nx // 2) / nx
    return torch.cartesian_prod(ky, kx)


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
    monkeypatch.setattr("ctxrecon.operators.non_cartesian._nufft", None)
    torch.testing.assert_close(operator.normal(x), first)


def only(monkeypatch, **modules):
    """Packages that can be imported by name, besides which there are none."""

    def found(name):
        if name not in modules:
            raise ImportError(name)
        return modules[name]

    monkeypatch.setattr(non_cartesian, "importlib", SimpleNamespace(import_module=found))


def test_without_finufft_it_says_what_to_install(monkeypatch):
    only(monkeypatch)
    with pytest.raises(InputError, match="pip install finufft"):
        radial()


def test_cuda_tensors_take_cufinufft_or_go_through_the_cpu(monkeypatch, caplog):
    cufinufft, finufft = ModuleType("cufinufft"), ModuleType("finufft")
    only(monkeypatch, cufinufft=cufinufft, finufft=finufft)
    assert non_cartesian._nufft(torch.device("cuda")) is cufinufft
    assert non_cartesian._nufft(torch.device("cpu")) is finufft
    only(monkeypatch, finufft=finufft)
    caplog.set_level(logging.INFO)
    non_cartesian._say_through_cpu.cache_clear()
    for _ in range(2):
        assert non_cartesian._nufft(torch.device("cuda")) is finufft
    assert caplog.text.count("pip install cufinufft") == 1


def test_cufinufft_is_called_with_tensors_and_the_stream_of_torch(monkeypatch):
    """A stand-in with the signatures of cufinufft 2.5, which computes by finufft."""
    finufft = pytest.importorskip("finufft")
    operator, x = radial(batch=2), draw(2, NY, NX)
    y, image = operator(x), operator.adjoint(draw(*operator.range_shape))
    seen = []

    def stand_in(transform):
        def call(ky, kx, data, n_modes=None, out=None, eps=1e-6, isign=1, **kwargs):
            seen.append(kwargs)
            assert all(isinstance(each, torch.Tensor) for each in (ky, kx, data))
            assert (ky.dtype, data.dtype) == (torch.float64, torch.complex128)
            sizes = {} if n_modes is None else {"n_modes": n_modes}
            arrays = (each.numpy() for each in (ky, kx, data))
            return torch.from_numpy(transform(*arrays, eps=eps, isign=isign, **sizes))

        return call

    fake = ModuleType("cufinufft")
    for name in ("nufft2d1", "nufft2d2"):
        setattr(fake, name, stand_in(getattr(finufft, name)))
    monkeypatch.setattr(non_cartesian, "_nufft", lambda device: fake)
    stream = SimpleNamespace(device_index=1, cuda_stream=77)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    torch.testing.assert_close(operator(x), y)
    torch.testing.assert_close(operator.adjoint(draw(*operator.range_shape)), image)
    assert seen == 2 * [{"gpu_device_id": 1, "gpu_stream": 77}]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_it_is_what_it_is_on_the_cpu():
    operator, x = radial(batch=2), draw(2, NY, NX)
    y = operator(x)
    there = operator.to("cuda")
    for on_cpu, on_cuda in (
        (y, there(x.cuda())),
        (operator.adjoint(y), there.adjoint(y.cuda())),
        (operator.normal(x), there.normal(x.cuda())),
    ):
        assert on_cuda.is_cuda
        torch.testing.assert_close(on_cuda.cpu(), on_cpu, rtol=1e-5, atol=1e-5)


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
        ((TRAJECTORY, ONES, -torch.ones(10)), "none negative"),
        ((TRAJECTORY, ONES, torch.zeros(10)), "not all zero"),
    ],
)
def test_what_non_cartesian_sense_refuses(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        NonCartesianSense(*arguments)


# Density


def test_density_weights_are_areas_of_at_most_a_cell():
    grid = cartesian_grid(NY, NX)
    ones = torch.ones(NY * NX)
    torch.testing.assert_close(density_compensation(grid, (NY, NX)), ones, rtol=0, atol=1e-3)
    # Twice the samples stand for half the area each; a sample that is alone stands for its cell.
    doubled = density_compensation(torch.cat([grid, grid]), (NY, NX))
    torch.testing.assert_close(doubled, ones.repeat(2) / 2, rtol=0, atol=1e-3)
    alone = density_compensation(torch.tensor([[0.3, 1.1]], dtype=torch.float64), (NY, NX))
    assert float(alone) == pytest.approx(1, abs=1e-4)


def test_density_of_spokes_is_their_distance():
    trajectory = radial_trajectory(40, 64, golden_angle=False)
    weights = density_compensation(trajectory, (32, 32))
    cells = trajectory.norm(dim=1) * 32 / (2 * math.pi)
    expected = 0.5 * math.pi * cells / 40  # half a cell along the spoke, the arc across
    middle = (cells > 4) & (cells < 8)
    torch.testing.assert_close(weights[middle].double(), expected[middle], rtol=0.15, atol=0)
    assert float(weights.min()) > 0


@pytest.mark.parametrize("shape", [(12, 10), (9, 7)])
def test_coverage_tells_where_samples_are(shape):
    grid = cartesian_grid(*shape)
    sampled = torch.zeros(shape, dtype=torch.bool)
    sampled[shape[0] // 2 :, 1::2] = True
    trajectory = grid[sampled.flatten()]
    covered = coverage(trajectory, density_compensation(trajectory, shape), shape)
    torch.testing.assert_close(covered, sampled.float(), rtol=0, atol=1e-3)
