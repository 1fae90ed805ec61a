"""Training samples of reconstructors: undersampled slices with the labels that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrecon.coils import estimate_coil_maps, simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, fft2c, ifft2c
from ctxrecon.metadata import ScanMetadata
from ctxrecon.priors.tokenizer import check_prompt_length
from ctxrecon.sampling import make_mask
from ctxrecon.training.prompts import drop_metadata
from ctxrecon.training.samples import Source

LABELS = ("paired", "partial", "disjoint", "none")
_POOL = 256
"""Masks of each kind that samples draw from: Poisson disks take long to make."""

_KEPT = 1024
"""Scans that are kept in memory."""


@dataclass(frozen=True)
class Sampling:
    """How slices are undersampled.

    Attributes:
        masks: names, one of which each sample draws.
        accelerations: likewise.
        center_fraction: of every mask; ``None`` for ``0.32 / acceleration`` of the lines, and the
            mask's own default in 2-D.
        fixed: whether every scan keeps one mask, or gets another each time.
        num_coils: of the simulated array.
        snr: of the bright signal to complex noise; 0 for none.
    """

    masks: Sequence[str] = ("uniform1d",)
    accelerations: Sequence[float] = (4.0,)
    center_fraction: float | None = None
    fixed: bool = False
    num_coils: int = 8
    snr: float = 100.0

    def draw(self, size: int, rng: np.random.Generator) -> Tensor:
        """A mask ``(1, 1, size, size)``."""
        name = str(rng.choice(np.array(self.masks)))
        acceleration = float(rng.choice(np.array(self.accelerations)))
        fraction = self.center_fraction
        if fraction is None and name.endswith("1d"):
            fraction = 0.32 / acceleration
        return _mask(name, size, acceleration, fraction, int(rng.integers(_POOL)))


@lru_cache(maxsize=8 * _POOL)
def _mask(name: str, size: int, acceleration: float, fraction: float | None, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return make_mask(name, (size, size), acceleration, fraction, generator=generator)


@dataclass(frozen=True)
class Labels:
    """Which fully sampled images training may look at.

    Attributes:
        kind: "paired", each scan's own image; "partial", those of the first ``labelled`` scans,
            not paired; "disjoint", images of ``labelled`` other scans, not paired; "none", with the
            samples of each scan split in two.
        labelled: N.
        magnitude: whether unpaired labels come as magnitudes, without phase.
    """

    kind: str = "paired"
    labelled: int | None = None
    magnitude: bool = False

    def __post_init__(self) -> None:
        """Check what belongs together."""
        if self.kind not in LABELS:
            raise InputError(f"unknown labels {self.kind!r}: expected one of {', '.join(LABELS)}")
        unpaired = self.kind in ("partial", "disjoint")
        if unpaired and (self.labelled is None or self.labelled < 1):
            raise InputError(f"{self.kind} labels need their number: give --labelled N")
        if not unpaired and (self.labelled is not None or self.magnitude):
            raise InputError(
                f"--labelled and --magnitude_labels are of partial or disjoint labels, not of "
                f"{self.kind} ones: leave them out"
            )


@dataclass(frozen=True)
class MeasurementSamples:
    """What a reconstructor learns from. Everything follows from the seed and a sample's number.

    A batch holds ``kspace`` ``(batch, coils, ny, nx)``, ``mask``, ``coil_maps`` (estimated from
    the samples that the scan's own first mask takes), ``step``, ``tokens`` where prompts are read,
    and by the kind of labels ``target`` ``(batch, ny, nx)``; or ``label``, complex or real; or
    ``held_out``, the mask of the samples that the network does not see, which ``kspace`` has.

    Attributes:
        source: of the slices.
        sampling: how they are undersampled.
        labels: which images training may look at.
        scans: M, how many scans there are; ``None`` for as many as samples are drawn.
        resolutions: matrix sizes that steps draw from.
        tokenizer: of a text encoder, for networks that read prompts.
        held_out_share: of the samples of each scan, without labels.
        seed: of everything.
    """

    source: Source
    sampling: Sampling
    labels: Labels
    scans: int | None = None
    resolutions: Sequence[int] = (128,)
    tokenizer: Any = None
    held_out_share: float = 0.4
    seed: int = 0
    _kept: dict[tuple[int, int], dict[str, Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        """Check what belongs together."""
        if self.labels.kind in ("partial", "disjoint") and self.scans is None:
            raise InputError(f"{self.labels.kind} labels are of so many scans: give --scans M")
        if self.labels.kind == "partial" and (self.labels.labelled or 0) > (self.scans or 0):
            raise InputError(
                f"expected at most {self.scans} labelled scans, as there are, got "
                f"{self.labels.labelled}"
            )
        if not 0 < self.held_out_share < 1:
            raise InputError(f"expected a held-out share in (0, 1), got {self.held_out_share}")

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """The sample of ``(step, number)``."""
        step, number = place
        rng = np.random.default_rng([self.seed, number, 3])
        sizes = np.random.default_rng([self.seed, step, 2])
        size = int(self.resolutions[int(sizes.integers(len(self.resolutions)))])
        scan_number = number if self.scans is None else self._in_order(number, self.scans, 0)
        scan = self._scan(scan_number, size)
        mask = scan["mask"] if self.sampling.fixed else self.sampling.draw(size, rng)
        item = {
            "kspace": scan["kspace"] * mask[0],
            "mask": mask[0],
            "coil_maps": scan["coil_maps"],
            "step": step,
            "metadata": scan["metadata"],
            "form": scan["form"],
            "seed": int(rng.integers(2**62)),
        }
        if self.labels.kind == "paired":
            item["target"] = scan["target"]
        elif self.labels.kind == "none":
            item["held_out"], item["mask"] = split(mask[0], self.held_out_share, rng)
        else:
            assert self.labels.labelled is not None
            assert self.scans is not None
            label = self._in_order(number, self.labels.labelled, 1)
            first = 0 if self.labels.kind == "partial" else self.scans
            image = self._scan(first + label, size)["target"]
            item["label"] = image.abs() if self.labels.magnitude else image
        return item

    def _in_order(self, number: int, count: int, stream: int) -> int:
        """One of so many, each once in every round, in another order each round."""
        turn, place = divmod(number, count)
        order = np.random.default_rng([self.seed, turn, 5, stream]).permutation(count)
        return int(order[place])

    def _scan(self, number: int, size: int) -> dict[str, Any]:
        """A fully sampled noisy scan, its maps and the image that they give; kept if finite."""
        kept = self._kept.get((number, size))
        if kept is None:
            kept = self._make_scan(number, size)
            if self.scans is not None and len(self._kept) < _KEPT:
                self._kept[number, size] = kept
        return kept

    def _make_scan(self, number: int, size: int) -> dict[str, Any]:
        drawn = self.source.draw(number, size)
        sampling = self.sampling
        generator = torch.Generator().manual_seed(self.seed * 2**40 + number)
        true_maps = simulate_coil_maps(sampling.num_coils, (size, size), generator=generator)
        kspace = fft2c(true_maps * channels_to_complex(drawn["image"]))
        if sampling.snr:
            noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
            kspace = kspace + noise / sampling.snr
        mask = sampling.draw(size, np.random.default_rng([self.seed, number, 4]))
        maps = true_maps
        if sampling.num_coils > 1:
            maps = estimate_coil_maps(kspace * mask, mask)
        return {
            "kspace": kspace[0],
            "coil_maps": maps[0],
            "target": (maps.conj() * ifft2c(kspace)).sum(dim=1)[0],
            "mask": mask,
            "metadata": drawn["metadata"],
            "form": drawn.get("prompt_form", "fastmri"),
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """One batch, with tokens ``(batch, length)`` where there is a tokenizer."""
        tensors = [name for name, value in samples[0].items() if isinstance(value, Tensor)]
        batch = {name: torch.stack([sample[name] for sample in samples]) for name in tensors}
        batch["step"] = torch.tensor([sample["step"] for sample in samples])
        if self.tokenizer is not None:
            prompts = [self._prompt(sample) for sample in samples]
            check_prompt_length(self.tokenizer, prompts)
            batch["tokens"] = self.tokenizer(
                prompts, padding="max_length", return_tensors="pt"
            ).input_ids
        return batch

    def _prompt(self, sample: dict[str, Any]) -> str:
        """Most of what is known: whole prompts alone would be needed ever after."""
        metadata: ScanMetadata = sample["metadata"]
        generator = torch.Generator().manual_seed(sample["seed"])
        return drop_metadata(
            metadata, generator, parameters=0.2, prompt=0.1, field=0.1, form=sample["form"]
        )


def split(mask: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Samples that are held out, and those that a network sees: SSDU's Λ and Θ.

    Yaman et al., Magn Reson Med 84:3172 (2020): held out at random, but for the 4×4 middle.

    Args:
        mask: ``(1, ny, nx)`` bool.
        share: of the samples to hold out.
        rng: source of randomness.

    Returns:
        Λ and Θ, ``(1, ny, nx)`` bool each, without a common sample, together ``mask``.
    """
    ny, nx = mask.shape[-2:]
    free = mask.clone()
    free[..., ny // 2 - 2 : ny // 2 + 2, nx // 2 - 2 : nx // 2 + 2] = False
    places = free.flatten().nonzero()[:, 0].numpy()
    count = min(round(share * int(mask.sum())), len(places))
    chosen = torch.from_numpy(rng.choice(places, count, replace=False))
    held_out = torch.zeros_like(mask).flatten()
    held_out[chosen] = True
    held_out = held_out.view_as(mask)
    return held_out, mask & ~held_out
