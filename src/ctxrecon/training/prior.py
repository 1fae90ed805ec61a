"""The prior as one trainable module, its parts from a checkpoint or new, and its export."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ctxrecon.checks import check_config
from ctxrecon.errors import InputError
from ctxrecon.files import read_json
from ctxrecon.pipelines import ContextMRIPipeline, load_prior, load_text_encoder
from ctxrecon.priors.factory import build_scheduler, build_text_encoder, build_unet
from ctxrecon.priors.tokenizer import build_tokenizer
from ctxrecon.training.card import write_pipeline
from ctxrecon.training.loop import Weights
from ctxrecon.training.losses import denoising_loss, loss_weights


def starting_point(args: argparse.Namespace) -> ContextMRIPipeline:
    """The pipeline that training starts from.

    A checkpoint (``--pretrained_model_name_or_path``, any layout that
    :func:`ctxrecon.pipelines.load_prior` reads) is fine-tuned with its own scheduler; otherwise
    the U-Net is new, of the shipped size or of ``--unet_config``. ``--text_encoder`` replaces the
    text encoder; without one or the other a new small one is made, which has to be trained.

    Raises:
        InputError: parts that do not fit together.
    """
    name = args.text_encoder
    if args.pretrained_model_name_or_path:
        pipe = load_prior(
            args.pretrained_model_name_or_path,
            subfolder=args.subfolder,
            scheduler=args.scheduler,
            text_encoder=name,
            tokenizer=args.tokenizer or name,
        )
        pipe.unet.train()
        return pipe
    if name:
        encoder, tokenizer = load_text_encoder(name, tokenizer=args.tokenizer)
    elif args.train_text_encoder:
        tokenizer = build_tokenizer()
        encoder = build_text_encoder(
            len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            seed=args.seed,
        )
    else:
        raise InputError(
            "a new text encoder says nothing unless it is trained: give --text_encoder with a "
            "trained one, or --train_text_encoder"
        )
    return ContextMRIPipeline(
        unet=_new_unet(args, encoder.config.hidden_size).train(),
        scheduler=build_scheduler(args.prediction_type),
        text_encoder=encoder,
        tokenizer=tokenizer,
    )


def _new_unet(args: argparse.Namespace, width: int) -> UNet2DConditionModel:
    size = max(args.resolution)
    if args.unet_config is None:
        return build_unet(cross_attention_dim=width, sample_size=size, seed=args.seed)
    config = read_json(args.unet_config, "the configuration of a U-Net", "give another one")
    check_config(str(args.unet_config), config)
    wanted = config.get("encoder_hid_dim") or config.get("cross_attention_dim")
    if wanted != width:
        raise InputError(
            f"the U-Net of {args.unet_config} takes text states of width {wanted}, the text "
            f"encoder gives {width}: change the one or the other"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        try:
            unet = UNet2DConditionModel.from_config({**config, "sample_size": size})
        except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
            raise InputError(f"{args.unet_config} gives no U-Net: {error}") from error
    if (unet.config.in_channels, unet.config.out_channels) != (2, 2):
        raise InputError(f"expected 2 channels in and out (real, imaginary) in {args.unet_config}")
    return unet


class Prior(nn.Module):
    """U-Net and text encoder as one module; called on a batch it gives each sample's loss.

    Args:
        pipe: its U-Net is trained.
        train_text_encoder: whether its text encoder is trained as well; otherwise it is frozen.
        weighting: of the loss, see :func:`loss_weights`.
        snr_gamma: likewise.
    """

    alphas_cumprod: Tensor

    def __init__(
        self,
        pipe: ContextMRIPipeline,
        *,
        train_text_encoder: bool,
        weighting: str = "plain",
        snr_gamma: float = 5.0,
    ) -> None:
        super().__init__()
        self.unet: Any = pipe.unet.to(memory_format=torch.channels_last)
        self.text_encoder: Any = pipe.text_encoder.requires_grad_(train_text_encoder)
        scheduler: Any = pipe.scheduler
        self.prediction_type: str = scheduler.config.prediction_type
        self.weighting, self.snr_gamma = weighting, snr_gamma
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.float(), persistent=False)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The weighted denoising loss of each sample, ``(batch,)``."""
        states = self.text_encoder(batch["tokens"]).last_hidden_state
        losses = denoising_loss(
            self.unet,
            self.alphas_cumprod,
            batch["image"],
            states,
            prediction_type=self.prediction_type,
            timesteps=batch["timestep"],
            noise=batch["noise"],
        )
        return losses * loss_weights(
            self.alphas_cumprod,
            batch["timestep"],
            prediction_type=self.prediction_type,
            weighting=self.weighting,
            snr_gamma=self.snr_gamma,
        )


def with_weights(pipe: ContextMRIPipeline, weights: Weights) -> ContextMRIPipeline:
    """A copy of the pipeline with these weights of a :class:`Prior`, ready to sample."""
    unet, encoder = copy.deepcopy(pipe.unet), copy.deepcopy(pipe.text_encoder)
    for prefix, module in (("unet.", unet), ("text_encoder.", encoder)):
        own = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        if own:
            module.load_state_dict(own)
    copied = ContextMRIPipeline(
        unet=unet.eval(),
        scheduler=copy.deepcopy(pipe.scheduler),
        text_encoder=encoder.eval(),
        tokenizer=pipe.tokenizer,
    )
    copied.set_progress_bar_config(disable=True)
    return copied


def export_pipeline(pipe: ContextMRIPipeline, folder: Path, card: str) -> None:
    """Write a pipeline in half precision with its model card, whole or not at all."""
    pipe.unet.half()
    pipe.text_encoder.half()
    write_pipeline(pipe, folder, card)
