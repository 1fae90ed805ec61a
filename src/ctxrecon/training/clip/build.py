"""Construction of the CLIP to train."""

from __future__ import annotations

from typing import Any

import torch

from ctxrecon.priors.factory import build_clip
from ctxrecon.training.clip.config import PATCH, ClipConfig
from ctxrecon.training.clip.objective import ContrastiveLoss


def build(config: ClipConfig, tokenizer: Any) -> ContrastiveLoss:
    """Return a CLIP with new weights drawn from ``--seed``, and its loss.

    Args:
        config: Configuration of the run.
        tokenizer: Tokenizer of the prompts.
    """
    clip = build_clip(
        len(tokenizer),
        image_size=config.resolution,
        patch_size=PATCH,
        seed=config.seed,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return ContrastiveLoss(clip, config.readout_weight)
