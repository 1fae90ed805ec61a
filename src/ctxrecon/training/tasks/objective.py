"""Sampler and task network as one trainable module, with InfoMRI's two objectives."""

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
    """Weights λ₂, λ₃ and ``|β|`` of the losses; the weight of the task is 1.

    Attributes:
        latent: Weight λ₂ of the divergence ``KL(q(h|y,z) ‖ q(h|y))``; 1 in the bound (19).
        latent_warmup: Number of steps over which this weight rises linearly.
        reconstruction: Weight λ₃ of the image's negative log-likelihood.
        entropy: Weight of the entropy of the measurement in nats, divided by the number of its
            samples, so that it is comparable between accelerations.
    """

    latent: float = 1.0
    latent_warmup: int = 0
    reconstruction: float = 1.0
    entropy: float = 0.0


class TaskTraining(nn.Module):
    """Base class of task training: maps a batch to each sample's loss.

    Masks are random decisions with a straight-through gradient, drawn for each slice from its own
    seed. So is its acceleration, if the sampler covers a range.

    Args:
        pipe: Pipeline whose parts are trained.
        weights: Weights of the terms of the loss.
        entropies: Entropies of the samples, if their weight is not 0.
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
        """Return the loss of each sample without the entropy, ``(batch,)``.

        Args:
            zero_filled: Zero-filled images ``Aᴴ y``, ``(batch, n, n)`` complex64.
            batch: Batch of :class:`~ctxrecon.training.tasks.TaskSamples`.
            noise: One generator per sample.
        """

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of each sample, ``(batch,)``."""
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
    """Loss ``NLL(z|h) + λ₂ KL(q(h|y,z) ‖ q(h|y)) + λ₃ NLL(x|y)`` with h drawn from ``q(h|y,z)``.

    InfoMRI, equations (19) and (44), algorithm 2, divided by the number of pixels. Likelihoods and
    divergence are sums, as in the bound, where λ₂ is 1; the published reductions, to which the
    published weight of 50 belongs, are not known. If λ₂ is far below 1, the posterior encodes more
    of the segmentation in h than the prior encoder can predict from the measurement, and draws from
    the prior are not realistic. If it is far above 1, differences between raters that cover few
    pixels are not worth a latent. Initially, before the decoder uses the latent, any weight is too
    high; it therefore rises at first (Bowman et al., CoNLL 2016). If λ₃ is 1, the gradient of the
    image's likelihood is up to 40 times that of the segmentation's, and the encoder does
    not learn the latter in thousands of steps; 0.1 does not slow it down.

    A deterministic segmenter is trained by the likelihoods only. The arguments are those of
    :class:`TaskTraining`, whose network is a segmenter.
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
        """Return the loss of each sample, see :class:`TaskTraining`."""
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
        images, std = self.image_decoder(features, scale, zero_filled)
        inside = (batch["coil_maps"] != 0).any(dim=1)
        target = batch["target"] / scale
        surprise = paired_loss("gaussian", images / scale, std / scale, target, inside)
        return loss + self.weights.reconstruction * surprise


class TwoUNetsTraining(TaskTraining):
    """Cross-entropy of the classes and mean squared error of the magnitude image.

    Both together are SemuNet. The image only, then the task only with the rest frozen, is
    LOUPE-UNet-RS or, with fixed masks, TradPat-UNet-RS. The image, then the task only, is Tackle
    (InfoMRI, appendix B).

    Args:
        pipe: Pipeline whose network is a :class:`~ctxrecon.tasks.TwoUNets`.
        weights: Weights of the terms of the loss.
        entropies: Entropies of the samples, if their weight is not 0.
        aim: "both", "task", or "reconstruction", which freezes the segmentation.
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
        """Return the loss of each sample, see :class:`TaskTraining`."""
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
    """Cross-entropy of autoencoded segmentations, and then the error of their predicted latent.

    These are LI-Net's two stages (InfoMRI, equations (38) and (39)); in each of them, the parts of
    the other are frozen.

    Args:
        pipe: Pipeline whose network is a :class:`~ctxrecon.tasks.LINet`.
        weights: Weights of the terms of the loss.
        entropies: Entropies of the samples, if their weight is not 0.
        aim: "labels" for the autoencoder, or "task" for the latent from the measurement.
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
        """Return the loss of each sample, see :class:`TaskTraining`."""
        labels = batch["truth"]
        latent = self.network.encode_labels(labels)
        if self.aim == "labels":
            return segmentation_loss(self.network.logits(latent), labels)
        predicted, _ = self.network.encode(zero_filled)
        return (predicted - latent).square().flatten(1).mean(dim=1)


class ClassificationTraining(TaskTraining):
    """Loss ``NLL(z|y) + |β| Ĥ(y)`` with a Bernoulli variable for each finding, averaged over them.

    InfoMRI, equation (12), algorithm 4. The arguments are those of :class:`TaskTraining`, whose
    network is a classifier.
    """

    def task_loss(
        self, zero_filled: Tensor, batch: dict[str, Tensor], noise: list[torch.Generator]
    ) -> Tensor:
        """Return the loss of each sample, see :class:`TaskTraining`."""
        logits = self.network(zero_filled)
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits, batch["truth"], reduction="none"
        )
        return loss.mean(dim=1)
