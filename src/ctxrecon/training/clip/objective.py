"""Contrastive loss of image and prompt, with a regression head for numeric metadata."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from ctxrecon.metadata import ScanMetadata

READOUT: dict[str, tuple[float, float]] = {
    "tr": (7.5, 1.0),
    "te": (3.3, 1.0),
    "ti": (5.8, 1.3),
    "flip_angle": (4.6, 0.6),
    "slice": (15.0, 10.0),
    "field_strength": (2.2, 0.75),
}
"""Numeric metadata that a linear map predicts from a prompt's embedding, with the center and spread
of their standardization: natural logarithms of TR, TE and TI in ms and of the flip angle in
degrees, the slice number, and the field strength in tesla."""

_LOGARITHMIC = ("tr", "te", "ti", "flip_angle")


def readout_targets(metadata: Sequence[ScanMetadata]) -> Tensor:
    """Return the standardized values of :data:`READOUT`, ``(batch, 6)``; NaN where unknown."""
    rows = []
    for item in metadata:
        row = []
        for name, (center, spread) in READOUT.items():
            value = getattr(item, name)
            known = value is not None and (name not in _LOGARITHMIC or value > 0)
            if known and name in _LOGARITHMIC:
                value = math.log(value)
            row.append((value - center) / spread if known else math.nan)
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float32)


def readout_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared error over the known values.

    Args:
        predicted: Predicted values ``(batch, numbers)``.
        targets: Targets ``(batch, numbers)``, NaN where unknown.
    """
    known = torch.isfinite(targets)
    error = torch.where(known, predicted - targets.nan_to_num(), 0.0)
    return error.square().sum() / known.sum().clamp_min(1)


def contrastive_loss(
    image_embeds: Tensor, text_embeds: Tensor, tokens: Tensor, logit_scale: Tensor
) -> Tensor:
    """Return the symmetric cross-entropy of matching pairs (Radford et al., arXiv:2103.00020).

    Identical prompts also match each other's images: with few fields known, many slices have the
    same prompt, and separating them would require memorization.

    Args:
        image_embeds: Image embeddings ``(batch, width)`` of unit norm.
        text_embeds: Text embeddings ``(batch, width)`` of unit norm.
        tokens: Tokens ``(batch, length)``, by which identical prompts are found.
        logit_scale: Logarithm of the inverse temperature.
    """
    logits = logit_scale.exp() * image_embeds @ text_embeds.T
    same = (tokens[:, None] == tokens[None]).all(dim=-1).to(logits.dtype)
    target = same / same.sum(dim=1, keepdim=True)
    to_text = functional.cross_entropy(logits, target)
    to_image = functional.cross_entropy(logits.T, target)
    return (to_text + to_image) / 2


def gather_with_gradient(value: Tensor) -> Tensor:
    """Concatenate the rows of all processes in rank order; gradients flow to each process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(value.contiguous()))


class ContrastiveLoss(nn.Module):
    """Loss of a ``CLIPModel`` with a linear readout of the prompt's numeric metadata.

    The readout uses the text encoder's state at the end of the prompt, which the prior also uses,
    and is discarded after training.

    Args:
        clip: ``CLIPModel``.
        readout_weight: Weight of the readout error relative to the contrastive loss.
    """

    def __init__(self, clip: Any, readout_weight: float) -> None:
        super().__init__()
        self.clip: Any = clip
        self.readout = nn.Linear(clip.text_embed_dim, len(READOUT))
        self.readout_weight = readout_weight

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of the batch of all processes; in evaluation, of this process only."""
        output = self.clip(input_ids=batch["tokens"], pixel_values=batch["pixels"])
        images, texts, tokens = output.image_embeds, output.text_embeds, batch["tokens"]
        if self.training:
            images, texts, tokens = map(gather_with_gradient, (images, texts, tokens))
        contrast = contrastive_loss(images, texts, tokens, self.clip.logit_scale)
        states = output.text_model_output.pooler_output
        return contrast + self.readout_weight * readout_loss(self.readout(states), batch["numbers"])
