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
"""What a linear map has to read from a prompt's embedding, with the centre and spread by which it
is standardised: natural logarithms of TR, TE and TI in ms and of the flip angle in degrees, the
slice number, and the field strength in tesla."""

_LOGARITHMIC = ("tr", "te", "ti", "flip_angle")


def readout_targets(metadata: Sequence[ScanMetadata]) -> Tensor:
    """The standardised numbers of :data:`READOUT`, ``(batch, 6)`` float32; NaN where unknown."""
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
    """Mean squared error over the known numbers.

    Args:
        predicted: ``(batch, numbers)``.
        targets: likewise, NaN where unknown.
    """
    known = torch.isfinite(targets)
    error = torch.where(known, predicted - targets.nan_to_num(), 0.0)
    return error.square().sum() / known.sum().clamp_min(1)


def contrastive_loss(
    image_embeds: Tensor, text_embeds: Tensor, tokens: Tensor, logit_scale: Tensor
) -> Tensor:
    """Symmetric cross-entropy of matching images and prompts (Radford et al., arXiv:2103.00020).

    Prompts of equal tokens match each other's images too: with few words known, many slices have
    the same prompt, and separating them would require memorization.

    Args:
        image_embeds: ``(batch, width)``, of unit length.
        text_embeds: likewise.
        tokens: ``(batch, length)``, by which equal prompts are known.
        logit_scale: logarithm of the inverse temperature.
    """
    logits = logit_scale.exp() * image_embeds @ text_embeds.T
    same = (tokens[:, None] == tokens[None]).all(dim=-1).to(logits.dtype)
    target = same / same.sum(dim=1, keepdim=True)
    to_text = functional.cross_entropy(logits, target)
    to_image = functional.cross_entropy(logits.T, target)
    return (to_text + to_image) / 2


def gather_with_gradient(value: Tensor) -> Tensor:
    """Rows of all processes, those of the first one first; gradients flow to each."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return value
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(value.contiguous()))


class ContrastiveLoss(nn.Module):
    """A ``CLIPModel`` with a linear read-out of the prompt's numbers; a batch's loss.

    The read-out is from the text encoder's state at the end of the prompt, which the prior sees,
    and is thrown away after training.

    Args:
        clip: ``CLIPModel``.
        readout_weight: of the read-out's error beside the contrastive loss.
    """

    def __init__(self, clip: Any, readout_weight: float) -> None:
        super().__init__()
        self.clip: Any = clip
        self.readout = nn.Linear(clip.text_embed_dim, len(READOUT))
        self.readout_weight = readout_weight

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of the batch of all processes; in evaluation, of this process alone."""
        output = self.clip(input_ids=batch["tokens"], pixel_values=batch["pixels"])
        images, texts, tokens = output.image_embeds, output.text_embeds, batch["tokens"]
        if self.training:
            images, texts, tokens = map(gather_with_gradient, (images, texts, tokens))
        contrast = contrastive_loss(images, texts, tokens, self.clip.logit_scale)
        states = output.text_model_output.pooler_output
        return contrast + self.readout_weight * readout_loss(self.readout(states), batch["numbers"])
