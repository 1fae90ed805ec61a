"""Networks that invert the measurement directly, each with one call, and their critic."""

from __future__ import annotations

from ctxrecon.reconstructors.base import Reconstructor, ReconstructorOutput, intensity
from ctxrecon.reconstructors.critic import Critic
from ctxrecon.reconstructors.generators import (
    ResNetGenerator,
    UnrolledGenerator,
    hard_data_consistency,
)
from ctxrecon.reconstructors.ista_net import ISTANetPlus
from ctxrecon.reconstructors.modl import MoDL
from ctxrecon.reconstructors.unet import UNetReconstructor
from ctxrecon.reconstructors.varnet import VarNet

RECONSTRUCTORS: dict[str, type[Reconstructor]] = {
    "unet": UNetReconstructor,
    "resnet": ResNetGenerator,
    "unrolled": UnrolledGenerator,
    "varnet": VarNet,
    "modl": MoDL,
    "ista_net": ISTANetPlus,
}
"""Name -> class, whose arguments are the network's options."""

__all__ = [
    "RECONSTRUCTORS",
    "Critic",
    "ISTANetPlus",
    "MoDL",
    "Reconstructor",
    "ReconstructorOutput",
    "ResNetGenerator",
    "UNetReconstructor",
    "UnrolledGenerator",
    "VarNet",
    "hard_data_consistency",
    "intensity",
]
