"""Running solvers on the slices of a measurement, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ctxrecon.inference.batches import (
    image_batches,
    images_at_once,
    named_progress_bar,
    scatter_slices,
)
from ctxrecon.inference.noise import with_noise
from ctxrecon.inference.text_prior import StepEndCallback, TextPrior
from ctxrecon.inference.warm_start import noised_image
from ctxrecon.measurement import Measurement
from ctxrecon.operators import Crop, EachSet
from ctxrecon.priors import SetDenoiser, TextDenoiser
from ctxrecon.solvers import DiffusionSolver


@dataclass(frozen=True)
class Diffusion:
    """Settings shared by all solvers that one pipeline call runs.

    Attributes:
        prior: Pipeline with the components and the progress bar.
        work: Measurement with normalized coil maps.
        scale: Intensity scale of each slice, ``(batch,)``.
        conditions: Text states of each slice, states of the empty prompt, and γ.
        crop: Crop from the network's image size to that of the scan.
        batch_size: Images denoised at once; ``None`` for a number that needs little memory.
    """

    prior: TextPrior
    work: Measurement
    scale: Tensor
    conditions: tuple[Tensor | None, Tensor | None, float]
    crop: Crop
    batch_size: int | None

    def run(
        self,
        name: str,
        solver: DiffusionSolver,
        steps: Sequence[int],
        latents: Tensor,
        noise: Tensor | None,
        *,
        factors: Tensor | None = None,
        generators: list[torch.Generator] | None = None,
        start: Tensor | None = None,
        callback: StepEndCallback | None = None,
        tensor_inputs: Sequence[str] = (),
    ) -> Tensor:
        """Run a solver batch by batch, and return images ``(batch · each, [sets ·] ny, nx)``.

        The images are in scan units.

        Args:
            name: Description of the progress bar.
            solver: Solver to run.
            steps: Training timesteps.
            latents: Initial noise of shape ``(batch · each, 2, NY, NX)``.
            noise: Standard deviation of each slice's samples in the units of ``work``.
            factors: Factors of that noise, or of the solver's own, ``(batch · each,)``; see
                :meth:`~ctxrecon.solvers.DiffusionSolver.reweighted`.
            generators: One random generator per image; ``None`` for deterministic solvers.
            start: Images to start from, ``(batch, [sets ·] ny, nx)``, in scan units.
            callback: User's callback, called after each step.
            tensor_inputs: Names of the tensors passed to the callback.
        """
        embeds, uncond_embeds, gamma = self.conditions
        work, scale, crop, unet = self.work, self.scale, self.crop, self.prior.unet
        slices, count = len(scale), len(latents)
        device, each = latents.device, count // slices
        owners = torch.arange(count, device=device) // each
        at_once = self.batch_size or images_at_once(
            unet.config.block_out_channels[0], crop.domain_shape[1:], 1 if gamma in (0, 1) else 2
        )
        if solver.couples_batch:
            # A volume needs all of its slices: those without signal are included as zeros.
            batches = [torch.arange(count, device=device)]
            empty = work.empty.reshape(-1, *(1,) * (work.y.ndim - 1))
            work = replace(work, y=torch.where(empty, 0, work.y))
        else:
            todo = (~work.empty[owners]).nonzero()[:, 0]
            groups = image_batches(owners[todo], work.number_of_sets, at_once)
            batches = [todo[group] for group in groups]
        alpha_bar = float(self.prior.scheduler.alphas_cumprod[steps[0]])
        images: list[Tensor] = []
        with named_progress_bar(self.prior, name, len(batches) * len(steps)) as bar:
            for chosen in batches:
                owner = owners[chosen]
                batch, factor = work[owner], scale[owner, None, None]
                rows, ny = batch.operator.domain_shape[1], work.image_shape[0]
                every = EachSet(crop, rows // ny)
                own = None if generators is None else [generators[i] for i in chosen.tolist()]
                noisy = _noise_of_sets(latents[chosen], every.sets, own)
                if start is not None:
                    x_0 = every.adjoint(start[owner, :rows] / factor)
                    noisy = noised_image(x_0, alpha_bar, noisy)
                denoiser = TextDenoiser(
                    unet,
                    self.prior.scheduler,
                    None if embeds is None else embeds[owner].repeat_interleave(every.sets, dim=0),
                    uncond_embeds,
                    gamma,
                    at_once if solver.couples_batch else None,
                )
                weighted = with_noise(solver, None if noise is None else (noise / scale)[owner])
                if factors is not None:
                    weighted = weighted.reweighted(factors[chosen])
                padded = weighted(
                    denoiser if every.sets == 1 else SetDenoiser(denoiser, every.sets),
                    batch.operator @ every,
                    batch.y / factor.reshape(-1, *(1,) * (batch.y.ndim - 1)),
                    timesteps=steps,
                    generator=own,
                    latents=noisy,
                    callback=self.prior.step_callback(
                        bar,
                        callback,
                        tensor_inputs,
                        partial(_shown, every, batch),
                        factor,
                    ),
                )
                images.append(every(padded) * factor)
        index = torch.cat(batches) if batches else owners[:0]
        like = work.y.new_zeros((count, *work.operator.domain_shape[1:]))
        return scatter_slices(images, index, like)


def _noise_of_sets(latents: Tensor, sets: int, generators: list[torch.Generator] | None) -> Tensor:
    """Return noise ``(batch, 2, sets · NY, NX)`` whose first part is ``latents``."""
    if sets == 1 or generators is None:
        return latents.repeat(1, 1, sets, 1)
    batch, channels, ny, nx = latents.shape
    drawn = randn_tensor(
        (batch, channels, (sets - 1) * ny, nx),
        generator=generators,
        device=latents.device,
        dtype=latents.dtype,
    )
    return torch.cat([latents, drawn], dim=2)


def _shown(every: EachSet, measurement: Measurement, x: Tensor) -> Tensor:
    """Return the image ``(batch, ny, nx)`` shown to a user's callback for a padded image."""
    return measurement.combine(every(x))
