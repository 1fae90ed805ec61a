from __future__ import annotations

import pytest
import torch

from ctxrecon.errors import InputError
from ctxrecon.linalg import conjugate_gradient, power_iteration, squared_norm


def hermitian(batch, n, generator, dtype=torch.complex64):
    """Positive definite, well conditioned, really complex."""
    factor = torch.randn(batch, n, n, dtype=dtype, generator=generator)
    return factor @ factor.mH / n + torch.eye(n, dtype=dtype)


def apply(matrices):
    return lambda x: (matrices @ x[..., None])[..., 0]


def relative_error(x, expected):
    return ((x - expected).abs().amax(1) / expected.abs().amax(1)).tolist()


def test_solves_complex_hermitian_systems_of_very_different_scale(generator):
    n = 12
    scales = torch.tensor([1e-12, 1.0, 1e12])[:, None]
    matrices = hermitian(3, n, generator) * scales.flip(0)[..., None]
    rhs = torch.randn(3, n, dtype=torch.complex64, generator=generator) * scales
    expected = torch.linalg.solve(matrices, rhs)
    x = conjugate_gradient(apply(matrices), rhs, num_iterations=30)
    assert max(relative_error(x, expected)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_n_iterations_are_exact(dtype, generator):
    matrices = hermitian(2, 6, generator, dtype)
    rhs = torch.randn(2, 6, dtype=dtype, generator=generator)
    x = conjugate_gradient(apply(matrices), rhs, num_iterations=6)
    torch.testing.assert_close(x, torch.linalg.solve(matrices, rhs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_iterations", [1, 3, 7])
def test_each_sample_has_its_own_step_sizes(num_iterations, generator):
    matrices = hermitian(4, 10, generator) * torch.tensor([1.0, 10.0, 0.1, 3.0])[:, None, None]
    rhs = torch.randn(4, 10, dtype=torch.complex64, generator=generator)
    together = conjugate_gradient(apply(matrices), rhs, num_iterations=num_iterations)
    for item in range(4):
        one = slice(item, item + 1)
        alone = conjugate_gradient(apply(matrices[one]), rhs[one], num_iterations=num_iterations)
        assert relative_error(together[one], alone)[0] < 1e-5


def test_first_step_is_the_steepest_descent_with_hermitian_products(generator):
    matrices = hermitian(1, 5, generator)
    rhs = torch.randn(1, 5, dtype=torch.complex64, generator=generator)
    step = torch.vdot(rhs[0], rhs[0]).real / torch.vdot(rhs[0], matrices[0] @ rhs[0]).real
    x = conjugate_gradient(apply(matrices), rhs, num_iterations=1)
    torch.testing.assert_close(x, step * rhs)


def test_starting_point_is_used(generator):
    matrices = hermitian(2, 8, generator)
    rhs = torch.randn(2, 8, dtype=torch.complex64, generator=generator)
    solution = torch.linalg.solve(matrices, rhs)
    assert (
        max(
            relative_error(
                conjugate_gradient(apply(matrices), rhs, x0=solution, num_iterations=1), solution
            )
        )
        < 1e-5
    )
    start = torch.ones_like(rhs)
    torch.testing.assert_close(
        conjugate_gradient(apply(matrices), rhs, x0=start, num_iterations=0), start
    )


@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_converged_and_zero_samples_stay_as_they_are(tolerance, generator):
    matrices = hermitian(3, 6, generator)
    rhs = torch.randn(3, 6, dtype=torch.complex64, generator=generator)
    rhs[1] = 0
    x = conjugate_gradient(apply(matrices), rhs, num_iterations=200, tolerance=tolerance)
    assert torch.equal(x[1], torch.zeros(6, dtype=torch.complex64))
    assert max(relative_error(x[::2], torch.linalg.solve(matrices, rhs)[::2])) < 1e-5


def test_singular_operator_with_consistent_data(generator):
    projection = torch.diag(torch.tensor([1.0, 2.0, 0.0, 0.0])).to(torch.complex64)[None]
    rhs = torch.tensor([[1.0, 2.0j, 0.0, 0.0]])
    x = conjugate_gradient(apply(projection), rhs, num_iterations=50)
    torch.testing.assert_close(x, torch.tensor([[1.0, 1.0j, 0.0, 0.0]]))
    nothing = conjugate_gradient(torch.zeros_like, rhs, num_iterations=5)
    assert torch.equal(nothing, torch.zeros_like(rhs))


@pytest.mark.parametrize("start", [None, 1e3])
def test_rounding_in_the_null_space_is_not_followed(start, generator):
    """After one step with a projection only rounding remains, for any number of iterations."""
    factor = torch.randn(3, 40, 8, dtype=torch.complex64, generator=generator)
    basis = torch.linalg.qr(factor).Q
    projection = basis @ basis.mH
    rhs = apply(projection)(torch.randn(3, 40, dtype=torch.complex64, generator=generator))
    x0 = None
    if start is not None:
        x0 = start * torch.randn(3, 40, dtype=torch.complex64, generator=generator)
        x0 = x0 - apply(projection)(x0)
    expected = rhs if x0 is None else rhs + x0
    for num_iterations in (2, 3, 8, 100):
        x = conjugate_gradient(apply(projection), rhs, x0=x0, num_iterations=num_iterations)
        assert max(relative_error(x, expected)) < 1e-5


def test_tolerance_is_relative_and_stops_early(generator):
    matrices = hermitian(2, 30, generator)
    rhs = torch.randn(2, 30, dtype=torch.complex64, generator=generator)
    rhs = rhs * torch.tensor([[1e-10], [1e10]])
    calls = []

    def normal(x):
        calls.append(1)
        return apply(matrices)(x)

    x = conjugate_gradient(normal, rhs, num_iterations=100, tolerance=1e-2)
    residual = rhs - apply(matrices)(x)
    assert (residual.abs().amax(1) / rhs.abs().amax(1)).max() < 3e-2
    assert 1 < len(calls) < 15


def test_no_host_synchronization_without_a_tolerance(generator):
    # The meta device has no values: whatever needs one on the host fails there.
    rhs = torch.empty(2, 8, dtype=torch.complex64, device="meta")
    assert conjugate_gradient(lambda x: 2 * x, rhs, num_iterations=3).shape == (2, 8)
    with pytest.raises(RuntimeError, match="meta tensor"):
        conjugate_gradient(lambda x: 2 * x, rhs, num_iterations=3, tolerance=0.1)


def test_differentiable_in_the_right_hand_side(generator):
    matrices = hermitian(2, 5, generator, torch.complex128)
    rhs = torch.randn(2, 5, dtype=torch.complex128, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda b: conjugate_gradient(apply(matrices), b, num_iterations=3), rhs
    )


@pytest.mark.parametrize("num_iterations", [1, 4])
def test_quadratic_form_replaces_the_last_product(num_iterations, generator):
    matrices = hermitian(3, 6, generator)
    rhs = torch.randn(3, 6, dtype=torch.complex64, generator=generator)
    products, forms = [], []

    def normal(x):
        products.append(1)
        return apply(matrices)(x)

    def quadratic(x):
        forms.append(1)
        return (x.conj() * apply(matrices)(x)).sum(1).real

    x = conjugate_gradient(normal, rhs, num_iterations=num_iterations, quadratic=quadratic)
    assert (len(products), len(forms)) == (num_iterations - 1, 1)
    expected = conjugate_gradient(normal, rhs, num_iterations=num_iterations)
    torch.testing.assert_close(x, expected)


def test_squared_norm(generator):
    x = torch.randn(2, 3, 4, dtype=torch.complex64, generator=generator)
    torch.testing.assert_close(squared_norm(x), x.abs().square().sum((1, 2)))


def test_power_iteration_per_sample(generator):
    matrices = hermitian(3, 8, generator) * torch.tensor([1.0, 100.0, 0.01])[:, None, None]
    found = power_iteration(apply(matrices), (3, 8), num_iterations=300)
    torch.testing.assert_close(found, torch.linalg.eigvalsh(matrices)[:, -1], rtol=1e-3, atol=0)
    assert power_iteration(torch.zeros_like, (2, 4)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"num_iterations": -1}, "num_iterations .* -1"),
        ({"tolerance": 1.5}, r"tolerance .* 1\.5"),
        ({"tolerance": float("nan")}, "expected a relative tolerance"),
        ({"rhs": torch.zeros(3)}, "real or complex"),
        ({"rhs": torch.zeros(3, 3, dtype=torch.int64)}, "got torch.int64"),
        ({"x0": torch.zeros(1, 3)}, "x0"),
        ({"normal": lambda x: x[:, :1]}, "shape and dtype"),
    ],
)
def test_refuses(arguments, sentence):
    settings = {"normal": lambda x: x, "rhs": torch.ones(2, 3), "num_iterations": 2, **arguments}
    with pytest.raises(InputError, match=sentence):
        conjugate_gradient(settings.pop("normal"), settings.pop("rhs"), **settings)


def test_power_iteration_refuses_no_iteration():
    with pytest.raises(InputError, match="power iteration"):
        power_iteration(lambda x: x, (1, 3), num_iterations=0)
