"""Spacing of the timesteps of a solver."""

from __future__ import annotations

from ctxrecon.errors import InputError


def quadratic_timesteps(
    num_inference_steps: int, *, start: int = 999, total: int = 1000
) -> list[int]:
    r"""Return descending timesteps with the quadratic spacing of DDIM.

    .. math::

        t_i = \mathrm{start} \cdot (i / n)^2, \qquad i = n, \dots, 1

    (Song et al., arXiv:2010.02502, appendix D.2), rounded to whole numbers and moved apart where
    two would coincide. The details of a reconstruction form at low noise levels, where even spacing
    places few timesteps.

    Example:
        >>> from ctxrecon.priors import quadratic_timesteps
        >>> quadratic_timesteps(4)
        [999, 562, 250, 62]

    Args:
        num_inference_steps: Number of timesteps n.
        start: First, noisiest timestep.
        total: Number of training timesteps of the scheduler.

    Returns:
        ``n`` distinct timesteps from ``start`` down.

    Raises:
        InputError: If there are fewer timesteps than steps, or ``start`` is out of range.
    """
    if not 0 <= start < total:
        raise InputError(f"expected start from 0 to {total - 1}, got {start}")
    if not 1 <= num_inference_steps <= start + 1:
        raise InputError(
            f"expected 1 to {start + 1} steps from timestep {start} on, got {num_inference_steps}"
        )
    found: list[int] = []
    for i in range(1, num_inference_steps + 1):
        t = round(start * (i / num_inference_steps) ** 2)
        found.append(max(t, found[-1] + 1 if found else 0))
    return found[::-1]
