"""Adversarial losses: Wasserstein, least-squares and entropic GANs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

GRADIENT_PENALTY = 10.0
"""Weight η of the gradient penalty of the Wasserstein GAN."""


def generator_loss(kind: str, scores: Tensor) -> Tensor:
    """Return the loss of the generator, one value per image.

    ``−D(G)`` for "wgan_gp", ``½ (D(G) − 1)²`` for "lsgan", ``−log σ(D(G))`` for "entropic".

    Args:
        kind: "wgan_gp", "lsgan" or "entropic".
        scores: Scores ``D(G)``, ``(batch,)``.
    """
    if kind == "wgan_gp":
        return -scores
    if kind == "lsgan":
        return 0.5 * (scores - 1).square()
    return functional.softplus(-scores)


def critic_loss(kind: str, critic: Any, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """Return the loss of the critic, one value per pair of images.

    ``D(G) − D(y) + η (‖∇D(α G + (1 − α) y)‖ − 1)²`` for "wgan_gp", ``½ D(G)² + ½ (D(y) − 1)²`` for
    "lsgan", ``−log σ(D(y)) − log(1 − σ(D(G)))`` for "entropic".

    Args:
        kind: "wgan_gp", "lsgan" or "entropic".
        critic: Critic D, which scores each image separately.
        real: Labels y, ``(batch, channels, ny, nx)``.
        fake: Images of the generator, ``(batch, channels, ny, nx)``, without gradient.
        share: Interpolation weight α, ``(batch,)``.
    """
    of_real, of_fake = critic(torch.cat([real, fake])).chunk(2)
    if kind == "lsgan":
        return 0.5 * of_fake.square() + 0.5 * (of_real - 1).square()
    if kind == "entropic":
        return functional.softplus(-of_real) + functional.softplus(of_fake)
    share = share[:, None, None, None]
    between = (share * fake + (1 - share) * real).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = (gradient.square().flatten(1).sum(dim=1) + 1e-12).sqrt()
    return of_fake - of_real + GRADIENT_PENALTY * (norm - 1).square()


def fixed_scores(critic: Any, images: Tensor) -> Tensor:
    """Return scores with a gradient for the images and none for the critic."""
    weights = {name: value.detach() for name, value in critic.named_parameters()}
    return functional_call(critic, weights, (images,))


def paired_share(step: Tensor, start: int, end: int, last: float) -> Tensor:
    """Return λ of the hybrid loss: 1 up to ``start``, falling linearly to ``last`` at ``end``."""
    progress = ((step.float() - start) / max(end - start, 1)).clamp(0, 1)
    return 1 - (1 - last) * progress
