"""Training samples of the prior: phantom slices, prepared slices, or a mix of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.training.prior.config import PriorConfig
from ctxrecon.training.prior.objective import spread_timestep
from ctxrecon.training.prompts import drop_metadata
from ctxrecon.training.slices import PreparedSlices, SliceSource, one_of, tokens_of


def sources(config: PriorConfig) -> list[SliceSource]:
    """Where slices come from: the bank first, then each folder."""
    found: list[SliceSource] = []
    if config.bank:
        found.append(
            PhantomSlices(
                AnatomyBank.load(config.bank),
                resolution=max(config.resolution),
                seed=config.seed,
                field_of_view=config.field_of_view,
            )
        )
    for folder in config.train_data_dir:
        slices = ShardSlices(folder)
        found.append(PreparedSlices(slices, seed=config.seed, field_of_view=config.field_of_view))
    return found


@dataclass(frozen=True)
class PriorSamples:
    """What the prior learns from: image, noise, timestep and prompt of each sample.

    Everything random about a sample follows from the seed and its number, its matrix size from
    the seed and the step.

    Attributes:
        sources: where slices come from.
        weights: share of each source.
        tokenizer: of the text encoder.
        resolutions: matrix sizes that steps draw from.
        num_timesteps: T of the scheduler.
        density: of the timesteps, see :func:`spread_timestep`.
        parameter_dropout: probability that a prompt goes without its MR parameters.
        prompt_dropout: probability that a prompt is empty.
        field_dropout: probability, for each field alone, that a prompt goes without it.
        seed: of the whole stream.
    """

    sources: Sequence[SliceSource]
    weights: Sequence[float]
    tokenizer: Any
    resolutions: Sequence[int]
    num_timesteps: int
    density: str = "uniform"
    parameter_dropout: float = 0.5
    prompt_dropout: float = 0.1
    field_dropout: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what the command line cannot."""
        if not self.sources:
            raise InputError("expected training data: give --bank, --train_data_dir or both")
        if len(self.weights) != len(self.sources) or min(self.weights) <= 0:
            raise InputError(
                f"expected a positive weight for each of {len(self.sources)} data sources, got "
                f"{list(self.weights)}"
            )
        for name in ("parameter_dropout", "prompt_dropout", "field_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected {name} between 0 and 1, got {getattr(self, name)}")

    def resolution(self, step: int) -> int:
        """Matrix size of a step, the same for every process."""
        return one_of(self.resolutions, step, self.seed, 2)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """The sample of ``(step, number)``."""
        step, number = place
        generator = torch.Generator().manual_seed(self.seed * 2**40 + number)
        shares = torch.tensor(self.weights, dtype=torch.float64)
        chosen = 0
        if len(self.sources) > 1:
            chosen = int(torch.multinomial(shares, 1, generator=generator))
        item = self.sources[chosen].draw(number, self.resolution(step))
        metadata: ScanMetadata = item["metadata"]
        return {
            "image": item["image"],
            "noise": torch.randn(item["image"].shape, generator=generator),
            "timestep": spread_timestep(self.seed + number, self.num_timesteps, self.density),
            "prompt": drop_metadata(
                metadata,
                generator,
                parameters=self.parameter_dropout,
                prompt=self.prompt_dropout,
                field=self.field_dropout,
                form=item.get("prompt_form", "fastmri"),
            ),
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """One batch, with tokens ``(batch, length)``."""
        prompts = [sample["prompt"] for sample in samples]
        return {
            "image": torch.stack([sample["image"] for sample in samples]),
            "noise": torch.stack([sample["noise"] for sample in samples]),
            "timestep": torch.tensor([sample["timestep"] for sample in samples]),
            "tokens": tokens_of(self.tokenizer, prompts),
        }
