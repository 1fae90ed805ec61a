"""Training samples of the prior: phantom slices, prepared slices, or a mix of both.

Parameters are drawn by workers on the CPU. Pixels, their noise and the noise of the diffusion are
generated on the training device for whole batches.
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
    """Return the sources of slices: the bank first, then each folder."""
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
    """Training samples of the prior: image, noise, timestep and prompt.

    All randomness of a sample is determined by the seed and its number; its matrix size and the
    shown part of the slice by the seed and the step. Noise is drawn on the device, so that it is
    reproducible on devices of the same type.

    Attributes:
        sources: Sources of slices.
        weights: Sampling weight of each source.
        tokenizer: Tokenizer of the text encoder.
        resolutions: Matrix sizes to draw from.
        num_timesteps: Number of timesteps T of the scheduler.
        field_of_view: Smallest part of a slice's shorter side that is shown.
        native_share: Share of steps with squares at the source's own pixel size, instead of
            resampled slices.
        density: Density of the timesteps, see :func:`spread_timestep`.
        parameter_dropout: Probability that a prompt has no MR parameters.
        prompt_dropout: Probability that a prompt is empty.
        field_dropout: Probability that each single field is dropped from a prompt.
        demographic_dropout: Probability that a prompt has no age and sex.
        seed: Random seed of all samples.
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
        """Validate the sources, weights and probabilities."""
        if not self.sources:
            raise InputError("expected training data: specify --bank, --train_data_dir or both")
        if len(self.weights) != len(self.sources) or min(self.weights) <= 0:
            raise InputError(
                f"expected a positive weight for each of {len(self.sources)} data sources, got "
                f"{list(self.weights)}"
            )
        shares = ("native_share", "parameter_dropout", "prompt_dropout", "field_dropout")
        for name in (*shares, "demographic_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"expected `{name}` between 0 and 1, got {getattr(self, name)}")

    def resolution(self, step: int) -> int:
        """Return the matrix size of a step, equal on every process."""
        return one_of(self.resolutions, step, self.seed, 2)

    def part(self, step: int) -> float | None:
        """Return the shown part of the slices of a step; ``None`` for native-pixel squares."""
        rng = np.random.default_rng([self.seed, step, 7])
        if rng.random() < self.native_share:
            return None
        return rng.uniform(self.field_of_view, 1) if self.field_of_view < 1 else 1.0

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """Return the sample of ``(step, number)``, without pixels."""
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
        """Collate samples to a batch without pixels, grouped by kind and size.

        Returns:
            ``recipes``, a list of batches of one kind each; ``noise``, ``seed``, ``timestep`` and
            ``tokens`` ``(batch, length)`` of each sample; and their common ``resolution``.
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
        """Generate the pixels and noise of a batch from :meth:`collate`, on its device."""
        shape = (batch["resolution"], batch["resolution"])
        recipes: list[Recipe] = batch["recipes"]
        images = complex_to_channels(torch.cat([recipe.render(shape) for recipe in recipes]))
        generator = torch.Generator(images.device)
        # Image noise and diffusion noise, both from the sample's own seed.
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
    """Key of samples that can be rendered in one batch."""
    return sample["source"], sample["drawn"].recipe[0].shape[-1]
