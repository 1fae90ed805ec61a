"""Starting point of prior training: a checkpoint, or new parts."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel

from ctxrecon.checks import check_config
from ctxrecon.errors import InputError
from ctxrecon.files import read_json
from ctxrecon.pipelines import ContextMRIPipeline, load_prior, load_text_encoder
from ctxrecon.priors.factory import build_scheduler, build_text_encoder, build_unet
from ctxrecon.priors.tokenizer import build_tokenizer
from ctxrecon.training.prior.config import PriorConfig


def starting_point(config: PriorConfig) -> ContextMRIPipeline:
    """Return the pipeline that training starts from.

    A checkpoint (``--pretrained_model_name_or_path``, any layout supported by
    :func:`ctxrecon.pipelines.load_prior`) is fine-tuned with its own scheduler. Otherwise the U-Net
    is new, of the default size or of ``--unet_config``. ``--text_encoder`` replaces the text
    encoder; if neither provides one, a new small one is created, which has to be trained.

    Raises:
        InputError: If the parts do not match.
    """
    name = config.text_encoder
    if config.pretrained_model_name_or_path:
        pipe = load_prior(
            config.pretrained_model_name_or_path,
            subfolder=config.subfolder,
            scheduler=config.scheduler,
            text_encoder=name,
            tokenizer=config.tokenizer or name,
        )
        pipe.unet.train()
        return pipe
    if name:
        encoder, tokenizer = load_text_encoder(name, tokenizer=config.tokenizer)
    elif config.train_text_encoder:
        tokenizer = build_tokenizer()
        encoder = build_text_encoder(
            len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            seed=config.seed,
        )
    else:
        raise InputError(
            "a new prior needs a trained text encoder: pass one as --text_encoder, or train one "
            "along with the prior by --train_text_encoder"
        )
    return ContextMRIPipeline(
        unet=_new_unet(config, encoder.config.hidden_size).train(),
        scheduler=build_scheduler(config.prediction_type),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


def _new_unet(config: PriorConfig, width: int) -> UNet2DConditionModel:
    size = max(config.resolution)
    if config.unet_config is None:
        return build_unet(cross_attention_dim=width, sample_size=size, seed=config.seed)
    file = config.unet_config
    unet_config = read_json(file, "the configuration of a U-Net", "use another one")
    check_config(str(file), unet_config)
    wanted = unet_config.get("encoder_hid_dim") or unet_config.get("cross_attention_dim")
    if wanted != width:
        raise InputError(
            f"the U-Net of {file} needs text states of width {wanted}, the text encoder returns "
            f"{width}: change one of them"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            unet = UNet2DConditionModel.from_config({**unet_config, "sample_size": size})
        except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
            raise InputError(f"{file} is not a valid U-Net configuration: {error}") from error
    if (unet.config.in_channels, unet.config.out_channels) != (2, 2):
        raise InputError(f"expected 2 channels in and out (real, imaginary) in {file}")
    return unet
