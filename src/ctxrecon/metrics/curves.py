"""Distance of two rate-distortion curves: Bjøntegaard's BD-PSNR and BD-rate.

Bjøntegaard, VCEG-M33 (2001): the mean distance of two curves over their common range, along the
quality or the logarithm of the rate. Points are connected by piecewise cubic Hermite polynomials
(PCHIP, Fritsch and Carlson 1980), as in current reference software, instead of the single cubic
polynomial of 2001: they do not overshoot between points, and any number of points is allowed.

As in InfoMRI's table of BD-PSNR and BD-rate, a curve is compared with an anchor. A curve worse than
the anchor has a negative BD-PSNR, in dB, and a positive BD-rate, in percent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

from ctxrecon.errors import InputError


def bd_psnr(
    rates: ArrayLike, psnrs: ArrayLike, anchor_rates: ArrayLike, anchor_psnrs: ArrayLike
) -> float:
    r"""Compute the mean quality gain over an anchor at equal rate, in dB.

    .. math::

        \frac{1}{b - a} \int_a^b [P(r) - P_0(r)]\, dr, \qquad r = \log_{10} \mathrm{rate},

    where [a, b] are the rates covered by both curves.

    Example:
        >>> from ctxrecon.metrics import bd_psnr
        >>> round(bd_psnr([0.1, 0.2, 0.4], [31, 33, 35], [0.1, 0.2, 0.4], [30, 32, 34]), 6)
        1.0

    Args:
        rates: Sampling ratios (or bits, or lines) of the points, distinct, in any order, of shape
            ``(points,)``, two or more. For acceleration factors pass ``1 / acceleration``.
        psnrs: Quality at each rate, in dB or another unit, which is then that of the result.
        anchor_rates: Rates of the anchor, at its own points.
        anchor_psnrs: Quality of the anchor at each of its rates.

    Raises:
        InputError: If a curve has fewer than two points, values are not finite, rates are not
            positive and distinct, or the curves have no common range of rates.
    """
    curve = PchipInterpolator(*_points("the curve", rates, psnrs))
    anchor = PchipInterpolator(*_points("the anchor", anchor_rates, anchor_psnrs))
    return _mean_distance(curve, anchor, "rates")


def bd_rate(
    rates: ArrayLike, psnrs: ArrayLike, anchor_rates: ArrayLike, anchor_psnrs: ArrayLike
) -> float:
    r"""Compute the mean change of the rate against an anchor at equal quality, in percent.

    .. math::

        100\, (10^D - 1), \qquad D = \frac{1}{b - a} \int_a^b [r(P) - r_0(P)]\, dP,
        \qquad r = \log_{10} \mathrm{rate},

    where [a, b] is the quality reached by both curves.

    Example:
        >>> from ctxrecon.metrics import bd_rate
        >>> round(bd_rate([0.05, 0.1, 0.2], [30, 32, 34], [0.1, 0.2, 0.4], [30, 32, 34]), 6)
        -50.0

    Args:
        rates: Sampling ratios (or bits, or lines) of the points, distinct, in any order, of shape
            ``(points,)``, two or more. For acceleration factors pass ``1 / acceleration``.
        psnrs: Quality at each rate, increasing with the rate.
        anchor_rates: Rates of the anchor, at its own points.
        anchor_psnrs: Quality of the anchor at each of its rates, increasing with the rate.

    Raises:
        InputError: If a curve has fewer than two points, values are not finite, rates are not
            positive and distinct, the quality does not increase with the rate, or the curves have
            no common range of quality.
    """
    curve = _by_quality("the curve", *_points("the curve", rates, psnrs))
    anchor = _by_quality("the anchor", *_points("the anchor", anchor_rates, anchor_psnrs))
    return 100.0 * (10.0 ** _mean_distance(curve, anchor, "PSNR") - 1.0)


def _points(
    name: str, rates: ArrayLike, psnrs: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the logarithms of the rates in ascending order, and the quality at each."""
    x, y = np.asarray(rates, dtype=np.float64), np.asarray(psnrs, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise InputError(
            f"expected two or more rates and as many PSNRs of {name}, got shapes {x.shape} and "
            f"{y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all() and x.min() > 0):
        raise InputError(f"expected positive rates and finite PSNRs of {name}, got {x} and {y}")
    order = np.argsort(x)
    x, y = np.log10(x[order]), y[order]
    if (np.diff(x) == 0).any():
        raise InputError(f"a rate of {name} comes twice: pass the mean of its PSNRs once")
    return x, y


def _by_quality(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> PchipInterpolator:
    if (np.diff(y) <= 0).any():
        raise InputError(
            f"the PSNR of {name} does not rise with the rate, so that a PSNR has no unique rate: "
            "leave points out, or compare by bd_psnr only"
        )
    return PchipInterpolator(y, x)


def _mean_distance(curve: PchipInterpolator, anchor: PchipInterpolator, axis: str) -> float:
    low = max(curve.x[0], anchor.x[0])
    high = min(curve.x[-1], anchor.x[-1])
    if not low < high:
        raise InputError(
            f"the two curves have no range of {axis} in common: measure them at closer points"
        )
    return float(curve.integrate(low, high) - anchor.integrate(low, high)) / float(high - low)
