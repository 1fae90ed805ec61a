"""How far apart two curves of quality against rate lie: Bjøntegaard's BD-PSNR and BD-rate.

Bjøntegaard, VCEG-M33 (2001): the mean distance of two curves between the ends that they share,
along quality or along the logarithm of the rate. Points are joined by piecewise cubic Hermite
polynomials (PCHIP, Fritsch and Carlson 1980), as in today's reference software, and not by the one
cubic polynomial of 2001: it does not overshoot between the points, and takes any number of them.

The convention is that of InfoMRI's table of BD-PSNR and BD-rate: a curve against an anchor. Worse
than the anchor is a negative BD-PSNR, in dB, and a positive BD-rate, in percent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

from ctxrecon.errors import InputError


def bd_psnr(
    rates: ArrayLike, psnrs: ArrayLike, anchor_rates: ArrayLike, anchor_psnrs: ArrayLike
) -> float:
    """Mean gain in quality over an anchor at equal rate, in dB.

    ``1/(b − a) ∫_a^b [P(r) − P_0(r)] dr`` with ``r = log₁₀ rate`` and [a, b] the rates that both
    curves cover.

    Args:
        rates: sampling ratios (or bits, or lines) of the points, each once, in any order;
            ``(points,)``, two or more. Accelerations are their inverses: give ``1 / acceleration``.
        psnrs: quality at each rate, in dB or any other unit, which then is the result's.
        anchor_rates: of the curve that is compared with; its own points.
        anchor_psnrs: likewise.

    Raises:
        InputError: curves of one point, of numbers that are not finite, of rates that are not
            positive or come twice, or without a common range of rates.
    """
    curve = PchipInterpolator(*_points("the curve", rates, psnrs))
    anchor = PchipInterpolator(*_points("the anchor", anchor_rates, anchor_psnrs))
    return _mean_distance(curve, anchor, "rates")


def bd_rate(
    rates: ArrayLike, psnrs: ArrayLike, anchor_rates: ArrayLike, anchor_psnrs: ArrayLike
) -> float:
    """Mean change of the rate against an anchor at equal quality, in percent.

    ``100 (10^D − 1)``, ``D = 1/(b − a) ∫_a^b [r(P) − r_0(P)] dP`` with ``r = log₁₀ rate`` and
    [a, b] the quality that both curves reach.

    Args:
        rates: as for :func:`bd_psnr`, like the others.
        psnrs: quality at each rate, rising with it.
        anchor_rates: of the curve that is compared with; its own points.
        anchor_psnrs: likewise.

    Raises:
        InputError: as :func:`bd_psnr`, for a quality that does not rise with the rate, and for
            curves without a common range of quality.
    """
    curve = _by_quality("the curve", *_points("the curve", rates, psnrs))
    anchor = _by_quality("the anchor", *_points("the anchor", anchor_rates, anchor_psnrs))
    return 100.0 * (10.0 ** _mean_distance(curve, anchor, "PSNR") - 1.0)


def _points(
    name: str, rates: ArrayLike, psnrs: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logarithms of the rates in rising order, and the quality at each."""
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
        raise InputError(f"a rate of {name} comes twice: give the mean of its PSNRs once")
    return x, y


def _by_quality(name: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> PchipInterpolator:
    if (np.diff(y) <= 0).any():
        raise InputError(
            f"the PSNR of {name} does not rise with the rate, so no rate belongs to a PSNR: "
            "leave points out, or compare by bd_psnr alone"
        )
    return PchipInterpolator(y, x)


def _mean_distance(curve: PchipInterpolator, anchor: PchipInterpolator, axis: str) -> float:
    low = max(curve.x[0], anchor.x[0])
    high = min(curve.x[-1], anchor.x[-1])
    if not low < high:
        raise InputError(f"the two curves have no range of {axis} in common: measure them closer")
    return float(curve.integrate(low, high) - anchor.integrate(low, high)) / float(high - low)
