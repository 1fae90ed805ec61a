"""Steps and checks shared by several solvers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ctxrecon.checks import check_number, is_whole
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.linalg import conjugate_gradient, per_sample, power_iteration
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers.base import NoiseStd

CG_TOLERANCE = 1e-5
"""Relative residual at which conjugate gradient stops, near the precision of complex64."""


def proximal_step(
    operator: LinearOperator, y: Tensor, *, cg_iterations: int, tolerance: float
) -> Callable[[Tensor, float | Tensor], Tensor]:
    """Return ``(x̂_0, ρ) ↦ argmin_x ‖A x − y‖² + ρ ‖x − x̂_0‖²``, solved by conjugate gradient.

    The iteration solves ``(AᴴA + ρ I) x = Aᴴy + ρ x̂_0`` from ``x̂_0`` until the residual falls
    below ``tolerance`` times the right-hand side, or for ``cg_iterations``. ρ is a number or a
    tensor ``(batch,)``. Iterates differ from ``x̂_0`` by vectors in the range of ``Aᴴ``, so for
    ρ = 0 the result is ``x̂_0 + A†(y − A x̂_0)``, the least-squares solution nearest to ``x̂_0``.
    """
    adjoint_y = operator.adjoint(y)

    def solve(x0_hat: Tensor, rho: float | Tensor) -> Tensor:
        system = operator.gram + rho
        return conjugate_gradient(
            system,
            adjoint_y + per_sample(rho, x0_hat) * x0_hat,
            x0=x0_hat,
            num_iterations=cg_iterations,
            tolerance=tolerance,
            quadratic=system.quadratic,
        )

    return solve


def denoise_with_vjp(
    denoiser: Denoiser, x_t: Tensor, t: int
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Denoise, and return the vector-Jacobian product of the denoiser.

    Works under :func:`torch.no_grad` and does not change gradients of the network's parameters.

    Returns:
        ``x̂_0`` ``(batch, ny, nx)`` complex64, ``ε`` ``(batch, 2, ny, nx)``, and the function
        ``v ↦ (∂x̂_0/∂x_t)ᵀ v`` from complex ``(batch, ny, nx)`` to ``(batch, 2, ny, nx)``, which
        may be called once.
    """
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        x0_hat, eps = denoiser(x_t, t)

    def vjp(v: Tensor) -> Tensor:
        return torch.autograd.grad(x0_hat, x_t, complex_to_channels(v))[0]

    return channels_to_complex(x0_hat.detach()), eps.detach(), vjp


def part_variance(noise_std: NoiseStd | None, default: float) -> NoiseStd:
    """Return the variance of the real or imaginary part of a sample with deviation ``noise_std``.

    Diffusion noise is measured per channel, measurement noise per complex sample. Formulas that
    compare the two use this variance. ``default`` replaces a noise level of ``None``.
    """
    return (default if noise_std is None else noise_std) ** 2 / 2


def check_eta(eta: float) -> None:
    """Validate that η lies between 0 and 1."""
    check_number("eta", eta, least=0, most=1)


def check_noise_std(noise_std: NoiseStd | None, *, zero: bool = True) -> None:
    """Validate that noise levels are finite and not negative; ``None`` means unknown."""
    for value in _values(noise_std):
        if zero:
            check_number("noise_std", value, least=0)
        else:
            check_positive("noise_std", value)


def check_data_weight(data_weight: float | Tensor | None) -> None:
    """Validate that data weights are positive and finite; ``None`` means the default."""
    for value in _values(data_weight):
        check_positive("data_weight", value)


def _values(setting: float | Tensor | None) -> list[float]:
    """Return the setting's value for each image; an empty list for ``None``."""
    if isinstance(setting, Tensor):
        return setting.flatten().tolist()
    return [] if setting is None else [setting]


def check_positive(name: str, value: float) -> None:
    """Validate that a value is a positive finite number."""
    check_number(name, value, above=0)


def check_cg_iterations(cg_iterations: int) -> None:
    """Validate that ``cg_iterations`` is a positive integer."""
    check_whole("cg_iterations", cg_iterations)


def check_cg(cg_iterations: int, tolerance: float) -> None:
    """Validate the iterations and the relative tolerance of conjugate gradient."""
    check_cg_iterations(cg_iterations)
    check_number("a relative tolerance", tolerance, least=0, below=1)


def check_whole(name: str, value: int, least: int = 1) -> None:
    """Validate that a count is an integer of at least ``least``."""
    if not is_whole(value) or value < least:
        raise InputError(f"expected {name} to be a whole number of {least} or more, got {value!r}")


def check_normalized(
    operator: LinearOperator, y: Tensor, limit: float, solver: str, remedy: str
) -> None:
    """Validate that the eigenvalues of ``AᴴA`` do not exceed ``limit``."""
    eigenvalues = power_iteration(
        operator.gram, operator.domain_shape, num_iterations=10, device=y.device
    )
    largest = float(eigenvalues.max())
    if largest > limit:
        raise InputError(
            f"{solver} needs eigenvalues of AᴴA of {limit:.3g} or less, got {largest:.3g}: {remedy}"
        )


def measurement_noise(y: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """Return complex noise shaped like ``y``, of unit variance in each part, from image noise.

    Args:
        y: Measurement, complex64 ``(batch, …)``.
        draw: Function that draws unit noise ``(batch, 2, ny, nx)`` from each sample's generator.

    Returns:
        Tensor with the shape of ``y``.
    """
    wanted = 2 * y[0].numel()
    noise = draw().flatten(1)
    while noise.shape[1] < wanted:
        noise = torch.cat([noise, draw().flatten(1)], dim=1)
    return torch.view_as_complex(noise[:, :wanted].reshape(*y.shape, 2))
