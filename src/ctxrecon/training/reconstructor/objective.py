"""Reconstructor, critic and text encoder as one trainable module, and its losses."""

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
    """Training objective of a reconstructor.

    Attributes:
        loss: Paired loss: "l1"; "mse"; "ssim", which is l1 plus the structural dissimilarity of
            magnitudes; "gaussian", the likelihood with predicted variance; or "none".
        adversarial: One of :data:`ADVERSARIAL`, or ``None``.
        paired_share: Final λ of ``λ loss + (1 − λ) adversarial``.
        paired_start: Number of initial steps with λ = 1.
        paired_end: Step at which λ reaches ``paired_share``.
        consistency: Weight γ of ``γ ‖A x − y‖₂``, which is added if a generator has a critic but no
            paired loss, as its only information about its own scan. Both ``‖A x − y‖₂`` and a
            Wasserstein critic have slope 1 at most, so γ = 1 balances them.
        critic_width: Number of features of the critic, see
            :class:`~ctxrecon.reconstructors.Critic`.
        critic_steps: Number of critic steps per generator step.
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
        """Validate the objective against labels and network.

        Raises:
            InputError: If a value is invalid, or the labels or the network do not support it.
        """
        if self.loss not in LOSSES:
            raise InputError(f"unknown loss {self.loss!r}: expected one of {', '.join(LOSSES)}")
        if self.adversarial is not None and self.adversarial not in ADVERSARIAL:
            raise InputError(
                f"unknown adversarial loss {self.adversarial!r}: expected one of "
                + ", ".join(ADVERSARIAL)
            )
        if not 0 <= self.paired_share <= 1:
            raise InputError(f"expected `paired_share` from 0 to 1, got {self.paired_share}")
        if self.consistency < 0:
            raise InputError(f"expected `consistency` of at least 0, got {self.consistency:g}")
        if self.critic_steps < 1:
            raise InputError(f"expected `critic_steps` of at least 1, got {self.critic_steps}")
        if labels.kind == "paired" and self.loss == "none" and self.adversarial is None:
            raise InputError("nothing to train for: set --loss, --adversarial or both")
        if labels.kind in ("partial", "disjoint") and (
            self.loss != "none" or self.adversarial is None
        ):
            raise InputError(
                f"{labels.kind} labels are not paired with scans, so only a critic can use them: "
                "use --loss none --adversarial wgan_gp"
            )
        if labels.kind == "none" and (self.loss != "none" or self.adversarial is not None):
            raise InputError(
                "without labels the loss is that of the held-out samples: use --loss none and "
                "no --adversarial"
            )
        if network.learns_prior:
            raise InputError(
                f"the denoiser of a {type(network).__name__} is trained by train_sampler.py: use "
                "it with --sampler fixed:mask=uniform1d for masks that are not learned"
            )
        if (self.loss == "gaussian") != network.predicts_error:
            raise InputError(
                "the gaussian loss is needed to train the predicted error: use --loss gaussian and "
                "--predict_std together"
            )


class ReconstructorTraining(nn.Module):
    """Reconstructor, critic and text encoder as a module that maps a batch to each sample's loss.

    The losses of generator and critic are added. Each of them receives the gradient of its own loss
    only, so that a single backward pass updates both.

    Args:
        pipe: Pipeline whose reconstructor is trained; its text encoder is frozen.
        objective: Training objective.
        labels: Labels contained in a batch.
        seed: Random seed of the critic's initial weights.
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
        """Return the loss of each sample, ``(batch,)``."""
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
        """Return whether the generator is trained in this step, not only the critic."""
        every = self.objective.critic_steps
        return self.critic is None or every == 1 or int(batch["step"][0]) % every == every - 1

    def _judged(self, images: Tensor, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of the critic."""
        assert self.objective.adversarial is not None
        real = self.critic.seen(batch["label" if "label" in batch else "target"])
        fake = self.critic.seen(images.detach())
        # The penalty involves a gradient, for which half precision is too coarse.
        with torch.autocast(fake.device.type, enabled=False):
            return critic_loss(self.objective.adversarial, self.critic, real, fake, batch["share"])

    def _labeled(self, output: ReconstructorOutput, batch: dict[str, Tensor]) -> Tensor:
        """Return the paired loss, the adversarial loss, or both."""
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
    """Return the distance of images from their targets, one value per image.

    Args:
        kind: Kind of loss. "l1": mean of ``|x − x̂|`` over real and imaginary parts. "mse": mean of
            its square. "ssim": "l1" plus ``1 − SSIM`` of the magnitudes. "gaussian": mean of
            ``|x − x̂|²/σ² + 2 log σ``, the likelihood of Kendall and Gal (NeurIPS 2017) for complex
            numbers, or, with a separate σ for each part, of the sum of
            ``½ (x − x̂)²/σ² + log σ`` over both (InfoMRI, equation (42)).
        images: Complex images ``x̂``, ``(batch, ny, nx)``.
        std: Standard deviations ``σ`` for "gaussian", real ``(batch, ny, nx)``, or
            ``(batch, 2, ny, nx)`` for the parts.
        target: Complex targets ``x``, ``(batch, ny, nx)``.
        inside: Pixels with coil sensitivity, ``(batch, ny, nx)`` bool; only these contribute to
            "gaussian".
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
    """Return the differentiable structural similarity of each slice, ``(batch,)``."""
    # An empty target, such as a slice outside the head, has no intensity range.
    peak = target.flatten(1).amax(dim=1).clamp_min(1e-6)[:, None, None]
    return structural_similarity(images, target, peak).flatten(1).mean(dim=1)


def data_distance(images: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return ``‖A x − y‖₂`` of each slice, ``(batch,)``.

    Args:
        images: Complex images ``(batch, ny, nx)``.
        batch: Batch with ``kspace``, ``mask`` and ``coil_maps``.
    """
    difference = CartesianSense(batch["mask"], batch["coil_maps"])(images)
    difference = difference - batch["kspace"] * batch["mask"]
    return torch.view_as_real(difference).flatten(1).norm(dim=1)


def held_out_loss(images: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return ``‖u − v‖₂/‖u‖₂ + ‖u − v‖₁/‖u‖₁`` over the held-out samples.

    Yaman et al., Magn Reson Med 84:3172 (2020), formula (7), with u measured and v predicted from
    the image.

    Args:
        images: Complex images ``(batch, ny, nx)``.
        batch: Batch with ``kspace``, ``held_out`` and ``coil_maps``.
    """
    predicted = CartesianSense(batch["held_out"], batch["coil_maps"])(images)
    measured = batch["kspace"] * batch["held_out"]
    difference = torch.view_as_real(predicted - measured).flatten(1)
    u = torch.view_as_real(measured).flatten(1)
    return sum(difference.norm(p=p, dim=1) / u.norm(p=p, dim=1).clamp_min(1e-12) for p in (2, 1))
