"""Greedy policy that selects one line at a time by its expected gain (baseline)."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor
from torch.nn.functional import one_hot

from ctxrecon.errors import InputError
from ctxrecon.masks.budget import Shape
from ctxrecon.masks.learned.adaptive import AdaptiveSampler, Measure, StagedMask


class GreedyPolicy(AdaptiveSampler):
    """Policy ``π(a | x̂)``, the softmax of the scores of the lines not yet acquired.

    The greedy policy of Bakker et al., "Experimental design for MRI by greedy policy search",
    NeurIPS 2020 (PGMRI). The reconstruction network is trained beforehand and stays fixed. The
    policy is trained by :func:`policy_gradient_loss` on the immediate gain in quality of each
    line. The paper's policy is a convolutional network on the image followed by fully connected
    layers; this one also receives the k-space of the image
    (:class:`~ctxrecon.masks.learned.adaptive.PositionScore`).

    A training step with an image x̂ and its mask::

        lines, log_probabilities = policy.step(image, mask, samples=8, generator=g)
        masks = with_lines(mask, lines)          # (batch, samples, 1, ny, nx)
        rewards = quality(masks) - quality(mask)  # (batch, samples)
        policy_gradient_loss(log_probabilities, rewards).backward()

    Args:
        shape: Grid size ``(ny, nx)``.
        acceleration: ``nx`` divided by the number of lines, center included.
        center_fraction: Share of the lines that is always sampled, greater than 0 (default:
            ``0.32 / acceleration``).
        width: Number of features of the network.

    Example:
        >>> import torch
        >>> from ctxrecon.masks.learned import GreedyPolicy
        >>> policy = GreedyPolicy((16, 16), acceleration=4, center_fraction=0.125)
        >>> measure = lambda mask: torch.ones(2, 16, 16, dtype=torch.complex64)
        >>> policy(measure).mask.shape
        torch.Size([2, 1, 16, 16])
    """

    @register_to_config
    def __init__(
        self,
        shape: Shape,
        acceleration: float,
        center_fraction: float | None = None,
        width: int = 16,
    ) -> None:
        super().__init__(shape, acceleration, True, center_fraction, width)

    def log_probabilities(self, image: Tensor, mask: Tensor) -> Tensor:
        """Return ``log π``, ``(batch, nx)`` float32, ``-inf`` for lines already in the mask.

        Args:
            image: Reconstruction from the samples of the mask, ``(batch, ny, nx)`` complex64.
            mask: Lines acquired so far, ``(batch or 1, 1, ny, nx)`` bool.

        Raises:
            InputError: If a mask already contains all lines.
        """
        taken = mask[:, 0, 0]
        if bool(taken.all(dim=1).any()):
            raise InputError("expected masks with lines left to acquire, got a complete mask")
        scores = self.score(image, mask.float()).float()
        return torch.log_softmax(scores.masked_fill(taken, -torch.inf), dim=1)

    def step(
        self,
        image: Tensor,
        mask: Tensor,
        samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw lines from π, independently of each other.

        Args:
            image: Reconstruction from the samples of the mask, ``(batch, ny, nx)`` complex64.
            mask: Lines acquired so far, ``(batch or 1, 1, ny, nx)`` bool.
            samples: Number of lines drawn for each image.
            generator: Source of the draws.

        Returns:
            Column indices ``(batch, samples)`` int64, and their ``log π``, differentiable.
        """
        log_probabilities = self.log_probabilities(image, mask)
        device = "cpu" if generator is None else generator.device
        weights = log_probabilities.detach().exp().to(device)
        lines = torch.multinomial(weights, samples, replacement=True, generator=generator)
        lines = lines.to(log_probabilities.device)
        return lines, log_probabilities.gather(1, lines)

    @torch.no_grad()
    def forward(self, measure: Measure, acceleration: float | None = None) -> StagedMask:
        """Select the most likely line, reconstruct, and repeat until the budget is spent.

        Args:
            measure: Function that reconstructs an image from the current bool mask, called once
                per line.
            acceleration: Acceleration factor (default: the policy's own).

        Returns:
            Bool masks, with one stage per line.

        Raises:
            InputError: If the acceleration is impossible, the center is empty, or ``measure``
                returns images of another shape.
        """
        stages = [self.first_stage(acceleration).bool()]
        taken, budget = stages[0], self.budget(acceleration)
        for _ in range(budget.count - budget.kept):
            mask = self.as_mask(taken[:, None])
            best = self.log_probabilities(self.image(measure, mask), mask).argmax(dim=1)
            stages.append(one_hot(best, self.positions).bool())
            taken = taken | stages[-1]
        return self.staged(stages)


def with_lines(mask: Tensor, lines: Tensor) -> Tensor:
    """Add one line to the mask, for each of several candidate lines.

    Args:
        mask: Lines acquired so far, ``(batch or 1, 1, ny, nx)`` bool.
        lines: Column indices ``(batch, samples)``, int64.

    Returns:
        Masks ``(batch, samples, 1, ny, nx)``, bool.
    """
    return mask[:, None] | one_hot(lines, mask.shape[-1]).bool()[:, :, None, None, :]


def policy_gradient_loss(log_probabilities: Tensor, rewards: Tensor) -> Tensor:
    """Return ``−1/(q − 1) Σ_i (r_i − r̄) log π(a_i)``, averaged over the batch.

    REINFORCE with the mean reward of the q lines drawn for an image as the baseline (Kool et al.,
    2019), as used by PGMRI. Its gradient is an unbiased estimate of the gradient of ``−E r``.

    Args:
        log_probabilities: ``log π(a_i)`` of shape ``(batch, q)``.
        rewards: Rewards r of shape ``(batch, q)``; they receive no gradient.

    Raises:
        InputError: If the shapes differ, or there are fewer than two lines per image.
    """
    if log_probabilities.shape != rewards.shape or rewards.ndim != 2 or rewards.shape[1] < 2:
        raise InputError(
            "expected log probabilities and rewards (batch, samples) with at least two samples, "
            f"got {tuple(log_probabilities.shape)} and {tuple(rewards.shape)}"
        )
    rewards = rewards.detach()
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    return -(advantages * log_probabilities).sum(dim=1).mean() / (rewards.shape[1] - 1)
