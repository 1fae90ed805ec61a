"""Text-to-image sampling from the prior, without a measurement."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from ctxrecon.checks import check_number, check_whole
from ctxrecon.errors import InputError
from ctxrecon.inference.batches import check_finite, named_progress_bar, spawn_generators
from ctxrecon.inference.text_prior import TextPrior
from ctxrecon.output import Images, TextToImageOutput, convert_images
from ctxrecon.priors import TextDenoiser
from ctxrecon.solvers import ddim_sample


class TextToImagePipeline(TextPrior):
    """Sample images from a text-conditioned diffusion prior, without a measurement.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import TextToImagePipeline, build_pipeline
        >>> components = build_pipeline(block_out_channels=(32, 64), sample_size=16).components
        >>> output = TextToImagePipeline(**components)("Knee, PDFS", num_inference_steps=2)
        >>> output.images.shape
        torch.Size([1, 16, 16])
    """

    @overload
    def __call__(
        self,
        prompt: str | list[str] | None = ...,
        *,
        num_images_per_prompt: int = ...,
        height: int | None = ...,
        width: int | None = ...,
        guidance_scale: float = ...,
        num_inference_steps: int = ...,
        eta: float = ...,
        generator: torch.Generator | list[torch.Generator] | None = ...,
        output_type: Literal["pt"] = ...,
    ) -> TextToImageOutput[Tensor]: ...

    @overload
    def __call__(
        self,
        prompt: str | list[str] | None = ...,
        *,
        num_images_per_prompt: int = ...,
        height: int | None = ...,
        width: int | None = ...,
        guidance_scale: float = ...,
        num_inference_steps: int = ...,
        eta: float = ...,
        generator: torch.Generator | list[torch.Generator] | None = ...,
        output_type: str = ...,
    ) -> TextToImageOutput[Images]: ...

    @torch.no_grad()
    def __call__(
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
    ) -> TextToImageOutput[Images]:
        """Sample images with DDIM.

        Args:
            prompt: Prompt or list of prompts; ``None`` samples without text.
            num_images_per_prompt: Number of images per prompt.
            height: Number of rows ``ny``; defaults to the network's ``sample_size``.
            width: Number of columns ``nx``; defaults to the network's ``sample_size``.
            guidance_scale: Guidance scale γ.
            num_inference_steps: Number of diffusion steps.
            eta: DDIM's η, from 0 (deterministic) to 1 (ancestral).
            generator: Random generator, or one per prompt.
            output_type: Type of the images: "pt", "np" (complex) or "pil" (magnitude).

        Returns:
            ``images`` of shape ``(prompts · num_images_per_prompt, ny, nx)``, ordered by prompt, at
            the training scale (99 % quantile of the magnitude about 1), and their ``prompts``.

        Raises:
            InputError: If an argument is malformed.
        """
        texts = [prompt] if isinstance(prompt, str) else prompt
        if isinstance(texts, list | tuple) and not texts:
            raise InputError("expected at least one prompt, got an empty list: pass None for none")
        number = len(texts) if isinstance(texts, list | tuple) else 1
        self.check_inputs(
            number,
            prompt=prompt,
            guidance_scale=guidance_scale,
            num_inference_steps=num_inference_steps,
            generator=generator,
            num_samples=num_images_per_prompt,
            output_type=output_type,
        )
        check_number("eta", eta, least=0, most=1)
        default = self.unet.config.sample_size or 64
        size = (default if height is None else height, default if width is None else width)
        for name, value in zip(("height", "width"), size, strict=True):
            check_whole(name, value)

        embeds, uncond_embeds, gamma = self.encode_conditions(texts, None, guidance_scale, number)
        if embeds is not None:
            embeds = embeds.repeat_interleave(num_images_per_prompt, dim=0)
        timesteps = self.set_timesteps(num_inference_steps)
        crop = self.padding(size)
        shape = (number * num_images_per_prompt, *crop.domain_shape[1:])
        generators = spawn_generators(generator, number, num_images_per_prompt)
        device = self._execution_device
        with named_progress_bar(self, "images", len(timesteps)) as bar:
            padded = ddim_sample(
                TextDenoiser(self.unet, self.scheduler, embeds, uncond_embeds, gamma),
                (shape[0], shape[1], shape[2]),
                timesteps=timesteps,
                eta=eta,
                generator=generators,
                latents=self.prepare_latents(shape, generators, device=device),
                callback=self.step_callback(bar, None, (), crop),
            )
        self.maybe_free_model_hooks()
        check_finite(padded)
        names = None if texts is None else [t for t in texts for _ in range(num_images_per_prompt)]
        return TextToImageOutput(images=convert_images(crop(padded), output_type), prompts=names)
