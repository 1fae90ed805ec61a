"""Checks of the arguments of a pipeline call, all made before any work is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.pipelines.output import check_output_type
from ctxrecon.pipelines.text import check_prompts


def check_arguments(
    num_slices: int,
    *,
    num_train_timesteps: int,
    text_width: int,
    callback_tensor_inputs: Sequence[str],
    prompt: str | list[str] | None = None,
    prompt_embeds: Tensor | None = None,
    guidance_scale: float = 1.0,
    num_inference_steps: int = 1,
    generator: torch.Generator | list[torch.Generator] | None = None,
    num_samples: int = 1,
    batch_size: int | None = None,
    output_type: str = "pt",
    callback_on_step_end_tensor_inputs: Sequence[str] = (),
) -> None:
    """Refuse malformed arguments of a call to :class:`ctxrecon.pipelines.ContextMRIPipeline`.

    Args:
        num_slices: how many slices, or prompts to generate from, there are.
        num_train_timesteps: of the scheduler.
        text_width: of the text states that the U-Net takes.
        callback_tensor_inputs: the tensors that a callback may ask for.
        prompt: as in the call, and so are all that follow.
        prompt_embeds: as in the call.
        guidance_scale: as in the call.
        num_inference_steps: as in the call.
        generator: as in the call.
        num_samples: as in the call.
        batch_size: as in the call.
        output_type: as in the call.
        callback_on_step_end_tensor_inputs: as in the call.

    Raises:
        InputError: for each, in a sentence of its own.
    """
    check_output_type(output_type)
    if not (math.isfinite(guidance_scale) and guidance_scale >= 0):
        raise InputError(f"expected a guidance_scale of 0 or more, got {guidance_scale}")
    check_count("num_inference_steps", num_inference_steps, num_train_timesteps)
    check_count("num_samples", num_samples)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    unknown = set(callback_on_step_end_tensor_inputs) - set(callback_tensor_inputs)
    if unknown:
        raise InputError(
            f"expected callback_on_step_end_tensor_inputs out of "
            f"{callback_tensor_inputs}, got {sorted(unknown)}"
        )
    for each in generator if isinstance(generator, list) else [generator]:
        if not (each is None or isinstance(each, torch.Generator)):
            raise InputError(
                f"expected generator as a torch.Generator or a list of them, got "
                f"{type(each).__name__}: make one with torch.Generator().manual_seed(seed)"
            )
    if isinstance(generator, list) and len(generator) != num_slices:
        raise InputError(
            f"expected one generator or one for each of the {num_slices} slices, "
            f"got {len(generator)}"
        )
    if prompt is not None and prompt_embeds is not None:
        raise InputError("expected prompt or prompt_embeds, got both: leave one of them out")
    check_prompts(prompt, num_slices)
    if prompt_embeds is not None:
        shape = tuple(prompt_embeds.shape)
        if len(shape) != 3 or shape[0] not in (1, num_slices) or shape[2] != text_width:
            raise InputError(
                f"expected prompt_embeds of shape ({num_slices} or 1, tokens, {text_width}), "
                f"got {shape}"
            )


def check_count(name: str, value: Any, most: int | None = None) -> None:
    """Refuse anything but a whole number from 1 to ``most``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"expected {name} as a whole number, got {value!r}")
    if value < 1 or (most is not None and value > most):
        limits = "1 or more" if most is None else f"from 1 to {most}"
        raise InputError(f"expected {name} {limits}, got {value}")
