"""Attackers that reconstruct the image from measurements sampled for a task.

For digits, these are the small network of InfoMRI, section IV-C, and the best linear estimate,
which needs no training and knows every mask. For knees, in :mod:`benchmarks.tasks.knees`, these are
networks trained on the sampler's masks by ``training/train_reconstructor.py``, and the diffusion
prior.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tasks.digits import Digits, draw_masks
from ctxrecon.errors import InputError
from ctxrecon.fourier import complex_to_channels, fft2c
from ctxrecon.masks.learned import MaskNetwork
from ctxrecon.metrics import psnr

_VALIDATION_MASKS = 10**6
"""Seed of the validation masks that stop an attacker's training."""


class LinearAttacker:
    """Linear estimate with the least error, ``x̂ = x̄ + C Aᵀ (A C Aᵀ + s I)⁻¹ (y − A x̄)``.

    x̄ and C are mean and covariance of real images, A returns the real and imaginary parts of the
    sampled k-space, and s is half of the noise variance. Without samples, the estimate is x̄.

    Args:
        images: Two or more real images of shape ``(count, n, n)``.
        noise_std: Standard deviation σ of the complex noise of a sample.

    Raises:
        InputError: If there are fewer than two images or if the noise is not positive.
    """

    def __init__(self, images: Tensor, noise_std: float) -> None:
        if images.ndim != 3 or len(images) < 2 or not noise_std > 0:
            raise InputError(
                "expected two images or more (count, n, n) and noise, got shape "
                f"{tuple(images.shape)} and {noise_std:g}"
            )
        self.mean = images.double().mean(dim=0)
        self.variance = noise_std**2 / 2
        spread = (images.double() - self.mean) / (len(images) - 1) ** 0.5
        kspace = _parts(fft2c(spread.to(torch.complex128)))
        self.cross = kspace.T @ spread.flatten(1)
        self.joint = kspace.T @ kspace

    def __call__(self, kspace: Tensor, masks: Tensor) -> Tensor:
        """Estimate images of shape ``(count, n, n)``, float32.

        Args:
            kspace: k-space of shape ``(count, n, n)``, complex64.
            masks: Sampling masks of shape ``(count, 1, n, n)``, bool.
        """
        difference = _parts(kspace.to(torch.complex128) - fft2c(self.mean.to(torch.complex128)))
        images = []
        for row, mask in zip(difference, masks, strict=True):
            taken = mask.flatten().repeat(2)
            inner = (
                self.joint[taken][:, taken] + self.variance * torch.eye(int(taken.sum())).double()
            )
            weights = torch.linalg.solve(inner, row[taken])
            images.append(self.mean + (weights @ self.cross[taken]).view_as(self.mean))
        return torch.stack(images).float()


def _parts(kspace: Tensor) -> Tensor:
    """Return real parts followed by imaginary parts, ``(count, 2 n²)``."""
    return torch.view_as_real(kspace.flatten(1)).permute(0, 2, 1).flatten(1)


def published_network() -> nn.Module:
    """Return InfoMRI's attacker of digits, from channels of the zero-filled image to an image."""
    return nn.Sequential(
        nn.Conv2d(2, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 1, 1),
    )


@dataclass(frozen=True)
class AttackRun:
    """Training of the published network; its batch size is published, the learning rate is not.

    Attributes:
        most_epochs: Largest number of epochs; training stops when the validation error rises.
        batch_size: Digits in a batch.
        learning_rate: Learning rate of Adam.
    """

    most_epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 2e-3


def train_attacker(
    sampler: MaskNetwork,
    acceleration: float,
    digits: Digits,
    validation: Digits,
    run: AttackRun,
    seed: int,
) -> nn.Module:
    """Train the published network on masks of a frozen sampler, redrawn for every epoch.

    Args:
        sampler: Sampler whose measurements are attacked.
        acceleration: Acceleration of its masks.
        digits: Training digits.
        validation: Digits on which the mean squared error stops the training.
        run: Training settings.
        seed: Random seed of initial weights, order and masks.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = published_network()
    seen = validation.zero_filled(
        draw_masks(sampler, acceleration, len(validation), _VALIDATION_MASKS)
    )
    optimizer = torch.optim.Adam(network.parameters(), run.learning_rate)
    best, kept = _error(network, seen, validation), _copied(network)
    for epoch in range(run.most_epochs):
        masks = draw_masks(sampler, acceleration, len(digits), seed * 1000 + epoch)
        zero_filled = complex_to_channels(digits.zero_filled(masks))
        order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(epoch))
        for rows in order.split(run.batch_size):
            optimizer.zero_grad()
            difference = network(zero_filled[rows])[:, 0] - digits.images[rows]
            difference.square().mean().backward()
            optimizer.step()
        error = _error(network, seen, validation)
        if error >= best:
            break
        best, kept = error, _copied(network)
    network.load_state_dict(kept)
    return network.eval()


@torch.no_grad()
def attacked(network: nn.Module, zero_filled: Tensor) -> Tensor:
    """Reconstruct images ``(count, n, n)``, float32, by a network."""
    parts = complex_to_channels(zero_filled).split(250)
    return torch.cat([network(part)[:, 0] for part in parts])


def attack_psnr(images: Tensor, truth: Tensor) -> Tensor:
    """Return the PSNR in dB of each image clipped to [0, 1], ``(count,)``."""
    return psnr(images.clamp(0, 1), truth)


def mean_psnr(training: Tensor, truth: Tensor) -> Tensor:
    """Return the PSNR of the mean training image, which needs no measurement."""
    return attack_psnr(training.mean(dim=0).expand_as(truth), truth)


def _error(network: nn.Module, zero_filled: Tensor, digits: Digits) -> float:
    return float((attacked(network, zero_filled) - digits.images).square().mean())


def _copied(network: nn.Module) -> dict[str, Any]:
    return {name: value.clone() for name, value in network.state_dict().items()}
