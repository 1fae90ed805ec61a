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
"""Number of scans whose mean spectrum is used; more scans change the mask in few positions."""


class ContrastSource(Protocol):
    """Source of subjects; ``draw`` is a deterministic function of the number."""

    def draw(self, index: int, resolution: int) -> dict[str, Any]:
        """Return ``images`` ``(contrasts, n, n)``, complex64, and ``metadata`` per contrast."""


@dataclass(frozen=True)
class OneContrast:
    """Slices of any source as subjects with a single contrast."""

    source: SliceSource

    def draw(self, index: int, resolution: int) -> dict[str, Any]:
        """Return the images and metadata of a subject, see :class:`ContrastSource`."""
        drawn = self.source.draw(index, resolution)
        return {
            "images": channels_to_complex(drawn["image"])[None],
            "metadata": (drawn["metadata"],),
            "form": drawn.get("prompt_form", "fastmri"),
        }


@dataclass(frozen=True)
class ContrastSamples:
    """Samples for joint training, determined by the seed and the sample number.

    A batch contains fully sampled ``kspace`` ``(batch, contrasts, coils, ny, nx)``; ``coil_maps``
    ``(batch, coils, ny, nx)``, estimated from the center contained in every mask; ``target``
    ``(batch, contrasts, ny, nx)``; ``step``; ``seed`` of each sample's mask; and ``tokens``
    ``(batch, contrasts, length)`` if prompts are used.

    Attributes:
        source: Source of the subjects.
        calibration: Center contained in every mask, ``(1, 1, n, n)`` bool.
        scans: Number of scans; ``None`` for a new scan in every sample.
        num_coils: Number of coils of the simulated array.
        snr: Ratio of the bright signal to the complex noise; 0 for no noise.
        tokenizer: Tokenizer of the text encoder, for networks with text conditioning.
        seed: Random seed of all samples.
        magnitude: If true, the magnitudes of the images are scanned with a coil without phase.
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
        """Validate the combination of values."""
        ny, nx = self.calibration.shape[-2:]
        if ny != nx:
            raise InputError(f"expected masks of a square matrix, like phantoms, got {ny}x{nx}")
        if self.num_coils < 1 or self.snr < 0 or (self.scans is not None and self.scans < 1):
            raise InputError(
                "expected at least one coil and one scan and an SNR of at least 0, got "
                f"{self.num_coils} coils, {self.scans} scans and an SNR of {self.snr:g}"
            )
        check_magnitude(self.magnitude, self.num_coils)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """Return the sample of ``(step, number)``."""
        step, number = place
        rng = np.random.default_rng([self.seed, number, 7])
        scan = self._memory.draw(number, self.scans, self.seed, self._scan)
        return {**scan, "step": step, "seed": int(rng.integers(2**62))}

    def first_targets(self) -> Tensor:
        """Return the targets of up to 256 scans, ``(scans · contrasts, ny, nx)`` complex64."""
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
        """Collate samples to a batch."""
        batch = stack(samples, ("kspace", "coil_maps", "target", "step", "seed"))
        if self.tokenizer is not None:
            tokens = [tokens_of(self.tokenizer, self._prompts(sample)) for sample in samples]
            batch["tokens"] = torch.stack(tokens)
        return batch

    def _prompts(self, sample: dict[str, Any]) -> list[str]:
        """Return one prompt per contrast, with the same metadata dropout for all."""
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
    """Return the source of subjects."""
    if (config.bank is None) == (config.train_data_dir is None):
        raise InputError("specify either --bank or --train_data_dir")
    if config.train_data_dir:
        if config.anatomy:
            raise InputError("--anatomy applies to a bank only: omit it")
        if config.contrasts != "one":
            raise InputError("--train_data_dir has a single contrast: use --contrasts one")
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
