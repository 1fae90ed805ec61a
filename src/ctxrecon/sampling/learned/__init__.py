"""Samplers whose masks are learned with the reconstruction, and lists of their lines.

Not imported by ``ctxrecon.sampling``, which needs no networks.
"""

from __future__ import annotations

from ctxrecon.sampling.learned.adaptive import StagedMask
from ctxrecon.sampling.learned.base import MaskNetwork, Sampler
from ctxrecon.sampling.learned.fixed import FixedMasks
from ctxrecon.sampling.learned.greedy import GreedyPolicy, policy_gradient_loss, with_lines
from ctxrecon.sampling.learned.line_order import line_order, write_line_order
from ctxrecon.sampling.learned.loupe import LOUPE
from ctxrecon.sampling.learned.pattern_generator import PatternGenerator
from ctxrecon.sampling.learned.per_contrast import PerContrastSampler
from ctxrecon.sampling.learned.relaxation import rescale
from ctxrecon.sampling.learned.sequential import SequentialSampler
from ctxrecon.sampling.learned.spectrum import kspace_energy, spectrum_mask

SAMPLERS: dict[str, type[MaskNetwork]] = {
    "fixed": FixedMasks,
    "loupe": LOUPE,
    "per_contrast": PerContrastSampler,
    "pattern_generator": PatternGenerator,
    "sequential": SequentialSampler,
    "greedy": GreedyPolicy,
}
"""Name -> class, whose arguments are its options; the last two look at what has been acquired."""

__all__ = [
    "LOUPE",
    "SAMPLERS",
    "FixedMasks",
    "GreedyPolicy",
    "MaskNetwork",
    "PatternGenerator",
    "PerContrastSampler",
    "Sampler",
    "SequentialSampler",
    "StagedMask",
    "kspace_energy",
    "line_order",
    "policy_gradient_loss",
    "rescale",
    "spectrum_mask",
    "with_lines",
    "write_line_order",
]
