"""A policy that takes one line at a time, trained on what each gains: a baseline."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import register_to_config
from torch import Tensor
from torch.nn.functional import one_hot

from ctxrecon.errors import InputError
from ctxrecon.masks.budget import Shape
from ctxrecon.masks.learned.adaptive import AdaptiveSampler, Measure, StagedMask


class GreedyPolicy(AdaptiveSampler):
    """``π(a | x̂) = softmax`` of the scores of the lines that are left.

    The greedy policy of Bakker et al., "Experimental design for MRI by greedy policy search",
    NeurIPS 2020 (PGMRI): the reconstruction network is trained before and stays as it is; the
    policy is trained by :func:`policy_gradient_loss` on the gain in quality that each line brings
    at once. The paper's policy is a convolutional network on the image with fully connected layers
    at its end; this one sees the image's k-space as well
    (:class:`~ctxrecon.masks.learned.adaptive.PositionScore`).

    A step of training, with an image x̂ and its mask::

        lines, log_probabilities = policy.step(image, mask, samples=8, generator=g)
        masks = with_lines(mask, lines)          # (batch, samples, 1, ny, nx)
        rewards = quality(masks) - quality(mask)  # (batch, samples)
        policy_gradient_loss(log_probabilities, rewards).backward()

    Args:
        shape: ``(ny, nx)``.
        acceleration: ``nx`` over the number of lines, centre included.
        center_fraction: share of the lines that is always kept, not 0; ``None`` for
            ``0.32 / acceleration``.
        width: features of the network.
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
        """``log π``, ``(batch, nx)`` float32, ``-inf`` for lines of the mask.

        Args:
            image: ``(batch, ny, nx)`` complex64, reconstructed from what the mask takes.
            mask: ``(batch or 1, 1, ny, nx)`` bool, whole lines.

        Raises:
            InputError: a mask that has all lines.
        """
        taken = mask[:, 0, 0]
        if bool(taken.all(dim=1).any()):
            raise InputError("expected masks with lines left to take, got one that has them all")
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
            image: see :meth:`log_probabilities`.
            mask: likewise.
            samples: how many, of each image.
            generator: source of the draws.

        Returns:
            Columns ``(batch, samples)`` int64, and their ``log π``, differentiable.
        """
        log_probabilities = self.log_probabilities(image, mask)
        device = "cpu" if generator is None else generator.device
        weights = log_probabilities.detach().exp().to(device)
        lines = torch.multinomial(weights, samples, replacement=True, generator=generator)
        lines = lines.to(log_probabilities.device)
        return lines, log_probabilities.gather(1, lines)

    @torch.no_grad()
    def forward(self, measure: Measure, acceleration: float | None = None) -> StagedMask:
        """Take the likeliest line, reconstruct, and so on until the budget is spent.

        Args:
            measure: reconstructs from the mask so far, bool; it is called once for each line.
            acceleration: by default the policy's own.

        Returns:
            Masks, bool, with a stage for each line.

        Raises:
            InputError: an impossible acceleration, an empty centre, or images of another shape.
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
    """The mask with one more line, for each line: ``(batch, samples, 1, ny, nx)`` bool.

    Args:
        mask: ``(batch or 1, 1, ny, nx)`` bool.
        lines: columns, ``(batch, samples)`` int64.
    """
    return mask[:, None] | one_hot(lines, mask.shape[-1]).bool()[:, :, None, None, :]


def policy_gradient_loss(log_probabilities: Tensor, rewards: Tensor) -> Tensor:
    """``−1/(q − 1) Σ_i (r_i − r̄) log π(a_i)``, the mean over the batch.

    REINFORCE with the mean reward of the q lines drawn for an image as the baseline (Kool et al.,
    2019), as PGMRI trains its greedy policy. Its gradient is that of ``−E r``, without a bias.

    Args:
        log_probabilities: ``log π(a_i)``, ``(batch, q)``.
        rewards: r, ``(batch, q)``; they get no gradient.

    Raises:
        InputError: shapes that differ, or fewer than two lines.
    """
    if log_probabilities.shape != rewards.shape or rewards.ndim != 2 or rewards.shape[1] < 2:
        raise InputError(
            "expected log probabilities and rewards (batch, samples) of two samples or more, got "
            f"{tuple(log_probabilities.shape)} and {tuple(rewards.shape)}"
        )
    rewards = rewards.detach()
    advantages = rewards - rewards.mean(dim=1, keepdim=True)
    return -(advantages * log_probabilities).sum(dim=1).mean() / (rewards.shape[1] - 1)
