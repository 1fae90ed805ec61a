"""Reconstructions without a learned prior: zero-filled, SENSE, L1-wavelet, total variation.

Each is called as ``method(operator, y)`` for a measurement ``y = A x + n`` with any linear operator
``A`` and reconstructs a batch of slices at once, on the device of ``y``. The regularized methods
scale each slice such that the 99 % quantile of its zero-filled magnitude is 1, so that a
regularization weight means the same whatever the units of the scan, and scale the image back at the
end.

With two sets of coil maps the unknown is the image of :class:`~ctxrecon.operators.SoftSense`, of
shape ``(batch, sets · ny, nx)``, whose ``combine`` merges the sets. Penalties act on each set
separately.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ctxrecon.baselines.linear import cg_sense, phase_constrained, zero_filled
from ctxrecon.baselines.sparse import l1_wavelet, total_variation
from ctxrecon.registry import Registry

__all__ = [
    "BASELINES",
    "cg_sense",
    "l1_wavelet",
    "phase_constrained",
    "total_variation",
    "zero_filled",
]

BASELINES: Registry[Callable[..., Tensor]] = Registry("baseline")
"""Baselines by name, each a function of an operator and a measurement."""

BASELINES.register("zero_filled", zero_filled, title="zero-filled")
BASELINES.register("cg_sense", cg_sense, title="CG-SENSE")
BASELINES.register("phase_constrained", phase_constrained, title="phase-constrained SENSE")
BASELINES.register("l1_wavelet", l1_wavelet, title="L1-wavelet")
BASELINES.register("total_variation", total_variation, title="TV", aliases=("tv",))
