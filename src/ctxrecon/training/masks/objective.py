"""Sampler and reconstructor as one trainable module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctxrecon.errors import InputError
from ctxrecon.masks.learned import GreedyPolicy, SequentialSampler
from ctxrecon.operators import WeightedSense
from ctxrecon.pipelines.joint import JointPipeline
from ctxrecon.reconstructors import (
    MultiContrastOutput,
    intensity,
    likelihood_std,
    reconstruct_contrasts,
)
from ctxrecon.training.masks.config import AIMS, JOINT_LOSSES
from ctxrecon.training.reconstructor.objective import paired_loss
from ctxrecon.training.samplers import draw_training_masks

_MAP_UNIT = 100.0
"""Unit of T2* errors in ms, about the T2* of tissue."""


@dataclass(frozen=True)
class JointObjective:
    """Training objective of a sampler and a reconstructor.

    Attributes:
        aim: "reconstruction" for the images, "task" for their T2* map, or "both".
        loss: Loss of the images, see :func:`~ctxrecon.training.reconstructor.paired_loss`.
        task_weight: Weight of the map's mean squared error in units of (100 ms)², for "both".
    """

    aim: str = "reconstruction"
    loss: str = "l1"
    task_weight: float = 1.0

    def check(self, pipe: JointPipeline) -> None:
        """Validate the objective against the parts of the pipeline.

        Raises:
            InputError: If a value is invalid, or the parts do not support the objective.
        """
        if self.aim not in AIMS or self.loss not in JOINT_LOSSES:
            raise InputError(
                f"expected `aim` as one of {', '.join(AIMS)} and `loss` as one of "
                f"{', '.join(JOINT_LOSSES)}, "
                f"got {self.aim!r} and {self.loss!r}"
            )
        if not self.task_weight > 0:
            raise InputError(f"expected a positive `task_weight`, got {self.task_weight:g}")
        if (self.aim != "reconstruction") != (pipe.relaxometer is not None):
            raise InputError(
                "the task is a T2* map: train for it, alone or with the reconstruction, if and "
                "only if the contrasts are echoes"
            )
        if (self.loss == "gaussian") != pipe.reconstructor.predicts_error:
            raise InputError(
                "the gaussian loss is needed to train the predicted error: use --loss gaussian and "
                "--predict_std together, or a network with predict_std=joint"
            )
        if self.loss == "gaussian" and self.aim == "task":
            raise InputError("--aim task does not train the predicted error: use --aim both")
        if isinstance(pipe.sampler, GreedyPolicy):
            raise InputError(
                "a greedy policy is trained by the gain of single lines: use GreedyTraining"
            )


class JointTraining(nn.Module):
    """Sampler, reconstructor and map as a module that maps a batch to each sample's loss.

    JoJoNet, equations (2) and (5). Masks are random decisions with a straight-through gradient
    (:meth:`~ctxrecon.masks.learned.Sampler.relaxed`), drawn for each slice from its own seed. So is
    its acceleration, if the sampler covers a range. All contrasts have equal weight: the error of
    each is divided by the 99 % quantile of its target.

    Args:
        pipe: Pipeline whose sampler and reconstructor are trained; the other parts are frozen.
        objective: Training objective.
    """

    def __init__(self, pipe: JointPipeline, objective: JointObjective) -> None:
        super().__init__()
        objective.check(pipe)
        self.sampler: Any = pipe.sampler
        self.reconstructor: Any = pipe.reconstructor
        self.relaxometer, self.text_encoder = pipe.relaxometer, pipe.text_encoder
        for fixed in (self.relaxometer, self.text_encoder):
            if fixed is not None:
                fixed.requires_grad_(False)
        self.objective = objective

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of each sample, ``(batch,)``."""
        embeds = embed_tokens(self.text_encoder, batch)
        weights = self._weights(batch, embeds)
        output = self._measure(weights, batch, embeds)
        loss = torch.zeros(len(weights), device=weights.device)
        if self.objective.aim != "task":
            loss = loss + image_loss(self.objective.loss, output, batch)
        if self.objective.aim != "reconstruction":
            weight = self.objective.task_weight if self.objective.aim == "both" else 1.0
            loss = loss + weight * self._map_loss(output.images, batch["target"])
        if getattr(self.reconstructor, "learns_prior", False):
            loss = loss + self._prior_loss(batch, embeds)
        return loss if output.penalty is None else loss + output.penalty

    def _prior_loss(self, batch: dict[str, Tensor], embeds: Tensor | None) -> Tensor:
        """Return the network's loss on images alone, averaged over the contrasts."""
        target = batch["target"]
        # Random numbers independent of those of the masks.
        own = [torch.Generator().manual_seed(2**62 + seed) for seed in batch["seed"].tolist()]
        generators = [each for each in own for _ in range(target.shape[1])]
        embeds = None if embeds is None else embeds.flatten(0, 1)
        loss = self.reconstructor.prior_loss(target.flatten(0, 1), generators, embeds)
        return loss.unflatten(0, target.shape[:2]).mean(dim=1)

    def _weights(self, batch: dict[str, Tensor], embeds: Tensor | None) -> Tensor:
        """Return relaxed masks, ``(batch, contrasts or 1, 1, ny, nx)`` float32."""
        generators = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
        if isinstance(self.sampler, SequentialSampler):

            def image(mask: Tensor) -> Tensor:
                return self._measure(mask[:, None], batch, embeds).images[:, 0]

            return self.sampler.relaxed(image, generator=generators).mask[:, None]
        weights = draw_training_masks(self.sampler, generators, batch["kspace"].device)
        return weights[:, None] if weights.ndim == 4 else weights

    def _measure(
        self, weights: Tensor, batch: dict[str, Tensor], embeds: Tensor | None
    ) -> MultiContrastOutput:
        kspace, maps = batch["kspace"], batch["coil_maps"]
        contrasts = kspace.shape[1]
        if weights.shape[1] not in (1, contrasts):
            raise InputError(f"the sampler has {weights.shape[1]} masks for {contrasts} contrasts")
        # An expanded row stays a view, so that the operator is one-dimensional.
        each = [weights[:, c % weights.shape[1]] for c in range(contrasts)]
        operators = [WeightedSense(mask, maps) for mask in each]
        y = torch.stack([mask * kspace[:, c] for c, mask in enumerate(each)], dim=1)
        return reconstruct_contrasts(self.reconstructor, operators, y, embeds)

    def _map_loss(self, images: Tensor, target: Tensor) -> Tensor:
        """Return the mean squared error of the T2* map against that of the full data."""
        assert self.relaxometer is not None
        # Half precision would round long T2* by milliseconds.
        with torch.autocast(images.device.type, enabled=False):
            error = self.relaxometer(images) - self.relaxometer(target)
        return (error / _MAP_UNIT).square().flatten(1).mean(dim=1)


