r"""Losses for adapting a prior to noisy images and to hidden samples.

**Fully sampled slices** provide images ``x_n = x_0 + ν n``, which are noisy themselves. The
denoiser ``D`` at a level ``σ_t > ν`` should still return ``E[x_0 | x_t]``. With
``x_t = x_n + √(σ_t² − ν²) ε`` and ``r = ν²/σ_t²``,

    ``E[x_n | x_t] = (1 − r) E[x_0 | x_t] + r x_t``,

so that ``‖(1 − r) D(x_t) + r x_t − x_n‖²`` is minimized by this D (Tweedie's formula for ambient
data: Daras, Dimakis and Daskalakis, arXiv:2404.10177). Levels below ν are not used.

**Undersampled slices** are split in two, as in SSDU (Yaman et al., MRM 84, 3172, 2020). The
original prior reconstructs ``x̂`` from one part of the samples, and

    ``‖M_H (A D(x̂ + σ_t ε) − y)‖²``

is the error at the other samples H, whose noise is independent of ``x̂``. H includes the
calibration region, whose noise is small compared with its signal, so that low frequencies are
preserved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ctxrecon.fourier import channels_to_complex, complex_to_channels
from ctxrecon.operators import Crop, LinearOperator


@dataclass(frozen=True)
class Example:
    """Training slice on the intensity scale of the prior.

    Attributes:
        image: Image ``(1, ny, nx)``, complex64, from all samples or from those that were kept.
        noise_std: Standard deviation ν of the image noise in each part.
        states: Text states ``(1, tokens, width)``.
        mirrored: ``True`` if the anatomy has left-right symmetry.
        operator: Operator ``M_H A`` of the hidden samples; ``None`` for a fully sampled slice.
        hidden: Hidden samples ``M_H y``, ``(1, coils, ny, nx)``.
        count: Number of k-space positions in H.
    """

    image: Tensor
    noise_std: float
    states: Tensor
    mirrored: bool = False
    operator: LinearOperator | None = None
    hidden: Tensor | None = None
    count: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Image size ``(ny, nx)``."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True)
class Levels:
    """Noise levels of a scheduler, and their density in training.

    Attributes:
        alphas_cumprod: Cumulative products ``ᾱ_t``, ``(T,)`` float32 on the CPU.
        prediction_type: Prediction type of the network.
    """

    alphas_cumprod: Tensor
    prediction_type: str

    def draw(self, noise_std: float, generator: torch.Generator) -> int:
        """Draw a timestep above a noise level, ``t − t_0 ∝ u²``: half in the lowest quarter."""
        sigma = ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()
        first = int((sigma <= noise_std).sum())
        last = len(sigma) - 1
        u = float(torch.rand((), generator=generator, dtype=torch.float64))
        return min(last, first + int(u * u * (last + 1 - first)))

    def image(self, x_t: Tensor, output: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """Return the ``x̂_0`` that corresponds to the network's output."""
        if self.prediction_type == "v_prediction":
            return signal * x_t - sigma * output
        if self.prediction_type == "sample":
            return output
        return (x_t - sigma * output) / signal


@dataclass(frozen=True)
class Turn:
    """Transformation of an image before the network, inverted on its output.

    Attributes:
        flip: If true, swap left and right.
        angle: Phase angle in radians.
    """

    flip: bool
    angle: float

    def there(self, x: Tensor) -> Tensor:
        """Apply the transformation to complex images."""
        turned = x * complex(math.cos(self.angle), math.sin(self.angle))
        return turned.flip(-1) if self.flip else turned

    def back(self, x: Tensor) -> Tensor:
        """Apply the inverse transformation."""
        back = x.flip(-1) if self.flip else x
        return back * complex(math.cos(self.angle), -math.sin(self.angle))


def loss(
    unet: Any,
    levels: Levels,
    crop: Crop,
    examples: list[Example],
    turns: list[Turn],
    generator: torch.Generator,
) -> Tensor:
    """Return the mean error of a batch, with errors of ``x̂_0`` weighted by ``1/s``.

    With ``s = √(1 − ᾱ_t)`` every noise level contributes about equally (as with ``"balanced"`` of
    :func:`ctxrecon.training.prior.objective.loss_weights`).

    Args:
        unet: U-Net, in its own precision.
        levels: Noise levels of the scheduler.
        crop: Crop from the size of the network to that of the slices.
        examples: Examples of the same shape.
        turns: Transformation of each example.
        generator: Source of timesteps and noise, on the CPU.
    """
    device = examples[0].image.device
    timesteps = torch.tensor([levels.draw(item.noise_std, generator) for item in examples])
    alpha_bar = levels.alphas_cumprod[timesteps].view(-1, 1, 1, 1).to(device)
    signal, s = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    variance = torch.tensor([item.noise_std**2 for item in examples]).view(-1, 1, 1, 1).to(device)
    level = (s / signal).square()
    images = torch.cat([turn.there(item.image) for item, turn in zip(examples, turns, strict=True)])
    clean = complex_to_channels(crop.adjoint(images))
    drawn = torch.randn(clean.shape, generator=generator).to(device)
    x_t = signal * (clean + (level - variance).clamp_min(0).sqrt() * drawn)
    output = unet(
        x_t.to(unet.dtype).contiguous(memory_format=torch.channels_last),
        timesteps.to(device),
        torch.cat([item.states for item in examples]).to(unet.dtype),
        return_dict=False,
    )[0].float()
    ambient = (variance / level).clamp_max(1)
    noisy = levels.image(x_t, output, signal, s)
    predicted = (1 - ambient) * noisy + ambient * x_t / signal
    errors = []
    for number, (item, turn) in enumerate(zip(examples, turns, strict=True)):
        if item.operator is None:
            difference = predicted[number] - clean[number]
            errors.append(difference.square().mean())
            continue
        assert item.hidden is not None
        image = turn.back(crop(channels_to_complex(noisy[number : number + 1])))
        difference = item.operator(image) - item.hidden
        errors.append(torch.view_as_real(difference).square().sum() / (2 * item.count))
    return (torch.stack(errors) / s.flatten()).mean()
