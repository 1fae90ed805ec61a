"""Training samples of reconstructors: undersampled slices with the available labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ctxrecon.datasets import ShardSlices, check_complex_slices
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex
from ctxrecon.masks import make_mask
from ctxrecon.masks.learned import MaskNetwork
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import AnatomyBank, PhantomSlices
from ctxrecon.training.prompts import drop_metadata
from ctxrecon.training.reconstructor.config import LABELS, ReconstructorConfig
from ctxrecon.training.scans import (
    Memory,
    check_calibration,
    check_magnitude,
    fully_sampled,
    in_turn,
)
from ctxrecon.training.slices import PreparedSlices, SliceSource, one_of, tokens_of

Kind: TypeAlias = tuple[str, float]
"""Name and acceleration of a mask."""

_POOL = 256
"""Number of masks of each kind to draw from; generating Poisson disks takes long."""


@dataclass(frozen=True)
class Sampling:
    """Undersampling of training slices.

    Attributes:
        masks: Names of masks, one of which is drawn for each sample.
        accelerations: Acceleration factors, one of which is drawn for each sample.
        center_fraction: Fully sampled share of every mask; ``None`` for ``0.32 / acceleration`` of
            the lines, and for the mask's default in 2-D.
        fixed: If true, every scan keeps its mask; otherwise a new one is drawn each time.
        num_coils: Numbers of coils of the simulated array, one of which is drawn in each step.
        snr: Ratio of the bright signal to the complex noise; 0 for no noise.
        sampler: Sampler whose masks replace the named ones. It must be non-adaptive and have no
            contrast axis.
        magnitude: If true, the magnitudes of the images are scanned with one coil without phase.
    """

    masks: Sequence[str] = ("uniform1d",)
    accelerations: Sequence[float] = (4.0,)
    center_fraction: float | None = None
    fixed: bool = False
    num_coils: Sequence[int] = (8,)
    snr: float = 100.0
    sampler: MaskNetwork | None = None
    magnitude: bool = False

    def check(self, sizes: Sequence[int]) -> None:
        """Validate the settings by drawing a mask of each kind and size.

        Raises:
            InputError: If a mask cannot be drawn or is unsuitable for coil-map estimation, or
                another value is invalid.
        """
        if min(self.num_coils, default=0) < 1 or self.snr < 0:
            raise InputError(
                "expected at least one coil and an SNR of at least 0, got "
                f"{list(self.num_coils)} coils and an SNR of {self.snr:g}"
            )
        check_magnitude(self.magnitude, max(self.num_coils))
        if self.sampler is not None and self.center_fraction is not None:
            raise InputError(
                "--center_fraction applies to --masks, and the sampler has its own center: omit it"
            )
        for name, acceleration, size in product(self.names, self.accelerations, sizes):
            if self.sampler is not None and self.sampler.shape != (size, size):
                raise InputError(
                    f"the sampler's masks have the matrix size {self.sampler.shape}, the slices "
                    f"{size}²: use --resolution {self.sampler.shape[0]}"
                )
            check_calibration(
                self.mask((name, acceleration), size, 0),
                max(self.num_coils),
                f"{name} masks ×{acceleration:g} of {size}²",
            )

    @property
    def names(self) -> Sequence[str]:
        """Names of the kinds of masks, or the sampler's class."""
        return self.masks if self.sampler is None else (type(self.sampler).__name__,)

    def draw(self, size: int, rng: np.random.Generator) -> tuple[Kind, Tensor]:
        """Draw a kind of mask, and a mask ``(1, 1, size, size)`` of it."""
        kind = (str(rng.choice(np.array(self.names))), float(rng.choice(self.accelerations)))
        return kind, self.mask(kind, size, int(rng.integers(_POOL)))

    def mask(self, kind: Kind, size: int, number: int) -> Tensor:
        """Return the mask of a number."""
        name, acceleration = kind
        if self.sampler is not None:
            return _sampled(self.sampler, acceleration, number)
        fraction = self.center_fraction
        if fraction is None and name.endswith("1d"):
            fraction = 0.32 / acceleration
        return _mask(name, size, acceleration, fraction, number)


