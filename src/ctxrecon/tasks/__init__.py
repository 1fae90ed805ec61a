"""Downstream tasks: T2* maps, segmentations and findings, and the entropy of measurements."""

from __future__ import annotations

from ctxrecon.registry import Registry
from ctxrecon.tasks.classification import FINDINGS, FindingClassifier, finding_labels
from ctxrecon.tasks.decays import LONGEST_T2_STAR, simulate_decays
from ctxrecon.tasks.entropy import KSpaceStatistics, SampleEntropies, marginal_entropy
from ctxrecon.tasks.foreground import foreground_mask
from ctxrecon.tasks.halves import PRESETS
from ctxrecon.tasks.li_net import LINet
from ctxrecon.tasks.segmentation import (
    Gaussian,
    ImageDecoder,
    LatentSegmenter,
    PosteriorEncoder,
    kl_divergence,
    segmentation_loss,
)
from ctxrecon.tasks.segmenter import Segmenter
from ctxrecon.tasks.t2star import T2StarMLP, fit_t2star, train_t2star_mlp
from ctxrecon.tasks.two_unets import UNET_PRESETS, TwoUNets

TASK_NETWORKS: Registry[type] = Registry("task network")
"""Name -> class of the network that performs a task on the zero-filled image."""

TASK_NETWORKS.register("segmenter", LatentSegmenter)
TASK_NETWORKS.register("two_unets", TwoUNets)
TASK_NETWORKS.register("li_net", LINet)
TASK_NETWORKS.register("classifier", FindingClassifier)

__all__ = [
    "FINDINGS",
    "LONGEST_T2_STAR",
    "PRESETS",
    "TASK_NETWORKS",
    "UNET_PRESETS",
    "FindingClassifier",
    "Gaussian",
    "ImageDecoder",
    "KSpaceStatistics",
    "LINet",
    "LatentSegmenter",
    "PosteriorEncoder",
    "SampleEntropies",
    "Segmenter",
    "T2StarMLP",
    "TwoUNets",
    "finding_labels",
    "fit_t2star",
    "foreground_mask",
    "kl_divergence",
    "marginal_entropy",
    "segmentation_loss",
    "simulate_decays",
    "train_t2star_mlp",
]
