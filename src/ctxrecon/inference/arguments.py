"""Checks of the arguments of a pipeline call, all made before any work is done."""

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
"""Ten times the strongest of Ho and Salimans (arXiv:2207.12598: w = 4, which is γ = 5).

The difference of two predictions of unit noise is multiplied by it, errors of the network included.
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
        callback_on_step_end: as in the call.
        callback_on_step_end_tensor_inputs: as in the call.

    Raises:
        InputError: for each, in a sentence of its own.
    """
    check_output_type(output_type)
    check_number("guidance_scale", guidance_scale, least=0)
    if guidance_scale > LARGEST_GUIDANCE:
        raise InputError(
            f"expected a guidance_scale of {LARGEST_GUIDANCE:g} or less, got {guidance_scale:g}: "
            "1 to 3 serve a reconstruction"
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
            f"expected callback_on_step_end_tensor_inputs out of {callback_tensor_inputs}, got "
            f"{names!r}"
        )
    check_generator(generator, num_slices)
    if prompt is not None and prompt_embeds is not None:
        raise InputError("expected prompt or prompt_embeds, got both: leave one of them out")
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
    """Refuse anything but a generator, or a list of one for each slice.

    Raises:
        InputError: in a sentence of its own for each.
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
    """Refuse anything but a real tensor of finite values.

    Raises:
        InputError: with the name and what came.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        came = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"expected {name} as a real torch tensor, got {came}")
    if not bool(torch.isfinite(value).all()):
        raise InputError(f"expected finite {name}, got NaN or infinite values")
