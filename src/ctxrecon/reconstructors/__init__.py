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
from ctxrecon.reconstructors.multi_contrast import (
    IndividualUNets,
    MultiContrastOutput,
    MultiContrastReconstructor,
    SharedUNet,
    reconstruct_contrasts,
)
from ctxrecon.reconstructors.recurrent_unet import GRUUNet, HRUNet, RUNet
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

MULTI_CONTRAST: dict[str, type[MultiContrastReconstructor]] = {
    "unet_s": SharedUNet,
    "unet_i": IndividualUNets,
    "gru_unet": GRUUNet,
    "ru_net": RUNet,
    "hru_net": HRUNet,
}
"""The same for networks of several contrasts; "unet_i" also needs their number."""

__all__ = [
    "MULTI_CONTRAST",
    "RECONSTRUCTORS",
    "Critic",
    "GRUUNet",
    "HRUNet",
    "ISTANetPlus",
    "IndividualUNets",
    "MoDL",
    "MultiContrastOutput",
    "MultiContrastReconstructor",
    "RUNet",
    "Reconstructor",
    "ReconstructorOutput",
    "ResNetGenerator",
    "SharedUNet",
    "UNetReconstructor",
    "UnrolledGenerator",
    "VarNet",
    "hard_data_consistency",
    "intensity",
    "reconstruct_contrasts",
]
