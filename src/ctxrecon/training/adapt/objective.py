r"""What an adapted prior learns from noisy images, and from samples that were hidden.

**Fully sampled slices** give images ``x_n = x_0 + ν n``, which are noisy themselves. The denoiser
``D`` of a level ``σ_t > ν`` shall still give ``E[x_0 | x_t]``. With ``x_t = x_n + √(σ_t² − ν²) ε``
and ``r = ν²/σ_t²``,

    ``E[x_n | x_t] = (1 − r) E[x_0 | x_t] + r x_t``,

so ``‖(1 − r) D(x_t) + r x_t − x_n‖²`` is smallest for that D (Tweedie's formula for ambient data:
Daras, Dimakis and Daskalakis, arXiv:2404.10177). Levels below ν are not learned from.

**Undersampled slices** are split in two, as in SSDU (Yaman et al., MRM 84, 3172, 2020): the prior
before reconstructs one part of the samples to ``x̂``, and

    ``‖M_H (A D(x̂ + σ_t ε) − y)‖²``

is the error at the others, H, whose noise ``x̂`` knows nothing of. H includes the calibration
region, whose noise is small beside its signal, so that the low frequencies stay where they are.
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
    """A slice to learn from, scaled as the prior is.

    Attributes:
        image: ``(1, ny, nx)`` complex64, of all samples or of those that were kept.
        noise_std: standard deviation of each part of the image's noise, ν.
        states: ``(1, tokens, width)`` text states.
        mirrored: whether the anatomy looks the same from left and right.
        operator: ``M_H A`` where samples were hidden; ``None`` for a slice that is known.
        hidden: ``M_H y``, ``(1, coils, ny, nx)``.
        count: places of k-space in H.
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
        """``(ny, nx)``."""
        return self.image.shape[-2], self.image.shape[-1]


@dataclass(frozen=True)
class Levels:
    """The noise levels of a scheduler, and which of them an example is learned at.

    Attributes:
        alphas_cumprod: ``ᾱ_t``, ``(T,)`` float32 on the CPU.
        prediction_type: of the network.
    """

    alphas_cumprod: Tensor
    prediction_type: str

    def draw(self, noise_std: float, generator: torch.Generator) -> int:
        """A timestep above this noise, ``t − t_0 ∝ u²``: half of them in the lowest quarter."""
        sigma = ((1 - self.alphas_cumprod) / self.alphas_cumprod).sqrt()
        first = int((sigma <= noise_std).sum())
        last = len(sigma) - 1
        u = float(torch.rand((), generator=generator, dtype=torch.float64))
        return min(last, first + int(u * u * (last + 1 - first)))

    def image(self, x_t: Tensor, output: Tensor, signal: Tensor, sigma: Tensor) -> Tensor:
        """``x̂_0`` of the network's output."""
        if self.prediction_type == "v_prediction":
            return signal * x_t - sigma * output
        if self.prediction_type == "sample":
            return output
        return (x_t - sigma * output) / signal


@dataclass(frozen=True)
class Turn:
    """What is done to an image before the network sees it, and undone to what it gives.

    Attributes:
        flip: whether left and right change sides.
        angle: of the phase.
    """

    flip: bool
    angle: float

    def there(self, x: Tensor) -> Tensor:
        """Apply it to complex images."""
        turned = x * complex(math.cos(self.angle), math.sin(self.angle))
        return turned.flip(-1) if self.flip else turned

    def back(self, x: Tensor) -> Tensor:
        """Undo it."""
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
    """The mean error of a batch of examples of one shape; an error of ``x̂_0`` counts ``1/s``-fold.

    With ``s = √(1 − ᾱ_t)`` every level of noise adds about as much (as ``"balanced"`` of
    :func:`ctxrecon.training.prior.objective.loss_weights`).

    Args:
        unet: in its own precision.
        levels: of the scheduler.
        crop: from the size of the network to that of the slices.
        examples: of one shape.
        turns: one for each.
        generator: draws timesteps and noise, on the CPU.
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
