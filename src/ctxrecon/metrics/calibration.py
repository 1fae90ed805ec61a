"""Calibration of predicted probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.errors import InputError, check_counts


def expected_calibration_error(probabilities: Tensor, truth: Tensor, bins: int = 10) -> float:
    r"""Compute the expected calibration error over bins of the predicted probability.

    .. math::

        \mathrm{ECE} = \sum_b \frac{n_b}{n}
            \bigl| \operatorname{mean}_b p - \operatorname{mean}_b z \bigr|

    Naeini et al., AAAI 2015. The bins ``[0, 1/bins), [1/bins, 2/bins), …`` have equal width, and
    the last one includes its end. Pixels, classes and images have equal weight. The probability of
    the class is binned, not that of the more likely of two classes, so that a probability of 0.1
    for an event with a frequency of 10 % is calibrated.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import expected_calibration_error
        >>> expected_calibration_error(torch.tensor([0.5, 0.5]), torch.tensor([True, False]))
        0.0

    Args:
        probabilities: Probabilities p from 0 to 1, of any shape.
        truth: Outcomes z, bool or 0 and 1, of a shape that broadcasts with that of p; with the
            masks of several raters, each rater counts.
        bins: Number of bins.

    Raises:
        InputError: If values lie outside [0, 1], shapes do not match, or there are no bins.
    """
    check_counts(bins=bins)
    p, z = _checked(probabilities, truth)
    chosen = (p * bins).long().clamp_max(bins - 1).flatten()
    # |Σ p − Σ z| of a bin over n equals its weight times the difference of its means.
    sums = p.new_zeros(bins).index_add_(0, chosen, (p - z).flatten())
    return float(sums.abs().sum() / p.numel())


def brier_score(probabilities: Tensor, truth: Tensor) -> float:
    """Compute the Brier score, the mean of ``(p − z)²`` (Brier, Mon Weather Rev 78:1, 1950).

    It is that of one class against the rest; for several classes it is the mean over them, not the
    sum.

    Example:
        >>> import torch
        >>> from ctxrecon.metrics import brier_score
        >>> brier_score(torch.tensor([0.5, 1.0]), torch.tensor([True, True]))
        0.125

    Args:
        probabilities: Probabilities p from 0 to 1, of any shape.
        truth: Outcomes z, bool or 0 and 1, of a shape that broadcasts with that of p.

    Raises:
        InputError: If values lie outside [0, 1] or shapes do not match.
    """
    p, z = _checked(probabilities, truth)
    return float((p - z).square().mean())


def _checked(probabilities: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Validate both arguments and return them as float64 of one shape."""
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
