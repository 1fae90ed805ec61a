"""Reconstruction with a metadata-prompted diffusion prior (ContextMRI, arXiv:2501.04284)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from ctxrecon.arrays import ArrayLike
from ctxrecon.inference.batches import (
    build_output,
    spawn_generators,
)
from ctxrecon.inference.diffusion import Diffusion
from ctxrecon.inference.noise import (
    NoiseLevel,
    check_noise,
    noise_of,
    warn_of_residual,
)
from ctxrecon.inference.text_prior import StepEndCallback, TextPrior
from ctxrecon.inference.warm_start import (
    ESTIMATORS,
    StartingImage,
    check_samples,
    check_warm_start,
    choose_solver,
    remaining_timesteps,
    starting_image,
)
from ctxrecon.inference.weighting import choose_factors
from ctxrecon.loading.components import new_components, prior_components
from ctxrecon.measurement import Measurement, count_slices, prepare_measurement
from ctxrecon.operators import LinearOperator
from ctxrecon.output import Images, ReconstructionOutput, TextToImageOutput
from ctxrecon.pipelines.text_to_image import TextToImagePipeline
from ctxrecon.precision import placed
from ctxrecon.priors.factory import BLOCK_OUT_CHANNELS
from ctxrecon.solvers import Solver, make_solver

_FIELDS = ("images", "std", "samples", "residual", "coil_maps", "prompts")
"""Fields of the output, in the order of the tuple."""


class ContextMRIPipeline(TextPrior):
    """Reconstruct undersampled Cartesian k-space with a text-conditioned diffusion prior.

    Its components form an ordinary diffusers folder. :func:`build_pipeline` shows an example.
    """

    default_solver: Solver | None = None
    """Solver of calls that name none; for the default ``None``, see :meth:`__call__`."""

    @classmethod
    def from_pretrained(cls, path: Any = None, **options: Any) -> ContextMRIPipeline:
        """Load a pipeline; see :func:`load_prior`."""
        return load_prior(path, **options)

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        *,
        coil_maps: ArrayLike | None = ...,
        operator: LinearOperator | None = ...,
        guidance_scale: float = ...,
        num_inference_steps: int = ...,
        timesteps: Sequence[int] | str = ...,
        solver: Solver | str | None = ...,
        noise_std: NoiseLevel | None = ...,
        image: StartingImage | None = ...,
        strength: float | None = ...,
        generator: torch.Generator | list[torch.Generator] | None = ...,
        num_samples: int = ...,
        batch_size: int | None = ...,
        latents: ArrayLike | None = ...,
        prompt_embeds: ArrayLike | None = ...,
        output_type: Literal["pt"] = ...,
        return_dict: Literal[True] = ...,
        callback_on_step_end: StepEndCallback | None = ...,
        callback_on_step_end_tensor_inputs: Sequence[str] = ...,
    ) -> ReconstructionOutput[Tensor]: ...

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        *,
        coil_maps: ArrayLike | None = ...,
        operator: LinearOperator | None = ...,
        guidance_scale: float = ...,
        num_inference_steps: int = ...,
        timesteps: Sequence[int] | str = ...,
        solver: Solver | str | None = ...,
        noise_std: NoiseLevel | None = ...,
        image: StartingImage | None = ...,
        strength: float | None = ...,
        generator: torch.Generator | list[torch.Generator] | None = ...,
        num_samples: int = ...,
        batch_size: int | None = ...,
        latents: ArrayLike | None = ...,
        prompt_embeds: ArrayLike | None = ...,
        output_type: str = ...,
        return_dict: Literal[True] = ...,
        callback_on_step_end: StepEndCallback | None = ...,
        callback_on_step_end_tensor_inputs: Sequence[str] = ...,
    ) -> ReconstructionOutput[Images]: ...

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        *,
        coil_maps: ArrayLike | None = ...,
        operator: LinearOperator | None = ...,
        guidance_scale: float = ...,
        num_inference_steps: int = ...,
        timesteps: Sequence[int] | str = ...,
        solver: Solver | str | None = ...,
        noise_std: NoiseLevel | None = ...,
        image: StartingImage | None = ...,
        strength: float | None = ...,
        generator: torch.Generator | list[torch.Generator] | None = ...,
        num_samples: int = ...,
        batch_size: int | None = ...,
        latents: ArrayLike | None = ...,
        prompt_embeds: ArrayLike | None = ...,
        output_type: str = ...,
        return_dict: Literal[False],
        callback_on_step_end: StepEndCallback | None = ...,
        callback_on_step_end_tensor_inputs: Sequence[str] = ...,
    ) -> tuple: ...

    @torch.no_grad()
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = None,
        prompt: str | list[str] | None = None,
        *,
        coil_maps: ArrayLike | None = None,
        operator: LinearOperator | None = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 30,
        timesteps: Sequence[int] | str = "quadratic",
        solver: Solver | str | None = None,
        noise_std: NoiseLevel | None = None,
        image: StartingImage | None = None,
        strength: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_samples: int = 1,
        batch_size: int | None = None,
        latents: ArrayLike | None = None,
        prompt_embeds: ArrayLike | None = None,
        output_type: str = "pt",
        return_dict: bool = True,
        callback_on_step_end: StepEndCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ReconstructionOutput[Images] | tuple:
        """Reconstruct one slice or a batch of slices of any matrix size.

        The k-space of each slice is divided by the 99 % quantile of the magnitude of a CG-SENSE
        image of 8 iterations, which matches the prior's training scale; results are scaled back.
        Pixels outside all coil maps are zero, as in the MVUE image. Slices without signal are
        skipped and return zeros. A warning is logged for slices with a residual above 1, the
        residual of an empty image.

        Args:
            kspace: Centered complex k-space of shape ``(batch, coils, ny, nx)``,
                ``(coils, ny, nx)`` or ``(ny, nx)``, NumPy or torch; or a
                :class:`~ctxrecon.Measurement`, which includes the mask and the coil maps.
            mask: Sampling mask; see ``Measurement.from_arrays``.
            prompt: Metadata such as ``"Knee, PDFS, TR: 3150, TE: 33"``: one prompt for all slices
                or a list with one per slice. ``None`` reconstructs without text (guidance 0).
            coil_maps: Coil maps of shape ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``,
                complex, ``Σ_c |S_c|² = 1``; by default estimated from the calibration region.
            operator: Forward operator ``A`` if it is not ``M F S``, such as
                :class:`~ctxrecon.operators.NonCartesianSense`; ``kspace`` is then its data.
            guidance_scale: Guidance scale γ, at most 50. 0 ignores the prompt; 1 is plain
                conditioning and best for the shipped prior; the paper prefers 2 to 3. Values other
                than 0 and 1 double the computation.
            num_inference_steps: Number of diffusion steps; the paper uses 100, evenly spaced.
            timesteps: Spacing of the steps: "quadratic"
                (:func:`ctxrecon.priors.quadratic_timesteps`) or "scheduler" (the scheduler's own);
                or a descending list of training timesteps.
            solver: Solver, or a solver's name such as "dds" for its default (the paper's) settings;
                see :func:`ctxrecon.solvers.make_solver`. Defaults to
                :class:`~ctxrecon.solvers.PnPADMM` for one sample, and for several samples to
                :class:`~ctxrecon.solvers.DDS` started from the PnP-ADMM image.
            noise_std: Standard deviation of a complex k-space sample in the units of ``kspace``,
                real and imaginary parts together: one value, one per slice, or "auto". "auto"
                estimates it from the scan and lowers the weight of the prior if that predicts
                held-out samples better, which adds less than half of the run time (see
                :mod:`ctxrecon.inference.weighting`); it also selects DDS's data weight if the
                solver has none set. A given value replaces the solver's own, and a warning is
                logged if it does not explain the data residual. ``None`` uses the solver's setting
                or, for solvers that model noise (except DDNM), the larger of the level estimated
                from the scan and the solver's default.
            image: Image to start from instead of noise: a complex array in scan units of shape
                ``(batch or 1, ny, nx)`` or ``(ny, nx)``; the name of a baseline such as
                "l1_wavelet"; "network" for the shipped network; the name of a deterministic solver
                such as "pnp_admm", which then runs first; or a pipeline or function that computes
                it from a :class:`~ctxrecon.Measurement`.
            strength: Amount of noise added to ``image``, as in diffusers: the fraction of the
                timesteps that run, counted from the least noisy; 0 to 1 (default: 0.3).
            generator: Random generator, or one per slice. Each posterior sample gets a generator
                seeded from its slice's, so results do not depend on the batching.
            num_samples: Posterior samples per slice.
            batch_size: Images denoised at once; guidance doubles it. By default as many as fit in
                about 2.5 GB in float32 (ten 320 × 320 images with the shipped prior), at least one.
            latents: Initial noise of shape ``(batch · num_samples, 2, NY, NX)``, ordered by slice,
                with the matrix padded to the network's multiple; NumPy or torch.
            prompt_embeds: Text encoder states of shape ``(batch or 1, tokens, width)`` that replace
                ``prompt``; NumPy or torch.
            output_type: Type of the images: "pt", "np" (complex) or "pil" (magnitude).
            return_dict: If ``False``, return the tuple (images, std, samples, residual, coil_maps,
                prompts).
            callback_on_step_end: Function ``(pipe, step, timestep, tensors) -> tensors or None``,
                called after each step of each batch; returned ``latents`` replace its own.
            callback_on_step_end_tensor_inputs: Tensors passed to it: "latents" (``x_t``) and
                "images" (current estimate, complex ``(images, ny, nx)``, in scan units).

        Returns:
            ``images``, the mean of the complex samples; ``std``, their standard deviation
            ``√(Σ_k |x_k − x̄|² / (K − 1))`` over the K samples, real and imaginary parts together,
            and ``samples`` (both ``None`` for one sample); ``residual``, ``‖A x − y‖/‖y‖`` of
            ``images`` for each slice.

        Raises:
            InputError: If an argument is malformed or the result contains NaN or infinite values.
        """
        # 1. Check the arguments
        solver = self.default_solver if solver is None else solver
        solver, image = choose_solver(solver, image, num_samples)
        check_warm_start(image, strength, solver)
        check_samples(solver, num_samples, batch_size)
        slices = count_slices(kspace, operator)
        check_noise(noise_std, slices, solver, image)
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
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )

        # 2. Timesteps, and the prompt as text states
        prompts = [prompt] * slices if isinstance(prompt, str) else prompt
        steps = self.choose_timesteps(num_inference_steps, timesteps)
        # The prompts come first: estimating the coil maps of the measurement may take long.
        conditions = self.encode_conditions(prompts, prompt_embeds, guidance_scale, slices)

        # 3. The measurement with its coil maps, and its intensity scale
        device = self._execution_device
        measurement = prepare_measurement(kspace, mask, coil_maps, operator=operator).to(device)
        work, gain = measurement.normalized()
        scale = work.intensity_scale()
        noise = noise_of(noise_std, solver, work, scale, gain)

        # 4. Initial noise of each sample, padded to a size that the network accepts
        crop = self.padding(work.image_shape)
        count = slices * num_samples
        generators = spawn_generators(generator, slices, num_samples)
        latents = self.prepare_latents(
            (count, *crop.domain_shape[1:]), generators, latents=latents, device=device
        )
        diffusion = Diffusion(self, work, scale, conditions, crop, batch_size)

        # 5. The weight of the prior, if neither the solver nor the call sets it
        factors = None
        factors = choose_factors(diffusion, solver, steps, noise, noise_std)
        factors = None if factors is None else factors.repeat_interleave(num_samples)

        # 6. The image to start from instead of noise
        start = None
        if isinstance(image, str) and image in ESTIMATORS:
            first = make_solver(image)
            level = noise_of(noise_std, first, work, scale, gain)
            weights = choose_factors(diffusion, first, steps, level, noise_std)
            start = diffusion.run(
                "estimate", first, steps, latents[::num_samples], level, factors=weights
            )
        elif image is not None:
            start = starting_image(image, work)
        if start is not None:
            steps = remaining_timesteps(steps, strength)

        # 7. The solver's loop over the timesteps, for each batch of images
        samples = diffusion.run(
            "reconstruction" if num_samples == 1 else "samples",
            solver,
            steps,
            latents,
            noise,
            factors=factors,
            generators=generators,
            start=start,
            callback=callback_on_step_end,
            tensor_inputs=callback_on_step_end_tensor_inputs,
        )

        # 8. Mean, standard deviation and residual of the samples
        self.maybe_free_model_hooks()
        output = build_output(samples, measurement, output_type, prompts=prompts)
        if noise_std is not None and noise is not None:
            warn_of_residual(measurement, output.residual, noise * gain)
        return output if return_dict else tuple(getattr(output, name) for name in _FIELDS)

    def generate(
        self, prompt: str | list[str] | None = None, **options: Any
    ) -> TextToImageOutput[Any]:
        """Sample images from the prior; see :class:`~ctxrecon.pipelines.TextToImagePipeline`.

        Args:
            prompt: Prompt or list of prompts; ``None`` samples without text.
            **options: Keyword arguments of that pipeline's call.
        """
        pipe = TextToImagePipeline(**self.components)
        pipe.set_progress_bar_config(**getattr(self, "_progress_bar_config", {}))
        return pipe(prompt, **options)


def load_prior(
    path: str | Path | None = None,
    *,
    subfolder: str | None = None,
    scheduler: str | Path | None = None,
    text_encoder: str | Path | None = None,
    tokenizer: str | Path | None = None,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
) -> ContextMRIPipeline:
    """Load a pipeline with a trained diffusion prior.

    Args:
        path: Folder or hub repository (``"owner/name"``); by default the prior shipped with the
            package. It is either a diffusers pipeline folder (``unet/``, ``scheduler/``,
            ``text_encoder/``, ``tokenizer/``) or has the layout of the published
            ``DHCAI/ContextMRI``, with U-Nets in ``fastmri/`` and ``skm-tea/``.
        subfolder: Subfolder of the U-Net, required if there are several.
        scheduler: Folder with ``scheduler_config.json``, if ``path`` has no ``scheduler/``.
        text_encoder: Folder or hub repository, if ``path`` has no ``text_encoder/``.
        tokenizer: Folder or hub repository, if ``path`` has no ``tokenizer/``.
        dtype: Precision of U-Net and text encoder: float32, bfloat16 or float16, or its name.
        device: Device of the pipeline (default: CPU).

    Raises:
        InputError: If a component is missing, damaged or incompatible.
    """
    place = placed(dtype, device)
    components = prior_components(
        path,
        subfolder=subfolder,
        scheduler=scheduler,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        dtype=dtype,
    )
    return ContextMRIPipeline(**components).to(place)


def build_pipeline(
    *,
    block_out_channels: tuple[int, ...] = BLOCK_OUT_CHANNELS,
    sample_size: int = 128,
    seed: int = 0,
) -> ContextMRIPipeline:
    """Build a pipeline of small, randomly initialized networks for training or testing.

    Example:
        >>> import torch
        >>> from ctxrecon.pipelines import build_pipeline
        >>> pipe = build_pipeline(block_out_channels=(32, 64), sample_size=16)
        >>> pipe(torch.ones(16, 16, dtype=torch.complex64), num_inference_steps=2).images.shape
        torch.Size([1, 16, 16])

    Args:
        block_out_channels: Channels of each U-Net level; see :func:`ctxrecon.priors.build_unet`.
        sample_size: Matrix size for training.
        seed: Random seed of the initial weights.
    """
    components = new_components(
        block_out_channels=block_out_channels, sample_size=sample_size, seed=seed
    )
    return ContextMRIPipeline(**components)
