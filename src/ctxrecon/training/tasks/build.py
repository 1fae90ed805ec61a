"""Starting point of task training: sampler and network."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ctxrecon.errors import InputError
from ctxrecon.phantom import SEGMENTATIONS
from ctxrecon.pipelines import TaskPipeline, load_task
from ctxrecon.tasks import (
    FINDINGS,
    PRESETS,
    UNET_PRESETS,
    FindingClassifier,
    ImageDecoder,
    LatentSegmenter,
    LINet,
    TwoUNets,
)
from ctxrecon.training.options import build_from_text
from ctxrecon.training.samplers import build_sampler
from ctxrecon.training.tasks.config import TasksConfig

_ACCELERATION = 8.0
_WIDTHS = {"small": 16, "paper": 64}
"""Number of channels of the classifier's first stage by network name."""
_SIZES = ("width", "depth", "layers", "latent_channels")


def starting_point(config: TasksConfig) -> TaskPipeline:
    """Return the sampler and networks to train: new ones, or those of an earlier run.

    Raises:
        InputError: If a network or sampler is unknown, or options contradict each other.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        old = None
        if config.pretrained_model_name_or_path is not None:
            old = load_task(config.pretrained_model_name_or_path)
        sampler = _sampler(config, old)
        if config.task == "classification":
            return TaskPipeline(sampler, _classifier(config, old), classes=list(FINDINGS))
        return _segmenter(config, old, sampler)


def _sampler(config: TasksConfig, old: TaskPipeline | None) -> Any:
    if old is not None and config.sampler is None:
        if config.acceleration is not None or config.center_fraction is not None:
            raise InputError(
                "--acceleration and --center_fraction apply to a new --sampler only: omit them"
            )
        shape = (config.resolution, config.resolution)
        if old.sampler.shape != shape:
            raise InputError(
                f"the sampler of {config.pretrained_model_name_or_path} has the matrix size "
                f"{old.sampler.shape}: use --resolution {old.sampler.shape[0]}"
            )
        return old.sampler
    return build_sampler(
        config.sampler or "pattern_generator",
        config.resolution,
        acceleration=config.acceleration,
        default_acceleration=_ACCELERATION,
        center_fraction=config.center_fraction,
        num_coils=config.num_coils,
    )


def _classifier(config: TasksConfig, old: TaskPipeline | None) -> Any:
    if config.reconstruction_weight:
        raise InputError("a classifier returns no image: omit --reconstruction_weight")
    kinds: dict[str, Any] = {
        name: partial(FindingClassifier, width=width) for name, width in _WIDTHS.items()
    }
    return _network(config, old, kinds, list(FINDINGS))


def _segmenter(config: TasksConfig, old: TaskPipeline | None, sampler: Any) -> TaskPipeline:
    target = SEGMENTATIONS[config.target]
    classes = ["/".join(one.name.lower() for one in each) for each in target.classes]
    kinds: dict[str, Any] = {
        name: partial(LatentSegmenter, **sizes) for name, sizes in PRESETS.items()
    }
    for name, kind, presets in (
        ("two_unets", TwoUNets, UNET_PRESETS),
        ("li_net", LINet, PRESETS),
    ):
        kinds |= {name: partial(kind, **presets["small"])}
        kinds |= {f"{name}_paper": partial(kind, **presets["paper"])}
    network = _network(config, old, kinds, classes, {"num_classes": target.num_classes})
    decoder = None
    if isinstance(network, LatentSegmenter) and config.reconstruction_weight != 0:
        if old is not None and network is old.network:
            decoder = old.image_decoder
        decoder = decoder or ImageDecoder(**{name: network.config[name] for name in _SIZES})
    return TaskPipeline(sampler, network, decoder, classes)


def _network(
    config: TasksConfig,
    old: TaskPipeline | None,
    kinds: dict[str, Any],
    classes: list[str],
    settled: dict[str, Any] | None = None,
) -> Any:
    """Return the requested network, or that of an earlier run if its classes match."""
    if old is None or config.network is not None:
        return build_from_text("--network", config.network or "small", kinds, settled)
    if list(old.config.classes) != classes:
        raise InputError(
            f"the network of {config.pretrained_model_name_or_path} has the classes "
            f"{', '.join(old.config.classes)}, not {', '.join(classes)}: specify a --network"
        )
    return old.network
