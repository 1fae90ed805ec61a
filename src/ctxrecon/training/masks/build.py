"""Starting point of joint training: new or trained samplers and networks."""

from __future__ import annotations

from typing import Any

import torch

from ctxrecon.errors import InputError
from ctxrecon.masks.learned import GreedyPolicy, SequentialSampler
from ctxrecon.options import split_options
from ctxrecon.phantom import ECHO_TIMES
from ctxrecon.pipelines import JointPipeline, load_joint, load_text_encoder
from ctxrecon.tasks import train_t2star_mlp
from ctxrecon.training.masks.config import NETWORKS, MasksConfig
from ctxrecon.training.options import build_from_text
from ctxrecon.training.samplers import build_sampler

_ACCELERATION = 4.0
_COUNT = {"one": 1, "multi_echo": len(ECHO_TIMES), "pd_pair": 2}
"""Number of contrasts by name."""


def starting_point(config: MasksConfig) -> JointPipeline:
    """Return the sampler and network to train: new ones, or trained ones to continue from."""
    if (config.network is None) == (config.pretrained_model_name_or_path is None):
        raise InputError("specify either --network or --pretrained_model_name_or_path")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if config.network is not None:
            if config.sampler is None:
                raise InputError("specify the --sampler to train with this network")
            network, encoder, tokenizer = _new_network(config, config.network)
            relaxometer = None
        else:
            assert config.pretrained_model_name_or_path is not None
            if config.text_encoder or config.predict_std:
                raise InputError(
                    "--text_encoder and --predict_std apply to a new --network only: omit them"
                )
            old = load_joint(config.pretrained_model_name_or_path)
            network, encoder, tokenizer = old.reconstructor, old.text_encoder, old.tokenizer
            relaxometer = old.relaxometer
            if not config.sampler and (config.acceleration or config.center_fraction is not None):
                raise InputError(
                    "--acceleration and --center_fraction apply to a new --sampler only: omit them"
                )
        if config.sampler:
            sampler = build_sampler(
                config.sampler,
                config.resolution,
                acceleration=config.acceleration,
                default_acceleration=_ACCELERATION,
                center_fraction=config.center_fraction,
                num_coils=config.num_coils,
                contrasts=_COUNT[config.contrasts],
            )
        else:
            sampler = old.sampler
    _check_contrasts(sampler, config.contrasts)
    if config.aim == "reconstruction":
        relaxometer = None
    elif config.contrasts != "multi_echo":
        raise InputError("a T2* map needs echoes: use --contrasts multi_echo")
    else:
        relaxometer = relaxometer or train_t2star_mlp(
            ECHO_TIMES, generator=torch.Generator().manual_seed(config.seed)
        )
    count = _COUNT[config.contrasts]
    return JointPipeline(network, sampler, relaxometer, encoder, tokenizer, contrasts=count)


def _check_contrasts(sampler: Any, contrasts: str) -> None:
    """Validate that the sampler has the requested number of contrasts."""
    count = _COUNT[contrasts]
    own = getattr(sampler, "contrasts", count)
    if own != count:
        raise InputError(f"the sampler has {own} contrasts, --contrasts {contrasts} has {count}")
    if count > 1 and isinstance(sampler, SequentialSampler | GreedyPolicy):
        raise InputError(
            f"a {type(sampler).__name__} adapts to a single image: use --contrasts one, or another "
            "sampler"
        )


def _new_network(config: MasksConfig, text: str) -> tuple[Any, Any, Any]:
    """Return a network with new weights, its text encoder and tokenizer."""
    name, options = split_options(text)
    encoder, tokenizer, settled = None, None, {}
    if config.text_encoder:
        encoder, tokenizer = load_text_encoder(config.text_encoder)
        settled["text_width"] = encoder.config.hidden_size
    if config.predict_std:
        settled["predict_std"] = True
    if name == "unet_i" and "contrasts" not in options:
        settled["contrasts"] = _COUNT[config.contrasts]
    return build_from_text("--network", text, NETWORKS, settled), encoder, tokenizer
