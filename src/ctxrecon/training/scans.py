"""Fully sampled scans to train on: measured, kept in memory, taken in turns."""

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
"""Scans that are kept in memory, in each process."""


def fully_sampled(
    images: Tensor,
    num_coils: int,
    snr: float,
    calibration: Tensor,
    generator: torch.Generator,
    *,
    coil_phase: bool = True,
) -> dict[str, Tensor]:
    """A noisy scan of several contrasts, its maps, and the images that they give.

    Args:
        images: ``(contrasts, ny, nx)`` complex64, 99 % quantile of the magnitude at 1.
        num_coils: of the simulated array.
        snr: of the bright signal to complex noise; 0 for none.
        calibration: ``(1, 1, ny, nx)`` bool, samples that coil maps are estimated from, those of
            the contrast with the most signal there.
        generator: draws coils and noise.
        coil_phase: whether a single coil has a phase, and a sensitivity that varies; otherwise
            k-space is that of the images themselves, ``y = F x + n``. Arrays of several coils are
            the same either way.

    Returns:
        ``kspace`` ``(contrasts, coils, ny, nx)``, ``coil_maps`` ``(coils, ny, nx)``, ``target``
        ``(contrasts, ny, nx)``, complex64.
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
    else:  # as in every pipeline: the phase of a single coil stays in the image
        maps = torch.ones_like(maps)
    target = (maps.conj() * ifft2c(kspace)).sum(dim=1)
    return {"kspace": kspace, "coil_maps": maps[0], "target": target}


def check_calibration(calibration: Tensor, num_coils: int, what: str) -> None:
    """Refuse a centre that coil maps cannot be estimated from.

    Args:
        calibration: ``(1, 1, n, n)`` bool, see :func:`fully_sampled`.
        num_coils: of the array; the map of one coil is known.
        what: has that centre.

    Raises:
        InputError: with what to change on the command line.
    """
    if num_coils == 1:
        return
    try:
        find_calibration_region(calibration)
    except InputError:
        least = MIN_CALIBRATION / calibration.shape[-1]
        raise InputError(
            f"the centre of {what} is smaller than the {MIN_CALIBRATION}×{MIN_CALIBRATION} samples "
            f"that maps of {num_coils} coils are estimated from: give --center_fraction "
            f"{math.ceil(1e4 * least) / 1e4:g} or more, or --num_coils 1"
        ) from None


def check_magnitude(magnitude: bool, num_coils: int) -> None:
    """Refuse magnitude images seen by several coils, whose phases would be in them again.

    Raises:
        InputError: with what to change on the command line.
    """
    if magnitude and num_coils != 1:
        raise InputError(
            f"magnitude images are scanned by one coil without a phase, not by {num_coils}: give "
            "--num_coils 1, or leave --magnitude_images out"
        )


def brightest(kspace: Tensor) -> int:
    """The contrast with the most energy, of ``(contrasts, coils, ny, nx)``."""
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
        """Return the cached value, or make and cache it while there is room."""
        if key in self.kept:
            return self.kept[key]
        made = make()
        size = _size_of(made)
        if self.bytes + size <= _KEPT_BYTES:
            self.kept[key] = made
            self.bytes += size
        return made

    def draw(self, number: int, count: int | None, seed: int, make: Callable[[int], Any]) -> Any:
        """Return a scan to train on: a new one, or one of a fixed number of scans in turn.

        Args:
            number: of the draw.
            count: how many scans there are, of which as many as fit are cached; ``None`` for a new
                one in every draw.
            seed: of the order, which is another in every turn.
            make: gives the scan of a number.
        """
        if count is None:
            return make(number)
        chosen = in_turn(number, count, seed, 5, 0)
        return self.get((chosen,), lambda: make(chosen))


def stack(samples: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Tensor]:
    """Entries of samples as one batch: tensors stacked, whole numbers as a tensor.

    Args:
        samples: of one batch.
        names: of the entries; the others are left out.
    """
    return {
        name: torch.stack([torch.as_tensor(sample[name]) for sample in samples]) for name in names
    }


def _size_of(made: Any) -> int:
    """Bytes of the tensors in it."""
    values = made.values() if isinstance(made, dict) else [made]
    return sum(v.numel() * v.element_size() for v in values if isinstance(v, Tensor))