def embed_tokens(text_encoder: Any, batch: dict[str, Tensor]) -> Tensor | None:
    """Return prompt embeddings ``(batch, contrasts, width)``, or ``None`` without an encoder."""
    if text_encoder is None:
        return None
    tokens = batch["tokens"]
    found = text_encoder(tokens.flatten(0, 1)).pooler_output
    return found.unflatten(0, tokens.shape[:2])


def image_loss(kind: str, output: MultiContrastOutput, batch: dict[str, Tensor]) -> Tensor:
    """Return the loss averaged over the contrasts, ``(batch,)``.

    Args:
        kind: Kind of loss, see :func:`~ctxrecon.training.reconstructor.paired_loss`.
        output: Output of a reconstructor.
        batch: Batch with ``target`` and ``coil_maps``.
    """
    target = batch["target"]
    contrasts = target.shape[1]
    scale = intensity(target.flatten(0, 1))
    std = likelihood_std(output)
    if std is not None:
        std = std.flatten(0, 1)
        std = std / scale.view(-1, *[1] * (std.ndim - 1))
    inside = (batch["coil_maps"] != 0).any(dim=1).repeat_interleave(contrasts, dim=0)
    images = output.images.flatten(0, 1) / scale
    loss = paired_loss(kind, images, std, target.flatten(0, 1) / scale, inside)
    return loss.unflatten(0, (-1, contrasts)).mean(dim=1)
