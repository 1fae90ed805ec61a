"""Diffusion priors: the denoiser that solvers call, and builders of small networks."""

from __future__ import annotations

from ctxrecon.priors.denoiser import Denoiser, SetDenoiser, TextDenoiser, size_multiple
from ctxrecon.priors.factory import build_scheduler, build_text_encoder, build_unet
from ctxrecon.priors.timesteps import quadratic_timesteps
from ctxrecon.priors.tokenizer import build_tokenizer, check_prompt_length, shorten_prompt

__all__ = [
    "Denoiser",
    "SetDenoiser",
    "TextDenoiser",
    "build_scheduler",
    "build_text_encoder",
    "build_tokenizer",
    "build_unet",
    "check_prompt_length",
    "quadratic_timesteps",
    "shorten_prompt",
    "size_multiple",
]
