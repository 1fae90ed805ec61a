"""Training samples: undersampled scans with a reference of another contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import PhantomPairs
from ctxrecon.training.prompts import drop_metadata
from ctxrecon.training.reconstructor.data import Kind, Sampling
from ctxrecon.training.scans import Memory, fully_sampled, in_turn
from ctxrecon.training.slices import one_of, tokens_of


@dataclass(frozen=True)
class PairSamples:
    """Scans with references, determined by the seed and the sample number.

    A batch contains ``kspace`` ``(batch, coils, ny, nx)``, zero outside ``mask``; ``coil_maps``;
    ``target`` and ``reference`` ``(batch, ny, nx)``, complex64; the ``displacement`` of the
    reference, ``(batch, 2, ny, nx)`` float32 in pixels; the bool pixels ``inside`` the body; and
    ``tokens`` if prompts are used. Both images are computed from fully sampled, noisy k-space.

    Attributes:
        pairs: Pairs of images in two positions.
        sampling: Undersampling of the second contrast, and coils and noise of both.
        scans: Number of pairs; ``None`` for a new pair in every sample.
        resolutions: Matrix sizes to draw from.
        tokenizer: Tokenizer of the text encoder, for networks with text conditioning.
        seed: Random seed of all samples.
    """

    pairs: PhantomPairs
    sampling: Sampling
    scans: int | None = None
    resolutions: Sequence[int] = (128,)
    tokenizer: Any = None
    seed: int = 0
    _memory: Memory = field(default_factory=Memory, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Validate that every mask can be drawn.

        Raises:
            InputError: If a mask cannot be drawn, or images without phase have several coils.
        """
        self.sampling.check(self.resolutions)
        if self.pairs.magnitude and max(self.sampling.num_coils) > 1:
            raise InputError(
                "images without phase need a single coil, whose k-space is their Fourier "
                f"transform, got {max(self.sampling.num_coils)} coils: use --num_coils 1"
            )

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """Return the sample of ``(step, number)``."""
        step, number = place
        rng = np.random.default_rng([self.seed, number, 13])
        size = one_of(self.resolutions, step, self.seed, 12)
        coils = one_of(self.sampling.num_coils, step, self.seed, 16)
        scan_number = number
        if self.scans is not None:
            scan_number = in_turn(number, self.scans, self.seed, 15, 0)
        kind, mask = self.sampling.draw(size, rng)

        def make() -> dict[str, Any]:
            return self._scan(scan_number, size, coils, kind)

        key = (scan_number, size, coils, kind)
        scan = make() if self.scans is None else self._memory.get(key, make)
        return {
            "kspace": scan["kspace"] * mask[0],
            "mask": mask[0],
            "coil_maps": scan["coil_maps"],
            "target": scan["target"],
            "reference": scan["reference"],
            "displacement": scan["displacement"],
            "inside": scan["inside"],
            "metadata": scan["metadata"],
            "seed": int(rng.integers(2**62)),
        }

    def _scan(self, number: int, size: int, coils: int, kind: Kind) -> dict[str, Any]:
        """Return a fully sampled noisy scan of both contrasts."""
        drawn = self.pairs.draw(number, size)
        images: Tensor = drawn["images"]
        generator = torch.Generator().manual_seed(self.seed * 2**40 + number)
        calibration = self.sampling.mask(kind, size, 0)
        if coils == 1:
            scan = single_coil(images, self.sampling.snr, generator)
        else:
            scan = fully_sampled(images, coils, self.sampling.snr, calibration, generator)
        return {
            "kspace": scan["kspace"][0],
            "coil_maps": scan["coil_maps"],
            "target": scan["target"][0],
            "reference": scan["target"][1],
            "displacement": drawn["displacement"],
            "inside": drawn["inside"],
            "metadata": drawn["metadata"][0],
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Collate samples to a batch, with tokens ``(batch, length)`` if there is a tokenizer."""
        tensors = [name for name, value in samples[0].items() if isinstance(value, Tensor)]
        batch = {name: torch.stack([sample[name] for sample in samples]) for name in tensors}
        if self.tokenizer is not None:
            prompts = [_prompt(sample["metadata"], sample["seed"]) for sample in samples]
            batch["tokens"] = tokens_of(self.tokenizer, prompts)
        return batch


def single_coil(images: Tensor, snr: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Simulate a scan as :func:`~ctxrecon.training.scans.fully_sampled`, without a coil's phase.

    Args:
        images: Images ``(contrasts, ny, nx)``, complex64.
        snr: Ratio of the bright signal to the complex noise; 0 for no noise.
        generator: Source of the noise.
    """
    kspace = fft2c(images[:, None])
    if snr:
        kspace = kspace + torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator) / snr
    maps = torch.ones_like(kspace[0])
    return {"kspace": kspace, "coil_maps": maps, "target": ifft2c(kspace)[:, 0]}


def _prompt(metadata: ScanMetadata, seed: int) -> str:
    """Return the prompt with random metadata dropout, so that incomplete prompts also work."""
    generator = torch.Generator().manual_seed(seed)
    return drop_metadata(metadata, generator, parameters=0.2, prompt=0.1, field=0.1)
