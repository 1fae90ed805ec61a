"""Samplers whose masks are learned with the reconstruction, and lists of their lines.

Not imported by ``ctxrecon.masks``, which needs no networks.
"""

from __future__ import annotations

from ctxrecon.masks.learned.adaptive import AdaptiveSampler, StagedMask
from ctxrecon.masks.learned.base import MaskNetwork, Sampler
from ctxrecon.masks.learned.fixed import SPECTRUM, FixedMasks
from ctxrecon.masks.learned.greedy import GreedyPolicy, policy_gradient_loss, with_lines
from ctxrecon.masks.learned.line_order import line_order, write_line_order
from ctxrecon.masks.learned.loupe import LOUPE
from ctxrecon.masks.learned.pattern_generator import PatternGenerator
from ctxrecon.masks.learned.per_contrast import PerContrastSampler
from ctxrecon.masks.learned.relaxation import rescale
from ctxrecon.masks.learned.sequential import SequentialSampler
from ctxrecon.masks.learned.spectrum import kspace_energy, spectrum_mask
from ctxrecon.registry import Registry

SAMPLERS: Registry[type[MaskNetwork]] = Registry("sampler")
"""Name -> class, whose arguments are its options; the last two look at what has been acquired."""

SAMPLERS.register("fixed", FixedMasks)
SAMPLERS.register("loupe", LOUPE)
SAMPLERS.register("per_contrast", PerContrastSampler)
SAMPLERS.register("pattern_generator", PatternGenerator)
SAMPLERS.register("sequential", SequentialSampler)
SAMPLERS.register("greedy", GreedyPolicy)

__all__ = [
    "LOUPE",
    "SAMPLERS",
    "SPECTRUM",
    "AdaptiveSampler",
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
