"""The sampler and network that the training of a task starts from."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ctxrecon.errors import InputError
from ctxrecon.phantom import SEGMENTATIONS
from ctxrecon.pipelines import TaskPipeline
from ctxrecon.tasks import (
    FINDINGS,
    PRESETS,
    FindingClassifier,
    ImageDecoder,
    LatentSegmenter,
)
from ctxrecon.training.options import build_from_text
from ctxrecon.training.samplers import build_sampler
from ctxrecon.training.tasks.config import TasksConfig

_ACCELERATION = 8.0
_WIDTHS = {"small": 16, "paper": 64}
"""Channels of the classifier's first stage, by the name of the network."""


def starting_point(config: TasksConfig) -> TaskPipeline:
    """The sampler and networks to train, with new weights.

    Raises:
        InputError: an unknown network or sampler, or options that do not belong together.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        sampler = build_sampler(
            config.sampler,
            config.resolution,
            acceleration=config.acceleration,
            default_acceleration=_ACCELERATION,
            center_fraction=config.center_fraction,
            num_coils=config.num_coils,
        )
        if config.task == "classification":
            if config.reconstruction_weight:
                raise InputError("a classifier gives no image: leave --reconstruction_weight out")
            kinds: dict[str, Any] = {
                name: partial(FindingClassifier, width=width) for name, width in _WIDTHS.items()
            }
            classifier = build_from_text("--network", config.network, kinds)
            return TaskPipeline(sampler, classifier, classes=list(FINDINGS))
        target = SEGMENTATIONS[config.target]
        kinds = {name: partial(LatentSegmenter, **sizes) for name, sizes in PRESETS.items()}
        settled = {"num_classes": target.num_classes}
        segmenter = build_from_text("--network", config.network, kinds, settled)
        decoder = None
        if config.reconstruction_weight != 0:
            names = ("width", "depth", "layers", "latent_channels")
            decoder = ImageDecoder(**{name: segmenter.config[name] for name in names})
    classes = ["/".join(one.name.lower() for one in each) for each in target.classes]
    return TaskPipeline(sampler, segmenter, decoder, classes)
