"""Validation of the arguments of a pipeline call, before any computation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ctxrecon.arrays import ArrayLike, as_tensor
from ctxrecon.checks import check_number, check_whole
from ctxrecon.errors import InputError
from ctxrecon.inference.prompts import check_prompts
from ctxrecon.output import check_output_type

LARGEST_GUIDANCE = 50.0
"""Largest guidance scale, ten times that of Ho and Salimans (arXiv:2207.12598: w = 4, or γ = 5).

It multiplies the difference of two predictions, and with it the errors of the network.
"""


def check_arguments(
    num_slices: int,
    *,
    num_train_timesteps: int,
    text_width: int,
    callback_tensor_inputs: Sequence[str],
    prompt: str | list[str] | None = None,
    prompt_embeds: ArrayLike | None = None,
    guidance_scale: float = 1.0,
    num_inference_steps: int = 1,
    generator: torch.Generator | list[torch.Generator] | None = None,
    num_samples: int = 1,
    batch_size: int | None = None,
    output_type: str = "pt",
    callback_on_step_end: Any = None,
    callback_on_step_end_tensor_inputs: Sequence[str] = (),
) -> None:
    """Validate the arguments of a call to :class:`ctxrecon.pipelines.ContextMRIPipeline`.

    Args:
        num_slices: Number of slices, or of prompts for sampling.
        num_train_timesteps: Number of training timesteps of the scheduler.
        text_width: Width of the text encoder states that the U-Net accepts.
        callback_tensor_inputs: Names of the tensors that a callback may request.
        prompt: Prompt for all slices, a list with one per slice, or ``None``.
        prompt_embeds: Text encoder states of shape ``(batch or 1, tokens, text_width)``.
        guidance_scale: Guidance scale γ.
        num_inference_steps: Number of diffusion steps.
        generator: Random generator, or one per slice.
        num_samples: Posterior samples per slice.
        batch_size: Images denoised at once.
        output_type: Type of the images: "pt", "np" or "pil".
        callback_on_step_end: Function called after each step.
        callback_on_step_end_tensor_inputs: Names of the tensors passed to that function.

    Raises:
        InputError: If an argument is malformed.
    """
    check_output_type(output_type)
    check_number("guidance_scale", guidance_scale, least=0)
    if guidance_scale > LARGEST_GUIDANCE:
        raise InputError(
            f"expected a guidance_scale of {LARGEST_GUIDANCE:g} or less, got {guidance_scale:g}: "
            "values from 1 to 3 suit reconstruction"
        )
    check_whole("num_inference_steps", num_inference_steps, most=num_train_timesteps)
    check_whole("num_samples", num_samples)
    if batch_size is not None:
        check_whole("batch_size", batch_size)
    if not (callback_on_step_end is None or callable(callback_on_step_end)):
        raise InputError(
            "expected callback_on_step_end as a function, got "
            f"{type(callback_on_step_end).__name__}"
        )
    names = callback_on_step_end_tensor_inputs
    if not isinstance(names, list | tuple) or not all(n in callback_tensor_inputs for n in names):
        raise InputError(
            f"expected callback_on_step_end_tensor_inputs from {callback_tensor_inputs}, got "
            f"{names!r}"
        )
    check_generator(generator, num_slices)
    if prompt is not None and prompt_embeds is not None:
        raise InputError("expected prompt or prompt_embeds, got both: pass only one of them")
    check_prompts(prompt, num_slices)
    if prompt_embeds is not None:
        check_tensor("prompt_embeds", as_tensor(prompt_embeds, "prompt_embeds"))
        shape = tuple(prompt_embeds.shape)
        if len(shape) != 3 or shape[0] not in (1, num_slices) or shape[2] != text_width:
            raise InputError(
                f"expected prompt_embeds of shape ({num_slices} or 1, tokens, {text_width}), "
                f"got {shape}"
            )


def check_generator(generator: Any, num_slices: int) -> None:
    """Validate that a generator is a ``torch.Generator``, a list with one per slice, or ``None``.

    Raises:
        InputError: If the type or the length of the list is wrong.
    """
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


def check_tensor(name: str, value: Any) -> None:
    """Validate that a value is a real tensor of finite values.

    Raises:
        InputError: If it is not, with ``name`` in the message.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        came = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"expected {name} as a real torch tensor, got {came}")
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"expected finite {name}, got NaN or infinite values")
