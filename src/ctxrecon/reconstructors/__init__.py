"""Networks that reconstruct an image from a measurement in one call, and their critics."""

from __future__ import annotations

from collections.abc import Callable

from ctxrecon.reconstructors.base import (
    Estimate,
    Reconstructor,
    ReconstructorOutput,
    intensity,
    likelihood_std,
)
from ctxrecon.reconstructors.critic import Critic
from ctxrecon.reconstructors.cross_modal import PRESETS, CrossModal, CrossModalOutput
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
from ctxrecon.reconstructors.plug_and_play import PlugAndPlay
from ctxrecon.reconstructors.recurrent_unet import GRUUNet, HRUNet, RUNet
from ctxrecon.reconstructors.spectral_critic import SpectralCritic
from ctxrecon.reconstructors.unet import UNetReconstructor
from ctxrecon.reconstructors.varnet import VarNet
from ctxrecon.reconstructors.warp import warp
from ctxrecon.registry import Registry

RECONSTRUCTORS: Registry[type[Reconstructor]] = Registry("network")
"""Network name -> class, whose arguments are the network's options."""

RECONSTRUCTORS.register("unet", UNetReconstructor)
RECONSTRUCTORS.register("resnet", ResNetGenerator)
RECONSTRUCTORS.register("unrolled", UnrolledGenerator)
RECONSTRUCTORS.register("varnet", VarNet)
RECONSTRUCTORS.register("modl", MoDL)
RECONSTRUCTORS.register("ista_net", ISTANetPlus)
RECONSTRUCTORS.register("pnp", PlugAndPlay)

MULTI_CONTRAST: Registry[type[MultiContrastReconstructor]] = Registry("network of contrasts")
"""Multi-contrast network name -> class; "unet_i" also requires the number of contrasts."""

MULTI_CONTRAST.register("unet_s", SharedUNet)
MULTI_CONTRAST.register("unet_i", IndividualUNets)
MULTI_CONTRAST.register("gru_unet", GRUUNet)
MULTI_CONTRAST.register("ru_net", RUNet)
MULTI_CONTRAST.register("hru_net", HRUNet)

CROSS_MODAL: Registry[Callable[..., CrossModal]] = Registry("cross-modal network")
"""Name -> preset of the network guided by a reference image of another contrast."""

for _name, _preset in PRESETS.items():
    CROSS_MODAL.register(_name, _preset)

__all__ = [
    "CROSS_MODAL",
    "MULTI_CONTRAST",
    "RECONSTRUCTORS",
    "Critic",
    "CrossModal",
    "CrossModalOutput",
    "Estimate",
    "GRUUNet",
    "HRUNet",
    "ISTANetPlus",
    "IndividualUNets",
    "MoDL",
    "MultiContrastOutput",
    "MultiContrastReconstructor",
    "PlugAndPlay",
    "RUNet",
    "Reconstructor",
    "ReconstructorOutput",
    "ResNetGenerator",
    "SharedUNet",
    "SpectralCritic",
    "UNetReconstructor",
    "UnrolledGenerator",
    "VarNet",
    "hard_data_consistency",
    "intensity",
    "likelihood_std",
    "reconstruct_contrasts",
    "warp",
]
