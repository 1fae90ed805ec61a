"""A sampler and the network of a task as one trainable module, by InfoMRI's two objectives."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctxrecon.operators import WeightedSense
from ctxrecon.pipelines.task import TaskPipeline
from ctxrecon.tasks import (
    PosteriorEncoder,
    SampleEntropies,
    kl_divergence,
    segmentation_loss,
)
from ctxrecon.training.reconstructor.objective import paired_loss
from ctxrecon.training.samplers import draw_training_masks


@dataclass(frozen=True)
class TaskWeights:
    """λ₂, λ₃ and ``|β|`` of the losses; that of the task is 1.

    Attributes:
        latent: λ₂, of the divergence ``KL(q(h|y,z) ‖ q(h|y))``; 1 in the bound (19).
        latent_warmup: steps in which it rises to that in proportion, from next to nothing.
        reconstruction: λ₃, of the image's negative log-likelihood.
        entropy: of the entropy of the measurement in nats, divided by the number of its samples,
            so that it weighs the same at every acceleration.
    """

    latent: float = 1.0
    latent_warmup: int = 0
    reconstruction: float = 1.0
    entropy: float = 0.0


class TaskTraining(nn.Module):
    """What both tasks share; called on a batch it gives each sample's loss.

    Masks are tosses whose gradient is straight-through, drawn for each slice from its own seed, as
    is the acceleration where the sampler serves a range.

    Args:
        pipe: its parts are trained.
        weights: of the terms of the loss.
        entropies: of the samples, where their weight is not 0.
    """

    def __init__(
        self,
        pipe: TaskPipeline,
        weights: TaskWeights,
        entropies: SampleEntropies | None = None,
    ) -> None:
        super().__init__()
        self.sampler: Any = pipe.sampler
        self.network: Any = pipe.network
        self.weights, self.entropies = weights, entropies

    @abstractmethod
    def task_loss(
        self, zero_filled: Tensor, batch: dict[str, Tensor], noise: list[torch.Generator]
    ) -> Tensor:
        """The loss of each sample but for the entropy, ``(batch,)``.

        Args:
            zero_filled: ``Aᴴ y``, ``(batch, n, n)`` complex64.
            batch: see :class:`~ctxrecon.training.tasks.TaskSamples`.
            noise: a source for each sample.
        """

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of each sample, ``(batch,)``."""
        sources = [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]
        masks = draw_training_masks(self.sampler, sources, batch["kspace"].device)
        operator = WeightedSense(masks, batch["coil_maps"])
        zero_filled = operator.adjoint(masks * batch["kspace"])
        loss = self.task_loss(zero_filled, batch, sources)
        if self.entropies is not None:
            each = self.entropies.of(masks) / masks.detach().sum(dim=(1, 2, 3))
            loss = loss + self.weights.entropy * each.to(loss.dtype)
        return loss


class SegmentationTraining(TaskTraining):
    """``NLL(z|h) + λ₂ KL(q(h|y,z) ‖ q(h|y)) + λ₃ NLL(x|y)`` with h drawn from ``q(h|y,z)``.

    InfoMRI, equations (19) and (44), algorithm 2, divided by the number of pixels: likelihoods and
    divergence are sums, as in the bound, where λ₂ is 1. The published reductions, of which its
    weight of 50 is one, are not known. Far below 1 the posterior says more of the segmentation by h
    than the prior encoder can tell from the measurement, and draws of the prior are then none that
    a rater would make. Far above 1 a difference of raters that covers few pixels is not worth a
    latent; and from the start on, before the decoder makes use of a latent, none is worth it: so
    the weight rises at first (Bowman et al., CoNLL 2016).

    Of a deterministic segmenter only the likelihoods are left.

    Arguments are those of :class:`TaskTraining`, whose network is a segmenter.
    """

    def __init__(
        self,
        pipe: TaskPipeline,
        weights: TaskWeights,
        entropies: SampleEntropies | None = None,
    ) -> None:
        super().__init__(pipe, weights, entropies)
        self.image_decoder: Any = pipe.image_decoder
        sizes = dict(pipe.network.config)
        names = ("num_classes", "width", "depth", "layers", "latent_channels")
        self.posterior: PosteriorEncoder | None = None
        if not sizes["deterministic"]:
            self.posterior = PosteriorEncoder(**{name: sizes[name] for name in names})

    def task_loss(
        self, zero_filled: Tensor, batch: dict[str, Tensor], noise: list[torch.Generator]
    ) -> Tensor:
        """See :class:`TaskTraining`."""
        labels = batch["truth"]
        features, scale = self.network.encode(zero_filled)
        explained = prior = self.network.prior(features)
        if self.posterior is not None:
            explained = self.posterior(zero_filled, labels)
        drawn = self.network.draw_noise(zero_filled.shape, noise).to(zero_filled.device)
        loss = segmentation_loss(self.network.decode(explained.sample(drawn), features), labels)
        if self.posterior is not None:
            divergence = kl_divergence(explained, prior).flatten(1).sum(dim=1)
            risen = ((batch["step"] + 1) / max(self.weights.latent_warmup, 1)).clamp(max=1)
            loss = loss + risen * self.weights.latent / labels[0].numel() * divergence
        if self.image_decoder is None:
            return loss
        images, std = self.image_decoder(features, scale)
        inside = (batch["coil_maps"] != 0).any(dim=1)
        target = batch["target"] / scale
        surprise = paired_loss("gaussian", images / scale, std / scale, target, inside)
        return loss + self.weights.reconstruction * surprise