@lru_cache(maxsize=8 * _POOL)
def _mask(name: str, size: int, acceleration: float, fraction: float | None, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return make_mask(name, (size, size), acceleration, fraction, generator=generator)


@lru_cache(maxsize=8 * _POOL)
def _sampled(sampler: MaskNetwork, acceleration: float, seed: int) -> Tensor:
    return sampler(acceleration, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Labels:
    """Fully sampled images that are available in training.

    Attributes:
        kind: "paired" for each scan's own image; "partial" for unpaired images of the first
            ``labeled`` scans; "disjoint" for unpaired images of ``labeled`` other scans; "none" for
            self-supervision, with the samples of each scan split in two.
        labeled: Number N of unpaired images.
        magnitude: If true, unpaired labels are magnitudes without phase.
    """

    kind: str = "paired"
    labeled: int | None = None
    magnitude: bool = False

    def __post_init__(self) -> None:
        """Validate the combination of values."""
        if self.kind not in LABELS:
            raise InputError(f"unknown labels {self.kind!r}: expected one of {', '.join(LABELS)}")
        unpaired = self.kind in ("partial", "disjoint")
        if unpaired and (self.labeled is None or self.labeled < 1):
            raise InputError(f"{self.kind} labels need a number: set --labeled N")
        if not unpaired and (self.labeled is not None or self.magnitude):
            raise InputError(
                f"--labeled and --magnitude_labels apply to partial or disjoint labels, not to "
                f"{self.kind} ones: omit them"
            )


@dataclass(frozen=True)
class MeasurementSamples:
    """Training samples of a reconstructor, determined by the seed and the sample number.

    A batch contains ``kspace`` ``(batch, coils, ny, nx)``, ``mask``, ``coil_maps`` (estimated from
    the samples of a mask of the same kind), ``step``, and ``tokens`` if prompts are used. Depending
    on the kind of labels it also contains ``target`` ``(batch, ny, nx)``; or ``label``, complex or
    real, and ``share``, the interpolation weight of the gradient penalty; or ``held_out``, the mask
    of the samples of ``kspace`` that the network does not see. A scan without a label of its own is
    treated as never fully sampled: it keeps one mask.

    Attributes:
        source: Source of the slices.
        sampling: Undersampling of the slices.
        labels: Images that are available in training.
        scans: Number M of scans; ``None`` for a new scan in every sample.
        resolutions: Matrix sizes to draw from.
        tokenizer: Tokenizer of the text encoder, for networks with text conditioning.
        label_source: Source of disjoint labels, without a person in common with ``source``.
        held_out_share: Share of the samples of each scan that is held out, without labels.
        seed: Random seed of all samples.
    """

    source: SliceSource
    sampling: Sampling
    labels: Labels
    scans: int | None = None
    resolutions: Sequence[int] = (128,)
    tokenizer: Any = None
    label_source: SliceSource | None = None
    held_out_share: float = 0.4
    seed: int = 0
    _memory: Memory = field(default_factory=Memory, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Validate the combination of values."""
        kind, labeled = self.labels.kind, self.labels.labeled or 0
        if self.scans is not None and self.scans < 1:
            raise InputError(f"expected at least one scan, got {self.scans}")
        if kind == "partial" and self.scans is None:
            raise InputError("partial labels need a finite number of scans: set --scans M")
        if kind == "partial" and labeled > (self.scans or 0):
            raise InputError(
                f"expected at most {self.scans} labeled scans, the number of scans, got {labeled}"
            )
        if (kind == "disjoint") != (self.label_source is not None):
            raise InputError("`label_source` is required for disjoint labels, and only for these")
        if not 0 < self.held_out_share < 1:
            raise InputError(f"expected `held_out_share` in (0, 1), got {self.held_out_share}")
        self.sampling.check(self.resolutions)

    def __getitem__(self, place: tuple[int, int]) -> dict[str, Any]:
        """Return the sample of ``(step, number)``."""
        step, number = place
        rng = np.random.default_rng([self.seed, number, 3])
        size = one_of(self.resolutions, step, self.seed, 2)
        coils = one_of(self.sampling.num_coils, step, self.seed, 6)
        scan_number = number
        if self.scans is not None:
            scan_number = in_turn(number, self.scans, self.seed, 5, 0)
        fixed = self.sampling.fixed or self.labels.kind != "paired"
        own = np.random.default_rng([self.seed, scan_number, 4])
        kind, mask = self.sampling.draw(size, own if fixed else rng)
        scan = self._remember(
            ("scan", scan_number, size, coils, kind),
            lambda: self._scan(scan_number, size, coils, kind),
        )
        item = {
            "kspace": scan["kspace"] * mask[0],
            "mask": mask[0],
            "coil_maps": scan["coil_maps"],
            "step": step,
            "share": rng.random(),
            "metadata": scan["metadata"],
            "form": scan["form"],
            "seed": int(rng.integers(2**62)),
        }
        if self.labels.kind == "paired":
            item["target"] = scan["target"]
        elif self.labels.kind == "none":
            item["held_out"], item["mask"] = split(mask[0], self.held_out_share, rng)
        else:
            item["label"] = self._label(number, size)
        return item

    def _label(self, number: int, size: int) -> Tensor:
        """Draw an unpaired label image."""
        assert self.labels.labeled is not None
        chosen = in_turn(number, self.labels.labeled, self.seed, 5, 1)

        def make() -> Tensor:
            own = np.random.default_rng([self.seed, chosen, 4])
            kind, coils = self.sampling.draw(size, own)[0], self.sampling.num_coils[0]
            image = self._scan(chosen, size, coils, kind, label=True)["target"]
            return image.abs() if self.labels.magnitude else image

        return self._remember(("label", chosen, size), make)

    def _remember(self, key: tuple[Any, ...], make: Any) -> Any:
        """Return the cached value where the number of scans is finite."""
        return make() if self.scans is None else self._memory.get(key, make)

    def _scan(
        self, number: int, size: int, coils: int, kind: Kind, *, label: bool = False
    ) -> dict[str, Any]:
        """Return a fully sampled noisy scan, its coil maps and the image."""
        disjoint = label and self.label_source is not None
        source = self.label_source if disjoint else self.source
        assert source is not None
        drawn = source.draw(number, size)
        generator = torch.Generator().manual_seed(
            self.seed * 2**40 + number + (2**39 if disjoint else 0)
        )
        image = channels_to_complex(drawn["image"])[None]
        if self.sampling.magnitude:
            image = image.abs().to(image.dtype)
        scan = fully_sampled(
            image,
            coils,
            self.sampling.snr,
            self.sampling.mask(kind, size, 0),
            generator,
            coil_phase=not self.sampling.magnitude,
        )
        return {
            "kspace": scan["kspace"][0],
            "coil_maps": scan["coil_maps"],
            "target": scan["target"][0],
            "metadata": drawn["metadata"],
            "form": drawn.get("prompt_form", "fastmri"),
        }

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Collate samples to a batch, with tokens ``(batch, length)`` if there is a tokenizer."""
        tensors = [name for name, value in samples[0].items() if isinstance(value, Tensor)]
        batch = {name: torch.stack([sample[name] for sample in samples]) for name in tensors}
        batch["step"] = torch.tensor([sample["step"] for sample in samples])
        batch["share"] = torch.tensor([sample["share"] for sample in samples]).float()
        if self.tokenizer is not None:
            prompts = [self._prompt(sample) for sample in samples]
            batch["tokens"] = tokens_of(self.tokenizer, prompts)
        return batch

    def _prompt(self, sample: dict[str, Any]) -> str:
        """Return the prompt with random metadata dropout, so that incomplete prompts also work."""
        metadata: ScanMetadata = sample["metadata"]
        generator = torch.Generator().manual_seed(sample["seed"])
        return drop_metadata(
            metadata, generator, parameters=0.2, prompt=0.1, field=0.1, form=sample["form"]
        )


def sources(config: ReconstructorConfig) -> tuple[SliceSource, SliceSource | None]:
    """Return the source of slices and, for disjoint labels, one of other people."""
    if (config.bank is None) == (config.train_data_dir is None):
        raise InputError("specify either --bank or --train_data_dir")
    data: Any
    make: Callable[[Any], SliceSource]
    if config.bank is not None:
        data, make = AnatomyBank.load(config.bank), partial(_phantom, config)
    else:
        assert config.train_data_dir is not None
        slices = check_complex_slices(ShardSlices(config.train_data_dir), "a reconstructor")
        data, make = slices, partial(_prepared, config)
    if config.labels != "disjoint":
        if config.train_data_dir:
            _check_enough("--scans", config.scans, len(data))
        return make(data), None
    share = (
        config.scans / (config.scans + config.labeled) if config.scans and config.labeled else 0.5
    )
    first, second = data.split(share, seed=config.seed)
    if config.train_data_dir:
        _check_enough("--labeled", config.labeled, len(second))
        _check_enough("--scans", config.scans, len(first))
    return make(first), make(second)


def _phantom(config: ReconstructorConfig, bank: AnatomyBank) -> SliceSource:
    return PhantomSlices(
        bank,
        resolution=max(config.resolution),
        seed=config.seed,
        field_of_view=config.field_of_view,
    )


def _prepared(config: ReconstructorConfig, slices: ShardSlices) -> SliceSource:
    return PreparedSlices(slices, seed=config.seed, field_of_view=config.field_of_view)


def _check_enough(option: str, wanted: int | None, there: int) -> None:
    """Validate the number of slices: a repeated one would be a labeled and an unlabeled scan."""
    if wanted is not None and wanted > there:
        raise InputError(
            f"expected {option} of at most {there}, the number of slices, got {wanted}"
        )


def split(mask: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Split a mask into samples that are held out and samples that the network sees (SSDU's Λ, Θ).

    Yaman et al., Magn Reson Med 84:3172 (2020): random, except for the central 4×4 samples, which
    are never held out.

    Args:
        mask: Sampling mask ``(1, ny, nx)``, bool.
        share: Share of the samples to hold out.
        rng: Source of randomness.

    Returns:
        Λ and Θ, ``(1, ny, nx)`` bool each, which are disjoint and together equal ``mask``.
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
