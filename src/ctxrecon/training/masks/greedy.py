"""Training of a greedy policy on what single lines gain, with a reconstructor that is fixed."""

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
    """A policy; called on a batch it gives each sample's loss.

    Bakker et al., NeurIPS 2020: from a mask in the course of a scan, q lines are drawn from the
    policy, and each is rewarded with what it takes off the error of the image at once. The mask is
    the centre and as many lines of the policy's first scores as the step drew.

    Args:
        pipe: its sampler, a :class:`GreedyPolicy`, is trained; its reconstructor is fixed.
        samples: q.
        seed: of the steps' numbers of lines.
    """

    def __init__(self, pipe: JointPipeline, samples: int = 4, seed: int = 0) -> None:
        super().__init__()
        if not isinstance(pipe.sampler, GreedyPolicy):
            raise InputError(f"expected a greedy policy, got a {type(pipe.sampler).__name__}")
        budget = pipe.sampler.budget()
        if budget.kept == budget.count:
            raise InputError("the centre takes every line: there is nothing for a policy to choose")
        self.sampler: Any = pipe.sampler
        self.reconstructor: Any = pipe.reconstructor.requires_grad_(False)
        self.text_encoder = pipe.text_encoder
        if self.text_encoder is not None:
            self.text_encoder.requires_grad_(False)
        self.samples, self.seed = samples, seed

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of each sample, ``(batch,)``."""
        embeds = embed_tokens(self.text_encoder, batch)
        generator = torch.Generator().manual_seed(int(batch["seed"][0]))
        mask = self._underway(batch, embeds, generator)
        image, error = self._measure(mask, batch, embeds)
        lines, log_probabilities = self.sampler.step(image, mask, self.samples, generator)
        after = [
            self._measure(with_line, batch, embeds)[1]
            for with_line in with_lines(mask, lines).unbind(1)
        ]
        # Of an image without any error no line takes anything off.
        scale = error[:, None].clamp_min(1e-12)
        rewards = (error[:, None] - torch.stack(after, dim=1)) / scale
        return policy_gradient_loss(log_probabilities, rewards).expand(len(mask))

    @torch.no_grad()
    def _underway(
        self, batch: dict[str, Tensor], embeds: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """A mask in the course of a scan, ``(batch, 1, ny, nx)`` bool."""
        budget = self.sampler.budget()
        center = self.sampler.first_stage(None).bool()
        mask = self.sampler.as_mask(center[:, None]).expand(len(batch["kspace"]), -1, -1, -1)
        own = torch.Generator().manual_seed(self.seed * 2**40 + int(batch["step"][0]))
        count = int(torch.randint(budget.count - budget.kept, (), generator=own))
        if count == 0:
            return mask
        image, _ = self._measure(mask, batch, embeds)
        weights = self.sampler.log_probabilities(image, mask).exp().cpu()
        # A line that the policy has ruled out may still be needed to make up the number.
        weights = weights.clamp_min(1e-12).masked_fill(center.cpu(), 0)
        taken = torch.multinomial(weights, count, generator=generator).to(mask.device)
        return with_lines(mask, taken).any(dim=1)

    @torch.no_grad()
    def _measure(
        self, mask: Tensor, batch: dict[str, Tensor], embeds: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The image that the mask gives, ``(batch, ny, nx)``, and its ℓ1 error, ``(batch,)``."""
        y = batch["kspace"] * mask[:, None]
        operators = [CartesianSense(mask, batch["coil_maps"])]
        output = reconstruct_contrasts(self.reconstructor, operators, y, embeds)
        return output.images[:, 0], image_loss("l1", output, batch)