class TwoUNetsTraining(TaskTraining):
    """Cross entropy of the classes and mean squared error of the magnitude image.

    With both SemuNet; with the image alone and then, frozen, the task, LOUPE-UNet-RS or, of fixed
    masks, TradPat-UNet-RS; with the image and then the task alone, Tackle: InfoMRI, appendix B.

    Args:
        pipe: see :class:`TaskTraining`; its network is a :class:`~ctxrecon.tasks.TwoUNets`.
        weights: likewise.
        entropies: likewise.
        aim: "both", "task" or "reconstruction"; for the latter the segmentation is frozen.
    """

    def __init__(
        self,
        pipe: TaskPipeline,
        weights: TaskWeights,
        entropies: SampleEntropies | None = None,
        aim: str = "both",
    ) -> None:
        super().__init__(pipe, weights, entropies)
        self.aim = aim
        if aim == "reconstruction":
            self.network.segmentation.requires_grad_(False)

    def task_loss(
        self, zero_filled: Tensor, batch: dict[str, Tensor], noise: list[torch.Generator]
    ) -> Tensor:
        """See :class:`TaskTraining`."""
        features, scale = self.network.encode(zero_filled)
        if self.aim == "task":
            return segmentation_loss(self.network.logits(features), batch["truth"])
        error = features[:, 0] - (batch["target"] / scale).abs()
        distance = error.square().flatten(1).mean(dim=1)
        if self.aim == "reconstruction":
            return distance
        loss = segmentation_loss(self.network.logits(features), batch["truth"])
        return loss + self.weights.reconstruction * distance


class LINetTraining(TaskTraining):
    """Cross entropy of segmentations that are coded and decoded; then the error of their latent.

    LI-Net's two stages (InfoMRI, equations (38) and (39)): in each what belongs to the other is
    frozen.

    Args:
        pipe: see :class:`TaskTraining`; its network is a :class:`~ctxrecon.tasks.LINet`.
        weights: likewise.
        entropies: likewise.
        aim: "labels", the autoencoder, or "task", the latent from the measurement.
    """

    def __init__(
        self,
        pipe: TaskPipeline,
        weights: TaskWeights,
        entropies: SampleEntropies | None = None,
        aim: str = "task",
    ) -> None:
        super().__init__(pipe, weights, entropies)
        self.aim = aim
        first, second = [self.network.label_encoder, self.network.decoder], [self.network.encoder]
        for frozen in first if aim == "task" else [*second, self.sampler]:
            frozen.requires_grad_(False)

    def task_loss(
        self, zero_filled: Tensor, batch: dict[str, Tensor], noise: list[torch.Generator]
    ) -> Tensor:
        """See :class:`TaskTraining`."""
        labels = batch["truth"]
        latent = self.network.encode_labels(labels)
        if self.aim == "labels":
            return segmentation_loss(self.network.logits(latent), labels)
        predicted, _ = self.network.encode(zero_filled)
        return (predicted - latent).square().flatten(1).mean(dim=1)


class ClassificationTraining(TaskTraining):
    """``NLL(z|y) + |β| Ĥ(y)`` with a Bernoulli variable for each finding, its mean over them.

    InfoMRI, equation (12), algorithm 4.

    Arguments are those of :class:`TaskTraining`, whose network is a classifier.
    """

    def task_loss(
        self, zero_filled: Tensor, batch: dict[str, Tensor], noise: list[torch.Generator]
    ) -> Tensor:
        """See :class:`TaskTraining`."""
        logits = self.network(zero_filled)
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, batch["truth"], reduction="none"
        )
        return loss.mean(dim=1)
