"""Starting point of reconstructor training: a new or a trained network."""

from __future__ import annotations

import torch

from ctxrecon.errors import InputError
from ctxrecon.pipelines import ReconstructionPipeline, load_reconstructor, load_text_encoder
from ctxrecon.reconstructors import RECONSTRUCTORS
from ctxrecon.training.options import build_from_text
from ctxrecon.training.reconstructor.config import ReconstructorConfig


def starting_point(config: ReconstructorConfig) -> ReconstructionPipeline:
    """Return the network to train: a new one, or a trained one to continue from."""
    if (config.network is None) == (config.pretrained_model_name_or_path is None):
        raise InputError("specify either --network or --pretrained_model_name_or_path")
    if config.pretrained_model_name_or_path:
        if config.text_encoder or config.predict_std:
            raise InputError(
                "--text_encoder and --predict_std apply to a new --network only: omit them"
            )
        return load_reconstructor(config.pretrained_model_name_or_path)
    assert config.network is not None
    encoder, tokenizer, settled = None, None, {}
    if config.text_encoder:
        encoder, tokenizer = load_text_encoder(config.text_encoder)
        settled["text_width"] = encoder.config.hidden_size
    if config.predict_std:
        settled["predict_std"] = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = build_from_text("--network", config.network, RECONSTRUCTORS, settled)
    return ReconstructionPipeline(network, encoder, tokenizer)
