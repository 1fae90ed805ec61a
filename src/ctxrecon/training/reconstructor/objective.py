"""A reconstructor as one trainable module, with its critic and text encoder, and its losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctxrecon.errors import InputError
from ctxrecon.fourier import complex_to_channels
from ctxrecon.metrics.image import structural_similarity
from ctxrecon.operators import CartesianSense
from ctxrecon.pipelines import ReconstructionPipeline
from ctxrecon.reconstructors import Critic, Reconstructor, ReconstructorOutput, likelihood_std
from ctxrecon.training.reconstructor.adversarial import (
    critic_loss,
    fixed_scores,
    generator_loss,
    paired_share,
)
from ctxrecon.training.reconstructor.config import ADVERSARIAL, LOSSES
from ctxrecon.training.reconstructor.data import Labels


@dataclass(frozen=True)
class Objective:
    """What a reconstructor is trained for.

    Attributes:
        loss: of an image and its target: "l1"; "ssim", l1 and the structural similarity of
            magnitudes; "gaussian", the likelihood whose variance is predicted; or "none".
        adversarial: one of :data:`ADVERSARIAL`, or ``None``.
        paired_share: λ at the end, of ``λ loss + (1 − λ) adversarial``.
        paired_start: steps with λ = 1 at the beginning.
        paired_end: step from which on λ is ``paired_share``.
        consistency: γ of ``γ ‖A x − y‖₂``, which a generator that has a critic and no paired loss
            minimises as well: all that it knows of its own scan. Both ``‖A x − y‖₂`` and a
            Wasserstein critic change by at most 1 where x does by 1, so γ = 1 balances them.
        critic_width: see :class:`~ctxrecon.reconstructors.Critic`.
        critic_steps: the generator is trained at every such step, the critic at each.
    """

    loss: str = "l1"
    adversarial: str | None = None
    paired_share: float = 0.99
    paired_start: int = 500
    paired_end: int = 1000
    consistency: float = 1.0
    critic_width: int = 4
    critic_steps: int = 1

    def check(self, labels: Labels, network: Reconstructor) -> None:
        """Refuse what the labels or the network cannot serve.

        Raises:
            InputError: in a sentence of its own for each.
        """
        if self.loss not in LOSSES:
            raise InputError(f"unknown loss {self.loss!r}: expected one of {', '.join(LOSSES)}")
        if self.adversarial is not None and self.adversarial not in ADVERSARIAL:
            raise InputError(
                f"unknown adversarial loss {self.adversarial!r}: expected one of "
                + ", ".join(ADVERSARIAL)
            )
        if not 0 <= self.paired_share <= 1:
            raise InputError(f"expected a paired share from 0 to 1, got {self.paired_share}")
        if self.consistency < 0:
            raise InputError(f"expected a consistency of 0 or more, got {self.consistency:g}")
        if self.critic_steps < 1:
            raise InputError(f"expected 1 or more critic steps, got {self.critic_steps}")
        if labels.kind == "paired" and self.loss == "none" and self.adversarial is None:
            raise InputError("nothing to train for: give --loss, --adversarial or both")
        if labels.kind in ("partial", "disjoint") and (
            self.loss != "none" or self.adversarial is None
        ):
            raise InputError(
                f"{labels.kind} labels are not paired with scans, so only a critic can use them: "
                "give --loss none --adversarial wgan_gp"
            )
        if labels.kind == "none" and (self.loss != "none" or self.adversarial is not None):
            raise InputError(
                "without labels the loss is that of the samples held out: give --loss none and "
                "no --adversarial"
            )
        if network.learns_prior:
            raise InputError(
                f"the denoiser of a {type(network).__name__} is trained by train_sampler.py: for "
                "masks that are not learned give it --sampler fixed:mask=uniform1d"
            )
        if (self.loss == "gaussian") != network.predicts_error:
            raise InputError(
                "the gaussian loss trains the predicted error, and nothing else does: give "
                "--loss gaussian and --predict_std together"
            )


class ReconstructorTraining(nn.Module):
    """Reconstructor, critic and text encoder; called on a batch it gives each sample's loss.

    The generator's and the critic's losses are added up: each gets the gradient of its own alone,
    so that one backward pass moves both, at the same time.

    Args:
        pipe: its reconstructor is trained; its text encoder stays as it is.
        objective: what for.
        labels: what a batch holds.
        seed: of the critic's first weights.
    """

    def __init__(
        self, pipe: ReconstructionPipeline, objective: Objective, labels: Labels, seed: int = 0
    ) -> None:
        super().__init__()
        objective.check(labels, pipe.reconstructor)
        self.reconstructor: Any = pipe.reconstructor
        self.text_encoder: Any = pipe.text_encoder
        if self.text_encoder is not None:
            self.text_encoder.requires_grad_(False)
        self.objective, self.labels = objective, labels
        self.critic: Any = None
        if objective.adversarial is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.critic = Critic(labels.magnitude, objective.critic_width)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of each sample, ``(batch,)``."""
        embeds = None
        if self.text_encoder is not None:
            embeds = self.text_encoder(batch["tokens"]).pooler_output
        operator = CartesianSense(batch["mask"], batch["coil_maps"])
        plays = self._plays(batch)
        with torch.set_grad_enabled(plays and torch.is_grad_enabled()):
            output = self.reconstructor(operator, batch["kspace"] * batch["mask"], embeds)
        if not plays:
            return self._judged(output.images, batch)
        if self.labels.kind == "none":
            loss = held_out_loss(output.images, batch)
        else:
            loss = self._labeled(output, batch)
        return loss if output.penalty is None else loss + output.penalty

    def _plays(self, batch: dict[str, Tensor]) -> bool:
        """Whether the generator is trained at this step, not the critic alone."""
        every = self.objective.critic_steps
        return self.critic is None or every == 1 or int(batch["step"][0]) % every == every - 1

    def _judged(self, images: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """What the critic minimises."""
        assert self.objective.adversarial is not None
        real = self.critic.seen(batch["label" if "label" in batch else "target"])
        fake = self.critic.seen(images.detach())
        # The penalty is of a gradient, which half precision would round.
        with torch.autocast(fake.device.type, enabled=False):
            return critic_loss(self.objective.adversarial, self.critic, real, fake, batch["share"])

    def _labeled(self, output: ReconstructorOutput, batch: dict[str, Tensor]) -> Tensor:
        """Paired, adversarial, or both."""
        objective = self.objective
        paired: Tensor | None = None
        if objective.loss != "none":
            inside = (batch["coil_maps"] != 0).any(dim=1)
            paired = paired_loss(
                objective.loss, output.images, likelihood_std(output), batch["target"], inside
            )
        if objective.adversarial is None:
            assert paired is not None
            return paired
        judged = self._judged(output.images, batch)
        fake = self.critic.seen(output.images)
        with torch.autocast(fake.device.type, enabled=False):
            played = generator_loss(objective.adversarial, fixed_scores(self.critic, fake))
        if paired is None:
            return played + objective.consistency * data_distance(output.images, batch) + judged
        share = paired_share(
            batch["step"],
            objective.paired_start,
            objective.paired_end,
            objective.paired_share,
        )
        return share * paired + (1 - share) * played + judged


def paired_loss(
    kind: str, images: Tensor, std: Tensor | None, target: Tensor, inside: Tensor
) -> Tensor:
    """Distance of images from their targets, one value for each.

    Args:
        kind: "l1", the mean of ``|x − x̂|`` over real and imaginary parts; "mse", that of its
            square; "ssim", "l1" and ``1 − SSIM`` of the magnitudes; "gaussian", the mean of
            ``|x − x̂|²/σ² + 2 log σ``, the likelihood of Kendall and Gal (NeurIPS 2017) for complex
            numbers, or, with a σ of each part, of the sum over both of
            ``½ (x − x̂)²/σ² + log σ``: InfoMRI, equation (42).
        images: ``x̂``, ``(batch, ny, nx)`` complex.
        std: ``σ``, likewise, real, or ``(batch, 2, ny, nx)`` of the parts, for "gaussian".
        target: ``x``.
        inside: pixels that some coil sees, bool; elsewhere there is nothing to be unsure of.
    """
    difference = complex_to_channels(images - target)
    if kind == "mse":
        return difference.square().flatten(1).mean(dim=1)
    distance = difference.abs().flatten(1).mean(dim=1)
    if kind == "ssim":
        return distance + 1 - _ssim(images.abs(), target.abs())
    if kind == "gaussian":
        assert std is not None
        if std.ndim == difference.ndim:
            surprise = (difference.square() / std.square() / 2 + std.log()).sum(dim=1)
        else:
            surprise = difference.square().sum(dim=1) / std.square() + 2 * std.log()
        surprise = surprise * inside
        return surprise.flatten(1).sum(dim=1) / inside.flatten(1).sum(dim=1).clamp_min(1)
    return distance


def _ssim(images: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of each slice, differentiable, ``(batch,)``."""
    # An empty target, as of a slice outside the head, has no range of its own.
    peak = target.flatten(1).amax(dim=1).clamp_min(1e-6)[:, None, None]
    return structural_similarity(images, target, peak).flatten(1).mean(dim=1)


def data_distance(images: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """``‖A x − y‖₂`` of each slice, ``(batch,)``.

    Args:
        images: ``(batch, ny, nx)`` complex.
        batch: with ``kspace``, ``mask`` and ``coil_maps``.
    """
    difference = CartesianSense(batch["mask"], batch["coil_maps"])(images)
    difference = difference - batch["kspace"] * batch["mask"]
    return torch.view_as_real(difference).flatten(1).norm(dim=1)


def held_out_loss(images: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """``‖u − v‖₂/‖u‖₂ + ‖u − v‖₁/‖u‖₁`` over the samples that the network did not see.

    Yaman et al., Magn Reson Med 84:3172 (2020), formula (7): u measured, v predicted by the image.

    Args:
        images: ``(batch, ny, nx)`` complex.
        batch: with ``kspace``, ``held_out`` and ``coil_maps``.
    """
    predicted = CartesianSense(batch["held_out"], batch["coil_maps"])(images)
    measured = batch["kspace"] * batch["held_out"]
    difference = torch.view_as_real(predicted - measured).flatten(1)
    u = torch.view_as_real(measured).flatten(1)
    return sum(difference.norm(p=p, dim=1) / u.norm(p=p, dim=1).clamp_min(1e-12) for p in (2, 1))
