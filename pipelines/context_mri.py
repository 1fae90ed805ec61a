"""Reconstruction with a metadata-prompted diffusion prior (ContextMRI, arXiv:2501.04284)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.pipelines.inputs import ArrayLike, prepare_measurement
from ctxrecon.pipelines.noise import (
    NoiseStd,
    check_noise,
    noise_of,
    warn_of_residual,
    with_noise,
)
from ctxrecon.pipelines.output import ReconstructionOutput
from ctxrecon.pipelines.samples import (
    count_slices,
    operator_of,
    spawn_generators,
    summarise,
    to_device,
    training_scale,
)
from ctxrecon.pipelines.text_prior import StepEndCallback, TextPriorPipeline
from ctxrecon.pipelines.warm_start import (
    ESTIMATORS,
    check_warm_start,
    choose_solver,
    noised_image,
    remaining_timesteps,
    starting_image,
)
from ctxrecon.priors import TextDenoiser
from ctxrecon.solvers import Solver


class ContextMRIPipeline(TextPriorPipeline):
    """Reconstructs undersampled Cartesian k-space with a text-conditioned diffusion prior.

    The components are those of :class:`~ctxrecon.pipelines.text_prior.TextPriorPipeline`, all of
    them stock classes, so a checkpoint is an ordinary diffusers folder.
    """

    @torch.no_grad()
    def __call__(
        self,
        kspace: ArrayLike,
        mask: ArrayLike | None = None,
        prompt: str | list[str] | None = None,
        *,
        coil_maps: ArrayLike | None = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 20,
        timesteps: Sequence[int] | str = "quadratic",
        solver: Solver | str | None = None,
        noise_std: NoiseStd | None = None,
        image: ArrayLike | str | None = None,
        strength: float = 0.3,
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
            guidance_scale: γ; 0 ignores the prompt, 1 is plain conditioning and the best of the
                shipped prior, 2 to 3 served best in the paper. Any but 0 and 1 doubles the work.
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
                it from the scan. It replaces the solver's own, which must have one, and a result
                whose data residual it does not explain is warned of. ``None`` takes the level that
                a solver was made with, or else, for a solver that takes noise, what is estimated
                from the scan, at least the solver's default.
            image: an estimate to start from in place of noise: complex, ``(batch or 1, ny, nx)``
                or ``(ny, nx)``, in scan units; the name of a baseline such as "l1_wavelet";
                "network", the one that comes with the package; or a solver that draws nothing,
                "pnp_admm" say, which then runs first.
            strength: how much noise ``image`` gets, as in diffusers: the share of the timesteps
                that are left, the least noisy ones; above 0 and up to 1.
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
        solver, image = choose_solver(solver, image, num_samples)
        check_warm_start(image, strength, solver)
        if getattr(solver, "couples_batch", False) and (num_samples > 1 or batch_size is not None):
            raise InputError(
                f"{type(solver).__name__} takes the slices of a volume in one batch: draw one "
                "sample at a time, and leave batch_size out"
            )
        if getattr(solver, "deterministic", False) and num_samples > 1:
            raise InputError(
                f"{type(solver).__name__} draws nothing, so {num_samples} samples would be one: "
                f"take a solver such as DDS, started from its image by image={ESTIMATORS[0]!r}"
            )
        slices = count_slices(kspace)
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
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
        )
        prompts = [prompt] * slices if isinstance(prompt, str) else prompt
        # The prompts come before the measurement, whose coil maps may take long to estimate.
        embeds, uncond_embeds, gamma = self._encode_conditions(
            prompts, prompt_embeds, guidance_scale, slices
        )
        device = self._execution_device
        measurement = to_device(prepare_measurement(kspace, mask, coil_maps), device)
        steps = self.choose_timesteps(num_inference_steps, timesteps)
        scale = training_scale(measurement)
        noise = noise_of(noise_std, solver, measurement, scale)
        crop = self._crop(measurement.operator.domain_shape[1:])
        count = slices * num_samples
        generators = spawn_generators(generator, slices, num_samples)
        latents = self.prepare_latents(
            (count, *crop.domain_shape[1:]), generators, latents=latents, device=device
        )
        if image is not None:
            if isinstance(image, str) and image in ESTIMATORS:
                estimate: Any = self(
                    measurement.kspace,
                    measurement.mask,
                    coil_maps=measurement.coil_maps,
                    prompt_embeds=embeds,
                    guidance_scale=gamma,
                    num_inference_steps=num_inference_steps,
                    timesteps=steps,
                    solver=image,
                    noise_std=noise_std,
                    batch_size=batch_size,
                )
                image = estimate.images
            steps = remaining_timesteps(steps, strength)
            start = starting_image(image, measurement) / scale[:, None, None]
            alpha_bar = float(self.scheduler.alphas_cumprod[steps[0]])
            latents = noised_image(crop.adjoint(start), alpha_bar, latents)

        per_batch = min(batch_size or count, count)
        samples: list[Tensor] = []
        with self.progress_bar(total=math.ceil(count / per_batch) * len(steps)) as bar:
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
                padded = with_noise(solver, None if noise is None else (noise / scale)[owner])(
                    denoiser,
                    operator_of(measurement, owner) @ crop,
                    measurement.kspace[owner] / factor[..., None],
                    timesteps=steps,
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
        if noise_std is not None and noise is not None:
            assert output.residual is not None
            warn_of_residual(measurement, output.residual, noise)
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
