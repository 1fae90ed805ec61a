"""Whether predicted probabilities are those with which things happen."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError, check_counts


def expected_calibration_error(probabilities: Tensor, truth: Tensor, bins: int = 10) -> float:
    """``Σ_b (n_b / n) |mean p − mean z|`` over bins of the predicted probability.

    Naeini et al., AAAI 2015. The bins are of equal width, ``[0, 1/bins), [1/bins, 2/bins), …``,
    the last one with its end. All values count alike: pixels, classes and images together. What is
    binned is the probability of the class, not that of the likelier one of two, so that 0.1 for
    something that happens in 10 % of the cases is calibrated.

    Args:
        probabilities: p, from 0 to 1, of any shape.
        truth: z, bool or 0 and 1, of a shape that is broadcast with that of p: with the masks of
            several raters each of them counts.
        bins: how many.

    Raises:
        InputError: values outside [0, 1], shapes that do not fit, or no bins.
    """
    check_counts(bins=bins)
    p, z = _checked(probabilities, truth)
    chosen = (p * bins).long().clamp_max(bins - 1).flatten()
    # |Σ p − Σ z| of a bin over n is its share times the difference of its means.
    sums = p.new_zeros(bins).index_add_(0, chosen, (p - z).flatten())
    return float(sums.abs().sum() / p.numel())


def brier_score(probabilities: Tensor, truth: Tensor) -> float:
    """Mean of ``(p − z)²`` (Brier, Mon Weather Rev 78:1, 1950).

    For one class of two; of several classes given one after the other it is the mean over them, not
    the sum.

    Args:
        probabilities: p, from 0 to 1, of any shape.
        truth: z, bool or 0 and 1, of a shape that is broadcast with that of p.

    Raises:
        InputError: values outside [0, 1], or shapes that do not fit.
    """
    p, z = _checked(probabilities, truth)
    return float((p - z).square().mean())


def _checked(probabilities: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 of one shape."""
    try:
        p, z = torch.broadcast_tensors(probabilities.double(), truth.double())
    except RuntimeError as error:
        raise InputError(
            f"expected probabilities and truth of one shape, got {tuple(probabilities.shape)} and "
            f"{tuple(truth.shape)}"
        ) from error
    if not p.numel():
        raise InputError("expected at least one probability, got none")
    for name, values in (("probabilities", p), ("truth", z)):
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise InputError(f"expected {name} from 0 to 1, got some outside or NaN")
    return p, z
