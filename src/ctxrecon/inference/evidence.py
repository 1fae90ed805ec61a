"""Evidence of the data for each of several prompts, by a diffusion classifier."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ctxrecon.arrays import ArrayLike, as_tensor
from ctxrecon.checks import check_number, check_whole
from ctxrecon.errors import InputError
from ctxrecon.fourier import complex_to_channels
from ctxrecon.inference.arguments import check_generator
from ctxrecon.inference.batches import (
    check_finite,
    images_at_once,
    named_progress_bar,
    spawn_generators,
)
from ctxrecon.inference.diffusion import Diffusion
from ctxrecon.inference.noise import noise_of
from ctxrecon.inference.prompts import check_prompts
from ctxrecon.inference.text_prior import TextPrior
from ctxrecon.measurement import Measurement
from ctxrecon.priors import TextDenoiser
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers import PnPADMM

NOISE_RANGE = (0.1, 5.0)
"""Range of noise levels at which denoising is compared, in units of the image's 99 % quantile.

Less noise hides little of an image whatever the prompt, and exposes errors of the estimate; under
more noise the mean of all images is the best guess. Chosen on 16 phantom slices with uniform 1-D
masks at ×8, with seeds reserved for such choices.
"""


@torch.no_grad()
def prompt_evidence(
    prior: TextPrior,
    measurement: Measurement,
    prompts: Sequence[str] | Sequence[Sequence[str]],
    *,
    images: ArrayLike | None = None,
    num_inference_steps: int = 20,
    num_levels: int = 10,
    num_draws: int = 1,
    noise_range: tuple[float, float] = NOISE_RANGE,
    generator: torch.Generator | list[torch.Generator] | None = None,
    batch_size: int | None = None,
) -> Tensor:
    r"""Score prompts by how well an image is denoised under each (diffusion classifier).

    The default solver reconstructs the image ``x`` without a prompt. The score of prompt ``c`` is

    .. math::

        s(c) = -\tfrac{1}{2} \sum_i w_i\, \bigl\| \varepsilon_i - \hat\varepsilon
            (\sqrt{\bar\alpha_i}\, x + \sqrt{1 - \bar\alpha_i}\, \varepsilon_i;\, c) \bigr\|^2,

    where ``w_i`` are the weights of the trapezoidal rule over ``λ = log ᾱ/(1−ᾱ)``. In the limit of
    all noise levels and draws of ε it is a lower bound of ``log p(x|c)`` up to a constant shared by
    all prompts (Kingma et al., arXiv:2107.00630, eq. 11 to 17), and equal to it for an exact
    denoiser (Kong et al., arXiv:2302.03792). The difference of two scores is thus the logarithm of
    an evidence ratio for equally likely prompts. This is the diffusion classifier of Li et al.
    (arXiv:2303.16203), which weights all timesteps equally. All prompts share the same ε, which
    makes differences far more accurate than the scores themselves.

    Networks are not exact denoisers, ``x`` is an estimate, and its errors are correlated between
    pixels. Use the ratios as a relative scale and calibrate them before reading them as odds.
    Compare with the empty prompt ``""``: a prompt with a lower score is worse than no prompt.

    Example:
        >>> import torch
        >>> from ctxrecon.inference.evidence import prompt_evidence
        >>> from ctxrecon.measurement import Measurement
        >>> from ctxrecon.pipelines import build_pipeline
        >>> pipe = build_pipeline(block_out_channels=(32,), sample_size=8)
        >>> measurement = Measurement.from_arrays(torch.ones(8, 8, dtype=torch.complex64))
        >>> prompts = ["Brain, T1", "Brain, T2"]
        >>> prompt_evidence(
        ...     pipe, measurement, prompts, num_inference_steps=2, num_levels=2
        ... ).shape
        torch.Size([1, 2])

    Args:
        prior: Pipeline with a prior, such as :class:`~ctxrecon.pipelines.ContextMRIPipeline`.
        measurement: Measurement of one or more slices.
        prompts: Two or more prompts for all slices, or a list of equal length for each slice.
        images: Complex images ``(batch, ny, nx)`` or ``(ny, nx)`` in scan units; by default they
            are reconstructed without a prompt.
        num_inference_steps: Diffusion steps of that reconstruction.
        num_levels: Number of noise levels, evenly spaced in λ.
        num_draws: Draws of ε per level; more levels or draws make the scores more accurate.
        noise_range: Smallest and largest noise level ``√((1−ᾱ)/ᾱ)``, in units of the image's 99 %
            quantile.
        generator: Random generator of ε, or one per slice.
        batch_size: Images denoised at once; by default as many as fit in about 2.5 GB in float32.

    Returns:
        Scores in nats of shape ``(slices, prompts)``, float64 on the CPU; 0 for slices without
        signal.

    Raises:
        InputError: If an argument is malformed.
    """
    slices = len(measurement)
    texts = _check_prompts(prompts, slices)
    check_whole("num_draws", num_draws)
    if batch_size is not None:
        check_whole("batch_size", batch_size)
    check_generator(generator, slices)
    levels = noise_levels(prior.scheduler.alphas_cumprod, num_levels, noise_range)

    device = prior._execution_device
    work, gain = measurement.to(device).normalized()
    scale = work.intensity_scale()
    crop = prior.padding(work.image_shape)
    if images is None:
        x = _estimate(prior, work, scale, gain, num_inference_steps, batch_size)
    else:
        x = _check_image(images, slices, work.image_shape).to(device)
    x = crop.adjoint(x / scale[:, None, None])

    distinct = list(dict.fromkeys(text for own in texts for text in own))
    embeds = dict(zip(distinct, prior.encode_prompt(distinct), strict=True))
    at_once = batch_size or images_at_once(
        prior.unet.config.block_out_channels[0], crop.domain_shape[1:]
    )
    generators = spawn_generators(generator, slices, 1)
    scores = torch.zeros(slices, len(texts[0]), dtype=torch.float64)
    filled = measurement.filled.tolist()
    batches = math.ceil(len(texts[0]) / at_once)
    with named_progress_bar(prior, "evidence", len(filled) * batches) as bar:
        for index in filled:
            shape = (num_levels * num_draws, 2, *crop.domain_shape[1:])
            noise = randn_tensor(shape, generator=generators[index], device=device)
            for first in range(0, len(texts[index]), at_once):
                some = texts[index][first : first + at_once]
                denoiser = TextDenoiser(
                    prior.unet,
                    prior.scheduler,
                    torch.stack([embeds[text] for text in some]),
                    None,
                    1.0,
                )
                scores[index, first : first + len(some)] = denoising_score(
                    denoiser, x[index].expand(len(some), -1, -1), levels, noise
                )
                bar.update()
    prior.maybe_free_model_hooks()
    return scores


def denoising_score(
    denoiser: Denoiser, images: Tensor, timesteps: Sequence[int], noise: Tensor
) -> Tensor:
    """Compute ``−½ Σ_i w_i ‖ε_i − ε̂(x_i)‖²`` of images; see :func:`prompt_evidence`.

    Args:
        denoiser: Prior of each image.
        images: Images of shape ``(batch, ny, nx)``, complex64, in the units of the prior.
        timesteps: Two or more training timesteps, descending.
        noise: Noise ε of shape ``(timesteps · draws, 2, ny, nx)``, ordered by timestep and shared
            by all images.

    Returns:
        Scores averaged over the draws, ``(batch,)``, float64 on the CPU.
    """
    clean = complex_to_channels(images)
    alphas = denoiser.alphas_cumprod[list(timesteps)].double()
    weights = _trapezoid(torch.log(alphas / (1 - alphas)))
    draws = noise.unflatten(0, (len(timesteps), -1))
    score = torch.zeros(len(images), dtype=torch.float64)
    for t, alpha_bar, weight, each in zip(
        timesteps, alphas.tolist(), weights.tolist(), draws, strict=True
    ):
        for eps in each:
            noisy = math.sqrt(alpha_bar) * clean + math.sqrt(1 - alpha_bar) * eps
            _, predicted = denoiser(noisy, t)
            error = (predicted - eps).double().square().flatten(1).sum(dim=1)
            score -= 0.5 * weight / len(each) * error.cpu()
    return score


def noise_levels(
    alphas_cumprod: Tensor, count: int, noise_range: tuple[float, float] = NOISE_RANGE
) -> list[int]:
    """Return descending training timesteps with evenly spaced ``log ᾱ/(1−ᾱ)``.

    Args:
        alphas_cumprod: ``ᾱ_t`` of shape ``(T,)``.
        count: Number of timesteps, two or more.
        noise_range: Smallest and largest ``√((1−ᾱ)/ᾱ)``.

    Raises:
        InputError: If ``count`` is below two or exceeds the timesteps in the range, or the range is
            not valid.
    """
    check_whole("num_levels", count, least=2)
    least, most = noise_range
    check_number("the least noise", least, above=0)
    check_number("the greatest noise", most, above=least)
    alphas = alphas_cumprod.detach().double().cpu()
    ratios = torch.log(alphas / (1 - alphas))
    wanted = torch.linspace(-2 * math.log(most), -2 * math.log(least), count, dtype=torch.float64)
    chosen = (ratios[None] - wanted[:, None]).abs().argmin(dim=1).tolist()
    if len(set(chosen)) < count:
        raise InputError(
            f"expected num_levels of at most {len(set(chosen))} from noise {least:g} to {most:g}, "
            f"got {count}: the scheduler has no more timesteps there; use fewer levels or a wider "
            "noise_range"
        )
    return chosen


def _trapezoid(places: Tensor) -> Tensor:
    """Return the weights of the trapezoidal rule at ascending positions."""
    gaps = places.diff()
    weights = torch.zeros_like(places)
    weights[:-1] += gaps / 2
    weights[1:] += gaps / 2
    return weights


def _estimate(
    prior: TextPrior,
    work: Measurement,
    scale: Tensor,
    gain: Tensor,
    num_inference_steps: int,
    batch_size: int | None,
) -> Tensor:
    """Reconstruct without a prompt, ``(batch, ny, nx)``, in the units of ``work``."""
    solver = PnPADMM()
    steps = prior.choose_timesteps(num_inference_steps, "quadratic")
    crop = prior.padding(work.image_shape)
    conditions = prior.encode_conditions(None, None, 0.0, len(work))
    # The solver is deterministic and ignores the latents.
    latents = work.y.new_zeros((len(work), 2, *crop.domain_shape[1:]), dtype=torch.float32)
    noise = noise_of(None, solver, work, scale, gain)
    diffusion = Diffusion(prior, work, scale, conditions, crop, batch_size)
    image = work.combine(diffusion.run("estimate", solver, steps, latents, noise))
    check_finite(image)
    return image


def _check_prompts(
    prompts: Sequence[str] | Sequence[Sequence[str]], slices: int
) -> list[list[str]]:
    """Return the prompts of every slice.

    Raises:
        InputError: If there are fewer than two prompts, or the numbers of lists or prompts differ.
    """
    if isinstance(prompts, str) or not isinstance(prompts, Sequence):
        raise InputError(
            f"expected prompts as a list of two or more, got {type(prompts).__name__}: scores are "
            "only meaningful in comparison"
        )
    given: list[Any] = list(prompts)
    if any(isinstance(each, str) for each in given):
        check_prompts(given, len(given))
        texts = [given] * slices
    else:
        texts = [list(own) for own in given]
        if len(texts) != slices:
            raise InputError(
                f"expected one list of prompts or one for each of the {slices} slices, got "
                f"{len(texts)}"
            )
        for own in texts:
            check_prompts(own, len(own))
    counts = {len(own) for own in texts}
    if len(counts) != 1 or min(counts) < 2:
        raise InputError(
            "expected two prompts or more, as many for each slice, got "
            f"{', '.join(map(str, sorted(counts))) or 'none'}: scores are only meaningful in "
            "comparison"
        )
    return texts


def _check_image(images: ArrayLike, slices: int, shape: Sequence[int]) -> Tensor:
    """Validate images ``(batch, ny, nx)`` against the measurement, and return them as complex64."""
    image = as_tensor(images, "images")
    image = image[None] if image.ndim == 2 else image
    if not image.is_complex() or tuple(image.shape) != (slices, *shape):
        raise InputError(
            f"expected complex images of shape {(slices, *shape)}, got {image.dtype} of shape "
            f"{tuple(image.shape)}"
        )
    if not bool(torch.isfinite(torch.view_as_real(image)).all()):
        raise InputError("expected finite images, got NaN or infinite values")
    return image.to(torch.complex64)
