"""Reconstruction with a metadata-prompted diffusion prior (ContextMRI, arXiv:2501.04284)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor

from ctxrecon.arrays import ArrayLike
from ctxrecon.checks import as_device
from ctxrecon.inference.batches import (
    conclude,
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
from ctxrecon.priors.factory import BLOCK_OUT_CHANNELS
from ctxrecon.solvers import Solver, make_solver

_FIELDS = ("images", "std", "samples", "residual", "coil_maps", "prompts")
"""Of the output as a tuple."""


class ContextMRIPipeline(TextPrior):
    """Reconstructs undersampled Cartesian k-space with a text-conditioned diffusion prior.

    The components are those of :class:`~ctxrecon.inference.text_prior.TextPrior`, all of
    them stock classes, so a checkpoint is an ordinary diffusers folder.
    """

    default_solver: Solver | None = None
    """What runs where a call names no solver; see :meth:`__call__` if ``None``."""

    @classmethod
    def from_pretrained(cls, path: Any = None, **options: Any) -> ContextMRIPipeline:
        """:func:`load_prior`."""
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
        strength: float = ...,
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
        strength: float = ...,
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
        strength: float = ...,
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
        strength: float = 0.3,
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
        image of 8 iterations, which brings it to the prior's training scale; results are scaled
        back. Pixels that no coil sees are zero, as in the MVUE image, and so are slices without
        signal, which are left out of all work. A slice whose residual is above 1, that of an empty
        image, is warned of.

        Args:
            kspace: complex and centred, ``(batch, coils, ny, nx)``, ``(coils, ny, nx)`` or
                ``(ny, nx)``; NumPy or torch. Or a measurement of
                :class:`~ctxrecon.Measurement`, which holds mask and coil maps.
            mask: where k-space was sampled; see ``Measurement.from_arrays``.
            prompt: metadata such as ``"Knee, PDFS, TR: 3150, TE: 33"``: one for all slices, or a
                list with one for each. ``None`` reconstructs without text (guidance 0).
            coil_maps: complex, ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``, with
                ``Σ_c |S_c|² = 1``; estimated from the calibration region if not given.
            operator: ``A``, where it is another one than ``M F S``, such as
                :class:`~ctxrecon.operators.NonCartesianSense`; ``kspace`` is then its data.
            guidance_scale: γ; 0 ignores the prompt, 1 is plain conditioning and the best of the
                shipped prior, 2 to 3 served best in the paper. Any but 0 and 1 doubles the work.
                50 at most, ten times the strongest that Ho and Salimans tried.
            num_inference_steps: diffusion steps; the paper takes 100, evenly spaced.
            timesteps: how ``num_inference_steps`` are spaced: "quadratic"
                (:func:`ctxrecon.priors.quadratic_timesteps`), or "scheduler" as the scheduler
                says; or the training timesteps themselves, descending.
            solver: a solver, or the name of one for its default settings, such as "dds", which
                are the paper's; see :func:`ctxrecon.solvers.make_solver`. By default
                :class:`~ctxrecon.solvers.PnPADMM` for one image, and for several samples
                :class:`~ctxrecon.solvers.DDS` started from its image.
            noise_std: standard deviation of a complex k-space sample in the units of ``kspace``,
                real and imaginary parts together: one, one for each slice, or "auto" to estimate
                it from the scan and to trust the prior less than that says where samples that are
                held back are predicted better so, which takes less than half as long again (see
                :mod:`ctxrecon.inference.weighting`); then DDS's data weight is chosen likewise,
                unless the solver was given one. It replaces the solver's own, which must have one,
                and a result whose data residual it does not explain is warned of. ``None`` takes
                the level that a solver was made with, or else, for a solver that takes noise (DDNM
                only if it is given), what is estimated from the scan, at least the solver's
                default.
            image: an estimate to start from in place of noise: complex, ``(batch or 1, ny, nx)``
                or ``(ny, nx)``, in scan units; the name of a baseline such as "l1_wavelet";
                "network", the one that comes with the package; a solver that draws nothing,
                "pnp_admm" say, which then runs first; or a pipeline, or any function, that makes
                it of a :class:`~ctxrecon.Measurement`.
            strength: how much noise ``image`` gets, as in diffusers: the share of the timesteps
                that are left, the least noisy ones; above 0 and up to 1.
            generator: source of randomness: one, or one for each slice. Every posterior sample
                gets a generator seeded from its slice's, so results do not depend on how slices
                and samples are batched.
            num_samples: posterior samples of each slice.
            batch_size: images denoised at once; guidance doubles it. By default what takes about
                2.5 GB in float32 (ten images of 320 × 320 with the shipped prior), or one.
            latents: starting noise ``(batch · num_samples, 2, NY, NX)``, slice by slice, at the
                matrix size padded to the network's multiple; NumPy or torch.
            prompt_embeds: ``(batch or 1, tokens, width)`` text states in place of ``prompt``; NumPy
                or torch.
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
            InputError: for each malformed argument, in a sentence of its own; NaN or infinite
                values in the result.
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
        # The prompts come before the measurement, whose coil maps may take long to estimate.
        conditions = self.encode_conditions(prompts, prompt_embeds, guidance_scale, slices)

        # 3. The measurement with its coil maps, and its intensity scale
        device = self._execution_device
        measurement = prepare_measurement(kspace, mask, coil_maps, operator=operator).to(device)
        work, gain = measurement.normalized()
        scale = work.intensity_scale()
        noise = noise_of(noise_std, solver, work, scale, gain)

        # 4. Starting noise of each sample, at a size that the network takes
        crop = self.padding(work.image_shape)
        count = slices * num_samples
        generators = spawn_generators(generator, slices, num_samples)
        latents = self.prepare_latents(
            (count, *crop.domain_shape[1:]), generators, latents=latents, device=device
        )
        diffusion = Diffusion(self, work, scale, conditions, crop, batch_size)

        # 5. How far to trust the prior, where that was left open
        factors = None
        factors = choose_factors(diffusion, solver, steps, noise, noise_std)
        factors = None if factors is None else factors.repeat_interleave(num_samples)

        # 6. The image to start from, where it is not noise
        start = None
        if isinstance(image, str) and image in ESTIMATORS:
            first = make_solver(image)
            level = noise_of(noise_std, first, work, scale, gain)
            # It draws nothing, and looks at no latents.
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

        # 8. Mean, spread and residual of the samples
        self.maybe_free_model_hooks()
        output = conclude(samples, measurement, output_type, prompts=prompts)
        if noise_std is not None and noise is not None:
            warn_of_residual(measurement, output.residual, noise * gain)
        return output if return_dict else tuple(getattr(output, name) for name in _FIELDS)

    def generate(
        self, prompt: str | list[str] | None = None, **options: Any
    ) -> TextToImageOutput[Any]:
        """Draw images from the prior alone; see :class:`~ctxrecon.pipelines.TextToImagePipeline`.

        Args:
            prompt: one or several; ``None`` draws without text.
            **options: of the call of that pipeline.
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
    """Load a prior.

    Args:
        path: a folder or a hub repository (``"owner/name"``); the prior that comes with the
            package by default. Two layouts are read: a diffusers pipeline folder (``unet/``,
            ``scheduler/``, ``text_encoder/``, ``tokenizer/``), and that of the published
            ``DHCAI/ContextMRI``, whose U-Nets lie in ``fastmri/`` and ``skm-tea/``.
        subfolder: of the U-Net, where there are several.
        scheduler: folder with a ``scheduler_config.json``, where ``path`` has no ``scheduler/``.
        text_encoder: folder or hub repository, where ``path`` has no ``text_encoder/``.
        tokenizer: likewise.
        dtype: of U-Net and text encoder, whatever they are stored in: float32, bfloat16 or
            float16, or its name.
        device: where to put them; the CPU by default.

    Raises:
        InputError: a missing, damaged or unsuitable part, each in a sentence of its own.
    """
    place = as_device(device)
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
    """A pipeline of small, randomly initialised networks, to be trained.

    Args:
        block_out_channels: see :func:`ctxrecon.priors.build_unet`.
        sample_size: training matrix size.
        seed: of the initial weights.
    """
    components = new_components(
        block_out_channels=block_out_channels, sample_size=sample_size, seed=seed
    )
    return ContextMRIPipeline(**components)
