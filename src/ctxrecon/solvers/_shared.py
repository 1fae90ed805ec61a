"""Steps and checks that several solvers have in common."""

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
"""Relative residual at which conjugate gradient stops; complex64 has little below it."""


def proximal_step(
    operator: LinearOperator, y: Tensor, *, cg_iterations: int, tolerance: float
) -> Callable[[Tensor, float | Tensor], Tensor]:
    """``(x̂_0, ρ) ↦ argmin_x ‖A x − y‖² + ρ ‖x − x̂_0‖²`` by conjugate gradient.

    It solves ``(AᴴA + ρ I) x = Aᴴy + ρ x̂_0`` from ``x̂_0``, until the residual is ``tolerance``
    times the right-hand side or for ``cg_iterations``. ρ is one number, or ``(batch,)`` of them.
    The iterates differ from ``x̂_0`` by vectors
    of the range of ``Aᴴ`` only, so for ρ = 0 the result is ``x̂_0 + A†(y − A x̂_0)``: of all
    least-squares solutions the one nearest to ``x̂_0``.
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
    """Denoise and keep the way back: ``x̂_0``, ``ε`` and ``v ↦ (∂x̂_0/∂x_t)ᵀ v``.

    Works under :func:`torch.no_grad`, and leaves the gradients of the network's parameters alone.

    Returns:
        ``x̂_0`` ``(batch, ny, nx)`` complex64, ``ε`` ``(batch, 2, ny, nx)``, and the product, which
        takes a complex ``(batch, ny, nx)`` to ``(batch, 2, ny, nx)`` and may be called once.
    """
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        x0_hat, eps = denoiser(x_t, t)

    def vjp(v: Tensor) -> Tensor:
        return torch.autograd.grad(x0_hat, x_t, complex_to_channels(v))[0]

    return channels_to_complex(x0_hat.detach()), eps.detach(), vjp


def part_variance(noise_std: NoiseStd | None, default: float) -> NoiseStd:
    """Variance of the real, or imaginary, part of a sample whose deviation is ``noise_std``.

    Diffusion noise is counted in each channel, measurement noise in complex samples. Formulas that
    weigh the one against the other take this. ``default`` stands for a noise level of ``None``.
    """
    return (default if noise_std is None else noise_std) ** 2 / 2


def check_eta(eta: float) -> None:
    """Refuse an η that is not between 0 and 1."""
    check_number("eta", eta, least=0, most=1)


def check_noise_std(noise_std: NoiseStd | None, *, zero: bool = True) -> None:
    """Refuse a negative or infinite standard deviation, of any image; ``None`` is unknown."""
    for value in _values(noise_std):
        if zero:
            check_number("noise_std", value, least=0)
        else:
            check_positive("noise_std", value)


def check_data_weight(data_weight: float | Tensor | None) -> None:
    """Refuse a weight that is not positive and finite, of any image; ``None`` is the default."""
    for value in _values(data_weight):
        check_positive("data_weight", value)


def _values(setting: float | Tensor | None) -> list[float]:
    """What a setting has for each image; nothing for ``None``."""
    if isinstance(setting, Tensor):
        return setting.flatten().tolist()
    return [] if setting is None else [setting]


def check_positive(name: str, value: float) -> None:
    """Refuse what is not a positive finite number."""
    check_number(name, value, above=0)


def check_cg_iterations(cg_iterations: int) -> None:
    """Refuse less than one iteration, or a part of one."""
    check_whole("cg_iterations", cg_iterations)


def check_cg(cg_iterations: int, tolerance: float) -> None:
    """Refuse iterations or a relative tolerance that conjugate gradient cannot take."""
    check_cg_iterations(cg_iterations)
    check_number("a relative tolerance", tolerance, least=0, below=1)


def check_whole(name: str, value: int, least: int = 1) -> None:
    """Refuse a count that is not whole, or below the least."""
    if not is_whole(value) or value < least:
        raise InputError(f"expected {name} of {least} or more, a whole number, got {value!r}")


def check_normalized(
    operator: LinearOperator, y: Tensor, limit: float, solver: str, remedy: str
) -> None:
    """Refuse an operator with an eigenvalue of ``AᴴA`` above ``limit``; say the remedy."""
    eigenvalues = power_iteration(
        operator.gram, operator.domain_shape, num_iterations=10, device=y.device
    )
    largest = float(eigenvalues.max())
    if largest > limit:
        raise InputError(
            f"{solver} needs eigenvalues of AᴴA of {limit:.3g} or less, got {largest:.3g}: {remedy}"
        )


def measurement_noise(y: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """Complex noise like ``y``, of unit variance in each part, from noise like the image.

    Args:
        y: ``(batch, …)`` complex64.
        draw: gives unit noise ``(batch, 2, ny, nx)``, from each sample's own generator.

    Returns:
        A tensor of the shape of ``y``.
    """
    wanted = 2 * y[0].numel()
    noise = draw().flatten(1)
    while noise.shape[1] < wanted:
        noise = torch.cat([noise, draw().flatten(1)], dim=1)
    return torch.view_as_complex(noise[:, :wanted].reshape(*y.shape, 2))
