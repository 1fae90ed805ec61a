"""Reconstruction with a metadata-prompted diffusion prior (ContextMRI, arXiv:2501.04284)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DConditionModel
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ctxrecon.errors import InputError
from ctxrecon.metadata import canonical_prompt
from ctxrecon.operators import Crop
from ctxrecon.pipelines.arguments import check_arguments, check_count
from ctxrecon.pipelines.inputs import ArrayLike, prepare_measurement
from ctxrecon.pipelines.output import ReconstructionOutput, convert_images
from ctxrecon.pipelines.samples import (
    count_slices,
    operator_of,
    spawn_generators,
    summarise,
    to_device,
    training_scale,
)
from ctxrecon.priors import TextDenoiser, size_multiple
from ctxrecon.priors.tokenizer import check_prompt_length
from ctxrecon.solvers import Solver, ddim_sample, make_solver

logger = logging.getLogger(__name__)

StepEndCallback = Callable[["ContextMRIPipeline", int, int, dict[str, Tensor]], "dict | None"]


class ContextMRIPipeline(DiffusionPipeline):
    """Reconstructs undersampled Cartesian k-space with a text-conditioned diffusion prior.

    All components are stock classes, so a checkpoint is an ordinary diffusers folder.

    Args:
        unet: two channels in and out (real, imaginary), conditioned on CLIP text states.
        scheduler: its ``alphas_cumprod``, ``prediction_type`` and timestep spacing are used.
        text_encoder: turns prompts into states.
        tokenizer: of the text encoder.
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

    @torch.no_grad()
    def __call__(
        self,
        kspace: ArrayLike,
        mask: ArrayLike | None = None,
        prompt: str | list[str] | None = None,
        *,
        coil_maps: ArrayLike | None = None,
        guidance_scale: float = 2.0,
        num_inference_steps: int = 50,
        timesteps: Sequence[int] | None = None,
        solver: Solver | str | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_samples: int = 1,
        batch_size: int | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
        callback_on_step_end: StepEndCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ReconstructionOutput | tuple:
        """Reconstruct one slice or a batch of slices of any matrix size.

        The k-space of each slice is divided by the 99 % quantile of the magnitude of a CG-SENSE
        image of 8 iterations, which brings it to the prior's training scale; results are scaled
        back. Pixels that no coil sees are zero, as in the MVUE image.

        Args:
            kspace: complex and centred, ``(batch, coils, ny, nx)``, ``(coils, ny, nx)`` or
                ``(ny, nx)``; NumPy or torch.
            mask: where k-space was sampled; see :func:`ctxrecon.pipelines.prepare_measurement`.
            prompt: metadata such as ``"Knee, PDFS, TR: 3150, TE: 33"``: one for all slices, or a
                list with one for each. ``None`` reconstructs without text (guidance 0).
            coil_maps: complex, ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``, with
                ``Σ_c |S_c|² = 1``; estimated from the calibration region if not given.
            guidance_scale: γ; 0 ignores the prompt, 1 is plain conditioning, 2 to 3 served best
                in the paper.
            num_inference_steps: diffusion steps; the paper takes 100.
            timesteps: training timesteps to take in place of ``num_inference_steps``, descending,
                such as those of :func:`ctxrecon.priors.quadratic_timesteps`.
            solver: a solver, or the name of one for its default settings, such as "dps"; see
                :func:`ctxrecon.solvers.make_solver`. :class:`ctxrecon.solvers.DDS` with the
                paper's settings by default.
            generator: source of randomness: one, or one for each slice. Every posterior sample
                gets a generator seeded from its slice's, so results do not depend on how slices
                and samples are batched.
            num_samples: posterior samples of each slice.
            batch_size: images denoised at once, all of them by default; guidance doubles it.
            latents: starting noise ``(batch · num_samples, 2, NY, NX)``, slice by slice, at the
                matrix size padded to the network's multiple.
            prompt_embeds: ``(batch or 1, tokens, width)`` text states in place of ``prompt``.
            output_type: "pt", "np" (complex) or "pil" (magnitude).
            return_dict: ``False`` gives the tuple (images, std, samples, residual, coil_maps,
                prompts).
            callback_on_step_end: ``(pipe, step, timestep, tensors) -> tensors or None``, called
                after each step of each batch of images; ``latents`` in what it returns replace
                the current ones.
            callback_on_step_end_tensor_inputs: which tensors it sees: "latents" (``x_t``), and
                "images" (the current estimate, ``(images, ny, nx)`` complex, in scan units).

        Returns:
            ``images`` the mean of the complex samples; ``std`` their standard deviation
            ``√(Σ_k |x_k − x̄|² / (K − 1))`` over the K samples, real and imaginary parts together;
            ``samples`` themselves (both ``None`` for one sample); ``residual`` ``‖A x − y‖/‖y‖``
            of ``images`` for each slice.

        Raises:
            InputError: for each malformed argument, in a sentence of its own.
        """
        solver = make_solver(solver)
        if getattr(solver, "couples_batch", False) and (num_samples > 1 or batch_size is not None):
            raise InputError(
                f"{type(solver).__name__} takes the slices of a volume in one batch: draw one "
                "sample at a time, and leave batch_size out"
            )
        slices = count_slices(kspace)
        self.check_inputs(
            slices,
            prompt=prompt,
            prompt_embeds=prompt_embeds,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            generator=generator,
            num_samples=num_samples,
            batch_size=batch_size,
            output_type=output_type,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
        prompts = [prompt] * slices if isinstance(prompt, str) else prompt
        # The prompts come before the measurement, whose coil maps may take long to estimate.
        embeds, uncond_embeds, gamma = self._encode_conditions(
            prompts, prompt_embeds, guidance_scale, slices
        )
        device = self._execution_device
        measurement = to_device(prepare_measurement(kspace, mask, coil_maps), device)
        if timesteps is None:
            timesteps = self.set_timesteps(num_inference_steps)
        scale = training_scale(measurement)
        crop = self._crop(measurement.operator.domain_shape[1:])
        count = slices * num_samples
        generators = spawn_generators(generator, slices, num_samples)
        latents = self.prepare_latents(
            (count, *crop.domain_shape[1:]), generators, latents=latents, device=device
        )

        per_batch = min(batch_size or count, count)
        samples: list[Tensor] = []
        with self.progress_bar(total=math.ceil(count / per_batch) * len(timesteps)) as bar:
            for first in range(0, count, per_batch):
                images = range(first, min(first + per_batch, count))
                owner = torch.tensor([image // num_samples for image in images], device=device)
                denoiser = TextDenoiser(
                    self.unet,
                    self.scheduler,
                    None if embeds is None else embeds[owner],
                    uncond_embeds,
                    gamma,
                )
                factor = scale[owner, None, None]
                padded = solver(
                    denoiser,
                    operator_of(measurement, owner) @ crop,
                    measurement.kspace[owner] / factor[..., None],
                    timesteps=timesteps,
                    generator=[generators[image] for image in images],
                    latents=latents[first : first + per_batch],
                    callback=self._step_callback(
                        bar,
                        callback_on_step_end,
                        callback_on_step_end_tensor_inputs,
                        crop,
                        factor,
                    ),
                )
                samples.append(crop(padded) * factor)
        output = summarise(torch.cat(samples), num_samples, measurement, output_type, prompts)
        self.maybe_free_model_hooks()
        if return_dict:
            return output
        return (
            output.images,
            output.std,
            output.samples,
            output.residual,
            output.coil_maps,
            output.prompts,
        )

    @torch.no_grad()
    def generate(
        self,
        prompt: str | list[str] | None = None,
        *,
        num_images_per_prompt: int = 1,
        height: int | None = None,
        width: int | None = None,
        guidance_scale: float = 2.0,
        num_inference_steps: int = 50,
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pt",
    ) -> ReconstructionOutput:
        """Draw images from the prior alone, by DDIM.

        Args:
            prompt: one or several; ``None`` draws without text.
            num_images_per_prompt: images of each prompt.
            height: ``ny``, any; the network's ``sample_size`` by default.
            width: ``nx``, likewise.
            guidance_scale: γ.
            num_inference_steps: diffusion steps.
            eta: η of DDIM, 0 (deterministic) to 1.
            generator: one, or one for each prompt.
            output_type: "pt", "np" (complex) or "pil" (magnitude).

        Returns:
            ``images`` ``(prompts · num_images_per_prompt, ny, nx)``, prompt by prompt, at the
            training scale (99 % quantile of the magnitude about 1), with their ``prompts``.

        Raises:
            InputError: for each malformed argument, in a sentence of its own.
        """
        texts = [prompt] if isinstance(prompt, str) else prompt
        number = 1 if texts is None else len(texts)
        self.check_inputs(
            number,
            prompt=prompt,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            generator=generator,
            num_samples=num_images_per_prompt,
            output_type=output_type,
        )
        if not 0 <= eta <= 1:
            raise InputError(f"expected eta between 0 and 1, got {eta}")
        default = self.unet.config.sample_size or 64
        size = (default if height is None else height, default if width is None else width)
        for name, value in zip(("height", "width"), size, strict=True):
            check_count(name, value)

        embeds, uncond_embeds, gamma = self._encode_conditions(texts, None, guidance_scale, number)
        if embeds is not None:
            embeds = embeds.repeat_interleave(num_images_per_prompt, dim=0)
        timesteps = self.set_timesteps(num_inference_steps)
        crop = self._crop(size)
        shape = (number * num_images_per_prompt, *crop.domain_shape[1:])
        generators = spawn_generators(generator, number, num_images_per_prompt)
        device = self._execution_device
        with self.progress_bar(total=len(timesteps)) as bar:
            padded = ddim_sample(
                TextDenoiser(self.unet, self.scheduler, embeds, uncond_embeds, gamma),
                (shape[0], shape[1], shape[2]),
                timesteps=timesteps,
                eta=eta,
                generator=generators,
                latents=self.prepare_latents(shape, generators, device=device),
                callback=self._step_callback(bar, None, (), crop),
            )
        self.maybe_free_model_hooks()
        names = None if texts is None else [t for t in texts for _ in range(num_images_per_prompt)]
        return ReconstructionOutput(images=convert_images(crop(padded), output_type), prompts=names)

    def check_inputs(self, num_slices: int, **arguments: Any) -> None:
        """Refuse malformed arguments of a call before any work is done.

        Args:
            num_slices: how many slices, or prompts to generate from, there are.
            **arguments: see :func:`ctxrecon.pipelines.arguments.check_arguments`.

        Raises:
            InputError: for each, in a sentence of its own.
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
        """Text states ``(prompts, tokens, width)`` of prompts in the model's own wording.

        Raises:
            InputError: a prompt that the tokenizer would cut short.
        """
        texts = [canonical_prompt(text) if text.strip() else "" for text in prompts]
        check_prompt_length(self.tokenizer, texts)
        tokens = self.tokenizer(
            texts,
            padding="max_length",
            max_length=self.text_encoder.config.max_position_embeddings,
            return_tensors="pt",
        )
        return self.text_encoder(tokens.input_ids.to(self._execution_device))[0]

    def set_timesteps(self, num_inference_steps: int) -> list[int]:
        """Training timesteps, descending, spaced as the scheduler says."""
        self.scheduler.set_timesteps(num_inference_steps)
        return [int(t) for t in self.scheduler.timesteps]

    def prepare_latents(
        self,
        shape: tuple[int, ...],
        generators: list[torch.Generator],
        *,
        latents: Tensor | None = None,
        device: torch.device,
    ) -> Tensor:
        """Starting noise of unit variance in each channel.

        Args:
            shape: ``(images, NY, NX)``, padded to the network's multiple.
            generators: one for each image.
            latents: used instead when given.
            device: where the result lives.

        Returns:
            ``(images, 2, NY, NX)`` float32.

        Raises:
            InputError: latents of another shape.
        """
        full = (shape[0], 2, *shape[1:])
        if latents is None:
            return randn_tensor(full, generator=generators, device=device, dtype=torch.float32)
        if tuple(latents.shape) != full:
            raise InputError(f"expected latents of shape {full}, got {tuple(latents.shape)}")
        return latents.to(device, torch.float32)

    def _encode_conditions(
        self,
        prompts: Sequence[str] | None,
        prompt_embeds: Tensor | None,
        guidance_scale: float,
        number: int,
    ) -> tuple[Tensor | None, Tensor | None, float]:
        """Text states of each slice, states of the empty prompt, and γ."""
        if prompts is None and prompt_embeds is None and guidance_scale != 0:
            logger.info("no prompt given: guidance_scale is 0 in place of %g", guidance_scale)
            guidance_scale = 0.0
        embeds = None
        if guidance_scale != 0:
            embeds = self.encode_prompt(prompts) if prompts is not None else prompt_embeds
            assert embeds is not None
            embeds = embeds.to(self._execution_device).expand(number, -1, -1)
        uncond_embeds = None if guidance_scale == 1 else self.encode_prompt([""])
        return embeds, uncond_embeds, guidance_scale

    def _crop(self, size: Sequence[int]) -> Crop:
        """From the size that the network takes to the size of the scan."""
        multiple = size_multiple(self.unet)
        full_ny, full_nx = (math.ceil(n / multiple) * multiple for n in size)
        return Crop((1, full_ny, full_nx), (size[0], size[1]))

    def _step_callback(
        self,
        bar: Any,
        callback: StepEndCallback | None,
        tensor_inputs: Sequence[str],
        crop: Crop,
        scale: Tensor | float = 1.0,
    ) -> Callable[[int, int, Tensor, Tensor], Tensor | None]:
        """What the solver calls: moves the progress bar, then asks the user's callback."""

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
