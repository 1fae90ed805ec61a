"""Fully sampled training scans: simulated, cached, and drawn in turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctxrecon.coils import estimate_coil_maps, find_calibration_region, simulate_coil_maps
from ctxrecon.coils.calibration import MIN_CALIBRATION
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c

_KEPT_BYTES = 2**31
"""Maximum size of the cache of scans in each process, in bytes."""


def fully_sampled(
    images: Tensor,
    num_coils: int,
    snr: float,
    calibration: Tensor,
    generator: torch.Generator,
    *,
    coil_phase: bool = True,
) -> dict[str, Tensor]:
    """Simulate a noisy multi-contrast scan, and return it with its coil maps and target images.

    Args:
        images: Images ``(contrasts, ny, nx)``, complex64, with the 99 % quantile of the magnitude
            at 1.
        num_coils: Number of coils of the simulated array.
        snr: Ratio of the bright signal to the complex noise; 0 for no noise.
        calibration: Samples from which coil maps are estimated, ``(1, 1, ny, nx)`` bool, in the
            contrast with the most signal there.
        generator: Source of randomness of coils and noise.
        coil_phase: If true, a single coil has a phase and a varying sensitivity; otherwise its
            k-space is ``y = F x + n``. Arrays of several coils are not affected.

    Returns:
        Complex64 tensors ``kspace`` ``(contrasts, coils, ny, nx)``, ``coil_maps``
        ``(coils, ny, nx)`` and ``target`` ``(contrasts, ny, nx)``.
    """
    shape = (images.shape[-2], images.shape[-1])
    if num_coils == 1 and not coil_phase:
        maps = images.new_ones(1, 1, *shape)
    else:
        maps = simulate_coil_maps(num_coils, shape, generator=generator)
    kspace = fft2c(maps * images[:, None])
    if snr:
        noise = torch.randn(kspace.shape, dtype=kspace.dtype, generator=generator)
        kspace = kspace + noise / snr
    if num_coils > 1:
        seen = kspace * calibration
        maps = estimate_coil_maps(seen[brightest(seen)][None], calibration, num_maps=1)
    else:  # as in all pipelines, the phase of a single coil stays in the image
        maps = torch.ones_like(maps)
    target = (maps.conj() * ifft2c(kspace)).sum(dim=1)
    return {"kspace": kspace, "coil_maps": maps[0], "target": target}


def check_calibration(calibration: Tensor, num_coils: int, what: str) -> None:
    """Validate that a center is large enough for the estimation of coil maps.

    Args:
        calibration: Calibration samples ``(1, 1, n, n)``, bool, see :func:`fully_sampled`.
        num_coils: Number of coils of the array; the map of a single coil is known.
        what: Name of the object with this center, for the message.

    Raises:
        InputError: If the center is too small, with the option to change.
    """
    if num_coils == 1:
        return
    try:
        find_calibration_region(calibration)
    except InputError:
        least = MIN_CALIBRATION / calibration.shape[-1]
        raise InputError(
            f"the center of {what} is smaller than the {MIN_CALIBRATION}×{MIN_CALIBRATION} samples "
            f"needed to estimate maps of {num_coils} coils: use --center_fraction "
            f"{math.ceil(1e4 * least) / 1e4:g} or more, or --num_coils 1"
        ) from None


def check_magnitude(magnitude: bool, num_coils: int) -> None:
    """Validate that magnitude images use a single coil; several coils would add their phases.

    Raises:
        InputError: If there are several coils, with the option to change.
    """
    if magnitude and num_coils != 1:
        raise InputError(
            f"magnitude images need a single coil without a phase, got {num_coils} coils: use "
            "--num_coils 1, or omit --magnitude_images"
        )


def brightest(kspace: Tensor) -> int:
    """Return the contrast with the most energy of k-space ``(contrasts, coils, ny, nx)``."""
    return int(kspace.abs().square().flatten(1).sum(dim=1).argmax())


def in_turn(number: int, count: int, *seed: int) -> int:
    """Index of the ``number``-th draw of an epoch-wise shuffle of ``count`` items."""
    turn, place = divmod(number, count)
    order = np.random.default_rng([seed[0], turn, *seed[1:]]).permutation(count)
    return int(order[place])


class Memory:
    """Cache of simulated scans, bounded in bytes."""

    def __init__(self) -> None:
        self.kept: dict[tuple[Any, ...], Any] = {}
        self.bytes = 0

    def get(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """Return the cached value, or compute it and cache it if the size limit permits."""
        if key in self.kept:
            return self.kept[key]
        made = make()
        size = _size_of(made)
        if self.bytes + size <= _KEPT_BYTES:
            self.kept[key] = made
            self.bytes += size
        return made

    def draw(self, number: int, count: int | None, seed: int, make: Callable[[int], Any]) -> Any:
        """Return a training scan: a new one, or one of a fixed number of scans in turn.

        Args:
            number: Number of the draw.
            count: Number of scans, which are cached up to the size limit; ``None`` for a new scan
                in every draw.
            seed: Random seed of the order, which changes in every turn.
            make: Function that returns the scan of a number.
        """
        if count is None:
            return make(number)
        chosen = in_turn(number, count, seed, 5, 0)
        return self.get((chosen,), lambda: make(chosen))


def stack(samples: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Tensor]:
    """Collate entries of samples to a batch: tensors are stacked, whole numbers become a tensor.

    Args:
        samples: Samples of one batch.
        names: Names of the entries to keep.
    """
    return {
        name: torch.stack([torch.as_tensor(sample[name]) for sample in samples]) for name in names
    }


def _size_of(made: Any) -> int:
    """Return the number of bytes of the contained tensors."""
    values = made.values() if isinstance(made, dict) else [made]
    return sum(v.numel() * v.element_size() for v in values if isinstance(v, Tensor))
