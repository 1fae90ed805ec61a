"""Checks of the options that every iterative baseline has."""

from __future__ import annotations

from ctxrecon.checks import check_number, is_whole
from ctxrecon.errors import InputError


def check_options(num_iterations: int, regularization: float) -> None:
    """Validate the number of iterations and the regularization weight.

    Raises:
        InputError: If there is less than one iteration, or the weight is negative or not finite.
    """
    if not is_whole(num_iterations) or num_iterations < 1:
        raise InputError(
            f"expected `num_iterations` of at least one iteration, got {num_iterations!r}; "
            "leave it out for the default"
        )
    check_number("regularization", regularization, least=0)
