"""The packages of non-uniform FFTs, and the density of trajectories."""

from __future__ import annotations

import logging
import math
from types import ModuleType, SimpleNamespace

import pytest
import torch
from test_operators_more import NX, NY, cartesian_grid, draw, radial

from ctxrecon.errors import InputError
from ctxrecon.masks import radial_trajectory
from ctxrecon.operators import density_compensation, non_cartesian
from ctxrecon.operators.density import coverage


def only(monkeypatch, **modules):
    """Packages that can be imported by name, besides which there are none."""

    def found(name):
        if name not in modules:
            raise ImportError(name)
        return modules[name]

    monkeypatch.setattr("ctxrecon.operators.non_cartesian.importlib.import_module", found)


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
    fake.nufft2d1, fake.nufft2d2 = stand_in(finufft.nufft2d1), stand_in(finufft.nufft2d2)
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
