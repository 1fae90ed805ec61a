"""Validation of the CLIP: retrieval among held-out pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from ctxrecon.training.clip.objective import ContrastiveLoss


@torch.no_grad()
def retrieval(model: ContrastiveLoss, batch: dict[str, Tensor]) -> dict[str, float]:
    """Return how often the nearest prompt or image is the matching one, and the loss.

    An identical prompt counts as matching.
    """
    output = model.clip(input_ids=batch["tokens"], pixel_values=batch["pixels"])
    similarity = output.image_embeds @ output.text_embeds.T
    same = (batch["tokens"][:, None] == batch["tokens"][None]).all(dim=-1)
    rows = torch.arange(len(same), device=same.device)
    return {
        "image_to_prompt": same[rows, similarity.argmax(dim=1)].float().mean().item(),
        "prompt_to_image": same[rows, similarity.argmax(dim=0)].float().mean().item(),
        "loss": model(batch).item(),
    }
