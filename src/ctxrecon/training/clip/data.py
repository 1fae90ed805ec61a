"""Pairs of magnitude image and prompt from the phantom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ctxrecon.phantom import PhantomSlices
from ctxrecon.training.clip.objective import readout_targets
from ctxrecon.training.prompts import vary_metadata


@dataclass(frozen=True)
class Pairs:
    """Magnitude image, prompt and the numeric metadata that it contains, by sample number."""

    slices: PhantomSlices
    tokenizer: Any

    def __getitem__(self, place: tuple[int, int]) -> tuple[Tensor, str, Tensor]:
        """Return the sample of ``(step, number)``."""
        number = place[1]
        item: Any = self.slices[number]
        generator = torch.Generator().manual_seed(self.slices.seed * 2**40 + number)
        prompt, varied = vary_metadata(item["metadata"], generator)
        magnitude = torch.linalg.vector_norm(item["image"], dim=0, keepdim=True)
        return magnitude, prompt, readout_targets([varied])[0]

    def collate(self, samples: list[tuple[Tensor, str, Tensor]]) -> dict[str, Tensor]:
        """Collate samples to a batch, with tokens."""
        images, prompts, numbers = zip(*samples, strict=True)
        tokens = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, return_tensors="pt"
        )
        return {
            "pixels": torch.stack(images),
            "tokens": tokens.input_ids,
            "numbers": torch.stack(numbers),
        }
