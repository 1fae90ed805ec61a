"""Training samples of samplers: fully sampled scans of one or several contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ctxrecon.datasets import ShardSlices, check_complex_slices
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex
from ctxrecon.phantom import (
    AnatomyBank,
    PhantomContrasts,
    PhantomSlices,
    multi_echo,
    pd_pair,
)
from ctxrecon.training.masks.config import MasksConfig
from ctxrecon.training.prompts import drop_metadata
from ctxrecon.training.scans import Memory, check_magnitude, fully_sampled, stack
from ctxrecon.training.slices import PreparedSlices, SliceSource, tokens_of

_SPECTRUM_SCANS = 256
"""Scans whose mean spectrum is taken; with more the mask changes in few positions."""


class ContrastSource(Protocol):
    """Where subjects come from; ``draw`` gives the same one for the same number."""

    def draw(self, index: int, resolution: int) -> dict[str, Any]:
        """``images`` ``(contrasts, n, n)`` complex64 and ``metadata``, one for each contrast."""


@dataclass(frozen=True)
class OneContrast:
    """Slices of any source as subjects of one contrast."""

    source: SliceSource

    def draw(self, index: int, resolution: int) -> dict[str, Any]:
        """See :class:`ContrastSource`."""
        drawn = self.source.draw(index, resolution)
        return {
            "images": channels_to_complex(drawn["image"])[None],
            "metadata": (drawn["metadata"],),
            "form": drawn.get("prompt_form", "fastmri"),
        }


@dataclass(frozen=True)
class ContrastSamples:
    """What a sampler and a reconstructor learn from. All follows from the seed and the number.

    A batch holds ``kspace`` ``(batch, contrasts, coils, ny, nx)``, fully sampled; ``coil_maps``
    ``(batch, coils, ny, nx)``, estimated from the centre that every mask takes; ``target``
    ``(batch, contrasts, ny, nx)``; ``step``; ``seed``, of each sample's mask; and where prompts are
    read ``tokens`` ``(batch, contrasts, length)``.

    Attributes:
        source: of the subjects.
        calibration: ``(1, 1, n, n)`` bool, that centre.
        scans: how many scans there are; ``None`` for as many as samples are drawn.
        num_coils: of the simulated array.
        snr: of the bright signal to complex noise; 0 for none.
        tokenizer: of a text encoder, for networks that read prompts.
        seed: of everything.
        magnitude: whether the magnitudes of the images are scanned, with a coil that has no phase.
    """

    source: ContrastSource
    calibration: Tensor
    scans: int | None = None
    num_coils: int = 8
    snr: float = 100.0
    tokenizer: Any = None
    seed: int = 0
    magnitude: bool = False
    _memory: Memory = field(default_factory=Memory, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check what belongs together."""
        ny, nx = self.calibration.shape[-2:]
        if ny != nx:
            raise InputError(f"expected masks of a square matrix, as phantoms are, got {ny}x{nx}")
        if self.num_coils < 1 or self.snr < 0 or (self.scans is not None and self.scans < 1):
            raise InputError(
                "expected at least one coil and one scan and an SNR of 0 or more, got "
                f"{self.num_coils} coils, {self.scans} scans and an SNR of {self.snr:g}"
            )
        check_magnitude(self.magnitude, self.num_coils)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """The sample of ``(step, number)``."""
        step, number = place
        rng = np.random.default_rng([self.seed, number, 7])
        scan = self._memory.draw(number, self.scans, self.seed, self._scan)
        return {**scan, "step": step, "seed": int(rng.integers(2**62))}

    def first_targets(self) -> Tensor:
        """Images of the first scans, at most 256, ``(scans · contrasts, ny, nx)`` complex64."""
        count = min(self.scans or _SPECTRUM_SCANS, _SPECTRUM_SCANS)
        return torch.cat([self[0, number]["target"] for number in range(count)])

    def _scan(self, number: int) -> dict[str, Any]:
        drawn = self.source.draw(number, self.calibration.shape[-1])
        generator = torch.Generator().manual_seed(self.seed * 2**40 + number)
        images = drawn["images"]
        if self.magnitude:
            images = images.abs().to(images.dtype)
        scan: dict[str, Any] = fully_sampled(
            images,
            self.num_coils,
            self.snr,
            self.calibration,
            generator,
            coil_phase=not self.magnitude,
        )
        return {**scan, "metadata": drawn["metadata"], "form": drawn.get("form", "fastmri")}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """One batch."""
        batch = stack(samples, ("kspace", "coil_maps", "target", "step", "seed"))
        if self.tokenizer is not None:
            tokens = [tokens_of(self.tokenizer, self._prompts(sample)) for sample in samples]
            batch["tokens"] = torch.stack(tokens)
        return batch

    def _prompts(self, sample: dict[str, Any]) -> list[str]:
        """One for each contrast, with what is left out the same for all."""
        metadata: Sequence[Any] = sample["metadata"]
        return [
            drop_metadata(
                one,
                torch.Generator().manual_seed(sample["seed"]),
                parameters=0.2,
                prompt=0.1,
                field=0.1,
                form=sample["form"],
            )
            for one in metadata
        ]


def source(config: MasksConfig) -> ContrastSource:
    """Where subjects come from."""
    if (config.bank is None) == (config.train_data_dir is None):
        raise InputError("give either --bank or --train_data_dir")
    if config.train_data_dir:
        if config.anatomy:
            raise InputError("--anatomy chooses from a bank: leave it out")
        if config.contrasts != "one":
            raise InputError("slices of --train_data_dir come one by one: give --contrasts one")
        stored = check_complex_slices(ShardSlices(config.train_data_dir), "a mask")
        return OneContrast(PreparedSlices(stored, seed=config.seed))
    assert config.bank is not None
    bank = AnatomyBank.load(config.bank)
    if config.anatomy:
        bank = bank.of_anatomy(config.anatomy)
    if config.contrasts == "one":
        slices = PhantomSlices(bank, resolution=config.resolution, seed=config.seed, noise=0.0)
        return OneContrast(slices)
    protocols = multi_echo if config.contrasts == "multi_echo" else pd_pair
    return PhantomContrasts(bank, protocols, resolution=config.resolution, seed=config.seed)
