"""Training samples of the prior: phantom slices, prepared slices, or a mix of both.

What is drawn is drawn on the CPU, by workers; pixels, their noise and that of the diffusion are
made on the device that trains, for whole batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.fourier import complex_to_channels
from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.phantom.dataset import Drawn
from ctxrecon.phantom.imaging import Recipe
from ctxrecon.training.prior.config import PriorConfig
from ctxrecon.training.prior.objective import spread_timestep
from ctxrecon.training.prompts import drop_metadata
from ctxrecon.training.slices import (
    MagnitudeSlices,
    PreparedSlices,
    RecipeSource,
    one_of,
    tokens_of,
)


def sources(config: PriorConfig) -> list[RecipeSource]:
    """Where slices come from: the bank first, then each folder."""
    found: list[RecipeSource] = []
    if config.bank:
        found.append(
            PhantomSlices(
                AnatomyBank.load(config.bank),
                seed=config.seed,
                noise=config.image_noise,
                varied_times=config.varied_times,
                random_contrast=config.random_contrast,
            )
        )
    for folder in config.train_data_dir:
        slices = ShardSlices(folder)
        if slices.kind == "magnitude":
            found.append(
                MagnitudeSlices(slices, seed=config.seed, random_contrast=config.random_contrast)
            )
        else:
            found.append(PreparedSlices(slices, seed=config.seed))
    return found


@dataclass(frozen=True)
class PriorSamples:
    """What the prior learns from: image, noise, timestep and prompt of each sample.

    Everything random about a sample follows from the seed and its number, its matrix size and the
    part of the slice that it shows from the seed and the step. Noise is drawn on the device, so it
    is the same on every device of one kind.

    Attributes:
        sources: where slices come from.
        weights: share of each source.
        tokenizer: of the text encoder.
        resolutions: matrix sizes that steps draw from.
        num_timesteps: T of the scheduler.
        field_of_view: smallest part of a slice's shorter side that is shown.
        native_share: share of the steps that show squares of the pixels that a source has,
            in place of slices that are sampled anew.
        density: of the timesteps, see :func:`spread_timestep`.
        parameter_dropout: probability that a prompt goes without its MR parameters.
        prompt_dropout: probability that a prompt is empty.
        field_dropout: probability, for each field alone, that a prompt goes without it.
        demographic_dropout: probability that a prompt goes without age and sex.
        seed: of the whole stream.
    """

    sources: Sequence[RecipeSource]
    weights: Sequence[float]
    tokenizer: Any
    resolutions: Sequence[int]
    num_timesteps: int
    field_of_view: float = 1.0
    native_share: float = 0.0
    density: str = "uniform"
    parameter_dropout: float = 0.5
    prompt_dropout: float = 0.1
    field_dropout: float = 0.0
    demographic_dropout: float = 0.5
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
        shares = ("native_share", "parameter_dropout", "prompt_dropout", "field_dropout")
        for name in (*shares, "demographic_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected {name} between 0 and 1, got {getattr(self, name)}")

    def resolution(self, step: int) -> int:
        """Matrix size of a step, the same for every process."""
        return one_of(self.resolutions, step, self.seed, 2)

    def part(self, step: int) -> float | None:
        """Part of the slices that a step shows, ``None`` for squares of the source's own pixels."""
        rng = np.random.default_rng([self.seed, step, 7])
        if rng.random() < self.native_share:
            return None
        return rng.uniform(self.field_of_view, 1) if self.field_of_view < 1 else 1.0

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """The sample of ``(step, number)``, without pixels."""
        step, number = place
        own_seed = self.seed * 2**40 + number
        generator = torch.Generator().manual_seed(own_seed)
        shares = torch.tensor(self.weights, dtype=torch.float64)
        chosen = 0
        if len(self.sources) > 1:
            chosen = int(torch.multinomial(shares, 1, generator=generator))
        resolution = self.resolution(step)
        drawn = self.sources[chosen].recipe(number, resolution, self.part(step))
        return {
            "drawn": drawn,
            "source": chosen,
            "resolution": resolution,
            "seed": own_seed,
            "timestep": spread_timestep(self.seed + number, self.num_timesteps, self.density),
            "prompt": drop_metadata(
                drawn.metadata,
                generator,
                parameters=self.parameter_dropout,
                prompt=self.prompt_dropout,
                field=self.field_dropout,
                demographics=self.demographic_dropout,
                form=drawn.prompt_form,
            ),
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """One batch before it has pixels: those of a kind and size side by side.

        Returns:
            ``recipes``, a list of batches of one kind each; of each sample ``noise``, ``seed``,
            ``timestep`` and ``tokens`` ``(batch, length)``; and their one ``resolution``.
        """
        samples = sorted(samples, key=_kind)
        drawn: list[Drawn] = [sample["drawn"] for sample in samples]
        return {
            "recipes": [
                default_collate([sample["drawn"].recipe for sample in group])
                for _, group in groupby(samples, _kind)
            ],
            "noise": torch.tensor([one.noise for one in drawn], dtype=torch.float32),
            "seed": [sample["seed"] for sample in samples],
            "timestep": torch.tensor([sample["timestep"] for sample in samples]),
            "tokens": tokens_of(self.tokenizer, [sample["prompt"] for sample in samples]),
            "resolution": samples[0]["resolution"],
        }

    @staticmethod
    @torch.no_grad()
    def render(batch: dict[str, Any]) -> dict[str, Tensor]:
        """Give a batch from :meth:`collate` its pixels and noise, on the device where it is."""
        shape = (batch["resolution"], batch["resolution"])
        recipes: list[Recipe] = batch["recipes"]
        images = complex_to_channels(torch.cat([recipe.render(shape) for recipe in recipes]))
        generator = torch.Generator(images.device)
        # Left in the image, and of the diffusion: both by the sample's own seed.
        both = torch.stack(
            [
                torch.randn(
                    (2, *images.shape[1:]),
                    generator=generator.manual_seed(seed),
                    device=images.device,
                )
                for seed in batch["seed"]
            ]
        )
        return {
            "image": images + batch["noise"].view(-1, 1, 1, 1) * both[:, 0],
            "noise": both[:, 1],
            "timestep": batch["timestep"],
            "tokens": batch["tokens"],
        }


def _kind(sample: dict[str, Any]) -> tuple[int, int]:
    """What samples must share to be rendered as one batch."""
    return sample["source"], sample["drawn"].recipe[0].shape[-1]
