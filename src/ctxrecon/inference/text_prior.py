"""Base class of the pipelines with a text-conditioned diffusion prior of complex images."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ctxrecon.arrays import ArrayLike, as_tensor
from ctxrecon.checks import is_whole
from ctxrecon.errors import InputError
from ctxrecon.inference.arguments import check_arguments, check_tensor
from ctxrecon.inference.prompts import prompt_tokens
from ctxrecon.operators import Crop
from ctxrecon.priors import quadratic_timesteps, size_multiple
from ctxrecon.solvers import check_timesteps

logger = logging.getLogger(__name__)

StepEndCallback = Callable[["TextPrior", int, int, dict[str, Tensor]], "dict | None"]


class TextPrior(DiffusionPipeline):
    """Components of a text-conditioned diffusion prior, and the steps that use them.

    All components are stock classes, so a checkpoint is an ordinary diffusers folder.

    Args:
        unet: U-Net with two input and output channels (real, imaginary), conditioned on CLIP text
            encoder states.
        scheduler: Scheduler, of which ``alphas_cumprod``, ``prediction_type`` and the timestep
            spacing are used.
        text_encoder: Text encoder of the prompts.
        tokenizer: Tokenizer of the text encoder.
    """

    model_cpu_offload_seq = "text_encoder->unet"
    _callback_tensor_inputs = ["latents", "images"]  # noqa: RUF012 (read so by diffusers)

    unet: UNet2DConditionModel
    scheduler: SchedulerMixin
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: SchedulerMixin,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
    ) -> None:
        super().__init__()
        self.register_modules(
            unet=unet, scheduler=scheduler, text_encoder=text_encoder, tokenizer=tokenizer
        )

    def check_inputs(self, num_slices: int, **arguments: Any) -> None:
        """Validate the arguments of a call before any computation.

        Args:
            num_slices: Number of slices, or of prompts for sampling.
            **arguments: Arguments of :func:`ctxrecon.inference.arguments.check_arguments`.

        Raises:
            InputError: If an argument is malformed.
        """
        config = self.unet.config
        check_arguments(
            num_slices,
            num_train_timesteps=self.scheduler.config.num_train_timesteps,
            text_width=config.encoder_hid_dim or config.cross_attention_dim,
            callback_tensor_inputs=self._callback_tensor_inputs,
            **arguments,
        )

    def encode_prompt(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts as text states ``(prompts, tokens, width)``, in the wording of training.

        Raises:
            InputError: If a prompt exceeds the tokenizer's limit.
        """
        tokens = prompt_tokens(self.tokenizer, self.text_encoder, prompts)
        return self.text_encoder(tokens.to(self._execution_device))[0]

    def set_timesteps(self, num_inference_steps: int) -> list[int]:
        """Return descending training timesteps with the scheduler's own spacing."""
        self.scheduler.set_timesteps(num_inference_steps)
        return [int(t) for t in self.scheduler.timesteps]

    def choose_timesteps(
        self, num_inference_steps: int, timesteps: Sequence[int] | str
    ) -> list[int]:
        """Return descending training timesteps with a named spacing, or validate given ones.

        Raises:
            InputError: If the name is unknown, or the timesteps are not descending or out of range.
        """
        total = self.scheduler.config.num_train_timesteps
        if not isinstance(timesteps, str):
            if isinstance(timesteps, Tensor):
                timesteps = timesteps.tolist()
            if not isinstance(timesteps, Iterable) or not all(is_whole(t) for t in timesteps):
                raise InputError(
                    "expected timesteps as a list of whole numbers, 'quadratic' or 'scheduler', "
                    f"got {timesteps!r}"
                )
            check_timesteps(timesteps, total)
            return [int(t) for t in timesteps]
        if timesteps == "quadratic":
            return quadratic_timesteps(num_inference_steps, start=total - 1, total=total)
        if timesteps == "scheduler":
            return self.set_timesteps(num_inference_steps)
        raise InputError(
            f"expected timesteps as numbers, 'quadratic' or 'scheduler', got {timesteps!r}"
        )

    def prepare_latents(
        self,
        shape: tuple[int, ...],
        generators: list[torch.Generator],
        *,
        latents: ArrayLike | None = None,
        device: torch.device,
    ) -> Tensor:
        """Return initial noise of unit variance in each channel.

        Args:
            shape: Shape ``(images, NY, NX)``, padded to the network's multiple.
            generators: One random generator per image.
            latents: Noise to use instead, NumPy or torch.
            device: Device of the result.

        Returns:
            Noise of shape ``(images, 2, NY, NX)``, float32.

        Raises:
            InputError: If latents have the wrong shape or type or are not finite.
        """
        full = (shape[0], 2, *shape[1:])
        if latents is None:
            return randn_tensor(full, generator=generators, device=device, dtype=torch.float32)
        latents = as_tensor(latents, "latents")
        if tuple(latents.shape) != full:
            raise InputError(f"expected latents of shape {full}, got {tuple(latents.shape)}")
        check_tensor("latents", latents)
        return latents.to(device, torch.float32)

    def encode_conditions(
        self,
        prompts: Sequence[str] | None,
        prompt_embeds: ArrayLike | None,
        guidance_scale: float,
        number: int,
    ) -> tuple[Tensor | None, Tensor | None, float]:
        """Return the text states of each slice, states of the empty prompt, and γ."""
        if prompts is None and prompt_embeds is None and guidance_scale != 0:
            logger.info("no prompt given: guidance_scale is 0 instead of %g", guidance_scale)
            guidance_scale = 0.0
        embeds = None
        if guidance_scale != 0:
            if prompts is not None:
                embeds = self.encode_prompt(prompts)
            else:
                assert prompt_embeds is not None
                embeds = as_tensor(prompt_embeds, "prompt_embeds")
            embeds = embeds.to(self._execution_device).expand(number, -1, -1)
        uncond_embeds = None if guidance_scale == 1 else self.encode_prompt([""])
        return embeds, uncond_embeds, guidance_scale

    def padding(self, size: Sequence[int]) -> Crop:
        """Return the crop from the network's image size to that of the scan."""
        multiple = size_multiple(self.unet)
        full_ny, full_nx = (math.ceil(n / multiple) * multiple for n in size)
        return Crop((1, full_ny, full_nx), (size[0], size[1]))

    def step_callback(
        self,
        bar: Any,
        callback: StepEndCallback | None,
        tensor_inputs: Sequence[str],
        crop: Callable[[Tensor], Tensor],
        scale: Tensor | float = 1.0,
    ) -> Callable[[int, int, Tensor, Tensor], Tensor | None]:
        """Return a solver callback that updates the progress bar and calls the user's callback."""

        def on_step_end(step: int, t: int, latents: Tensor, x0: Tensor) -> Tensor | None:
            bar.update()
            if callback is None:
                return None
            tensors = {"latents": latents}
            if "images" in tensor_inputs:
                tensors["images"] = crop(x0) * scale
            result = callback(self, step, t, {name: tensors[name] for name in tensor_inputs})
            return (result or {}).get("latents")

        return on_step_end
