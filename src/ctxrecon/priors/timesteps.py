"""Which timesteps a solver takes."""

from __future__ import annotations

from ctxrecon.errors import InputError


def quadratic_timesteps(
    num_inference_steps: int, *, start: int = 999, total: int = 1000
) -> list[int]:
    """Descending timesteps, spaced as squares: DDIM's quadratic trajectories.

    ``t_i = start · (i/n)²`` for ``i = n … 1`` (Song et al., arXiv:2010.02502, appendix D.2), with
    the nearest whole numbers, moved apart where two would meet. A reconstruction's details are
    decided where there is little noise; evenly spaced timesteps leave few there.

    Args:
        num_inference_steps: n.
        start: the first, noisiest timestep.
        total: timesteps of the scheduler.

    Returns:
        ``n`` different timesteps from ``start`` down.

    Raises:
        InputError: more steps than there are timesteps, or a start beyond them.
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
