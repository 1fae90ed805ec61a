"""Samplers whose masks are learned together with the reconstruction, and line orders.

``ctxrecon.masks`` does not import this package, since it needs no networks.
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
"""Sampler name -> class, whose arguments are its options; the last two adapt to the measurement."""

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
