"""Training of a greedy policy on the gain of single lines, with a fixed reconstructor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ctxrecon.errors import InputError
from ctxrecon.masks.learned import GreedyPolicy, policy_gradient_loss, with_lines
from ctxrecon.operators import CartesianSense
from ctxrecon.pipelines.joint import JointPipeline
from ctxrecon.reconstructors import reconstruct_contrasts
from ctxrecon.training.masks.objective import embed_tokens, image_loss


class GreedyTraining(nn.Module):
    """Policy as a module that maps a batch to each sample's loss.

    Bakker et al., NeurIPS 2020. From a mask at a random stage of a scan, q lines are drawn from the
    policy, and each is rewarded with the immediate reduction of the image error. The mask consists
    of the center and lines drawn by the policy's initial scores; their number is drawn per step.

    Args:
        pipe: Pipeline whose sampler, a :class:`GreedyPolicy`, is trained; its reconstructor is
            fixed.
        samples: Number q of lines.
        seed: Random seed of the number of lines in each step.
    """

    def __init__(self, pipe: JointPipeline, samples: int = 4, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(pipe.sampler, GreedyPolicy):
            raise InputError(f"expected a greedy policy, got a {type(pipe.sampler).__name__}")
        budget = pipe.sampler.budget()
        if budget.kept == budget.count:
            raise InputError("the center contains every line: there is nothing left to choose")
        self.sampler: Any = pipe.sampler
        self.reconstructor: Any = pipe.reconstructor.requires_grad_(False)
        self.text_encoder = pipe.text_encoder
        if self.text_encoder is not None:
            self.text_encoder.requires_grad_(False)
        self.samples, self.seed = samples, seed

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of each sample, ``(batch,)``."""
        embeds = embed_tokens(self.text_encoder, batch)
        generator = torch.Generator().manual_seed(int(batch["seed"][0]))
        mask = self._underway(batch, embeds, generator)
        image, error = self._measure(mask, batch, embeds)
        lines, log_probabilities = self.sampler.step(image, mask, self.samples, generator)
        after = [
            self._measure(with_line, batch, embeds)[1]
            for with_line in with_lines(mask, lines).unbind(1)
        ]
        # An image without error has no room for improvement.
        scale = error[:, None].clamp_min(1e-12)
        rewards = (error[:, None] - torch.stack(after, dim=1)) / scale
        return policy_gradient_loss(log_probabilities, rewards).expand(len(mask))

    @torch.no_grad()
    def _underway(
        self, batch: dict[str, Tensor], embeds: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Return masks at a random stage of a scan, ``(batch, 1, ny, nx)`` bool."""
        budget = self.sampler.budget()
        center = self.sampler.first_stage(None).bool()
        mask = self.sampler.as_mask(center[:, None]).expand(len(batch["kspace"]), -1, -1, -1)
        own = torch.Generator().manual_seed(self.seed * 2**40 + int(batch["step"][0]))
        count = int(torch.randint(budget.count - budget.kept, (), generator=own))
        if count == 0:
            return mask
        image, _ = self._measure(mask, batch, embeds)
        weights = self.sampler.log_probabilities(image, mask).exp().cpu()
        # Lines that the policy excludes may still be needed to reach the count.
        weights = weights.clamp_min(1e-12).masked_fill(center.cpu(), 0)
        taken = torch.multinomial(weights, count, generator=generator).to(mask.device)
        return with_lines(mask, taken).any(dim=1)

    @torch.no_grad()
    def _measure(
        self, mask: Tensor, batch: dict[str, Tensor], embeds: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the reconstructions ``(batch, ny, nx)`` and their ℓ1 errors ``(batch,)``."""
        y = batch["kspace"] * mask[:, None]
        operators = [CartesianSense(mask, batch["coil_maps"])]
        output = reconstruct_contrasts(self.reconstructor, operators, y, embeds)
        return output.images[:, 0], image_loss("l1", output, batch)
