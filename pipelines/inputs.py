"""The door through which every pipeline takes its measurement."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from ctxrecon.coils import estimate_coil_maps
from ctxrecon.emptiness import find_empty
from ctxrecon.errors import InputError
from ctxrecon.operators import CartesianSense

logger = logging.getLogger(__name__)

ArrayLike: TypeAlias = "Tensor | np.ndarray"


@dataclass(frozen=True)
class Measurement:
    """A checked measurement ``y = A x + n`` in canonical shapes, all on one device.

    Attributes:
        kspace: ``(batch, coils, ny, nx)`` complex64, zero outside the mask.
        mask: ``(batch or 1, 1, ny, nx)`` bool.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64; ``None`` for a single coil.
        operator: ``A = M F S``.
        empty: ``(batch,)`` bool, slices of zeros or of nothing but noise, whose maps are the same
            for every coil.
    """

    kspace: Tensor
    mask: Tensor
    coil_maps: Tensor | None
    operator: CartesianSense
    empty: Tensor


def prepare_measurement(
    kspace: ArrayLike,
    mask: ArrayLike | None = None,
    coil_maps: ArrayLike | None = None,
) -> Measurement:
    """Check a measurement and bring it into canonical shapes.

    Args:
        kspace: complex, centred (zero frequency at ``n // 2``): ``(batch, coils, ny, nx)``,
            ``(coils, ny, nx)`` or, for a single coil, ``(ny, nx)``. NumPy or torch.
        mask: where k-space was sampled: ``(nx,)`` lines, ``(ny, nx)``, ``(batch or 1, ny, nx)``
            or ``(batch or 1, 1, ny, nx)``, bool or numbers 0 and 1. ``None`` takes the samples
            that are not zero in some coil, and logs it. Samples outside a given mask are set to
            zero, and that is logged too.
        coil_maps: complex, ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``. ``None``
            estimates them from the calibration region of ``kspace`` (a single coil needs none).

    Slices without signal, such as those of air at the ends of a volume, stay in the batch; see
    :func:`ctxrecon.emptiness.find_empty`.

    Raises:
        InputError: for anything malformed, in a sentence of its own.
    """
    y = check_kspace(kspace)
    batch, coils, ny, nx = y.shape
    if mask is None:
        sampled = _infer_mask(y)
    else:
        sampled = check_mask(mask, (batch, ny, nx)).to(y.device)
        outside = int((~sampled & (y != 0)).any(dim=1).sum())
        if outside:
            logger.warning(
                "k-space is not zero at %d positions outside the mask; they are set to zero",
                outside,
            )
            _check_not_all_outside(y, sampled)
            y = y * sampled

    empty = find_empty(y, sampled).to(y.device)
    maps: Tensor | None
    if coil_maps is not None:
        maps = check_coil_maps(coil_maps, (batch, coils, ny, nx), empty).to(y.device)
    elif coils == 1:
        maps = None
    else:
        logger.info("no coil maps given: estimating them from the calibration region")
        maps = _estimate_coil_maps(y, sampled, ~empty)
        empty = empty | (maps == 0).flatten(1).all(dim=1)
    return Measurement(y, sampled, maps, CartesianSense(sampled, maps), empty)


def _estimate_coil_maps(y: Tensor, sampled: Tensor, filled: Tensor) -> Tensor:
    """Maps of the slices that hold signal; the same for every coil in the others."""
    if bool(filled.all()):
        return estimate_coil_maps(y, sampled)
    maps = torch.full_like(y, y.shape[1] ** -0.5)
    if bool(filled.any()):
        masks = sampled if len(sampled) == 1 else sampled[filled]
        maps[filled] = estimate_coil_maps(y[filled], masks)
    return maps


# torch has no long doubles, few unsigned integers and one byte order.
_PORTABLE = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64, "c": np.complex64}


def as_tensor(value: ArrayLike, name: str) -> Tensor:
    """A tensor of what torch has a type for; ``name`` is for the error."""
    if isinstance(value, Tensor):
        return value.detach().resolve_conj()
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"expected {name} as a NumPy array or a torch tensor, got {type(value).__name__}"
        )
    if value.dtype.kind not in _PORTABLE:
        raise InputError(f"expected numbers in {name}, got a NumPy array of {value.dtype}")
    with np.errstate(over="ignore"):  # becomes infinite, which is refused later
        return torch.from_numpy(value.astype(_PORTABLE[value.dtype.kind], order="C"))


def check_kspace(kspace: ArrayLike) -> Tensor:
    """Complex64 k-space ``(batch, coils, ny, nx)``; see :func:`prepare_measurement`."""
    y = as_tensor(kspace, "k-space")
    shape = tuple(y.shape)
    if not y.is_complex():
        raise InputError(
            f"expected complex k-space, got {kspace.dtype} of shape {shape}: join real and "
            "imaginary parts with torch.view_as_complex"
        )
    if y.ndim not in (2, 3, 4):
        raise InputError(
            "expected k-space (batch, coils, ny, nx), (coils, ny, nx) or (ny, nx), "
            f"got shape {shape}"
        )
    if y.numel() == 0:
        raise InputError(f"expected k-space with samples in it, got the empty shape {shape}")
    y = y.to(torch.complex64)[(None,) * (4 - y.ndim)]
    if not bool(torch.isfinite(torch.view_as_real(y)).all()):
        raise InputError("k-space holds NaN or infinite values: find out where they come from")
    return y


def _check_not_all_outside(y: Tensor, sampled: Tensor) -> None:
    there = (y != 0).flatten(1).any(dim=1)
    lost = there & ~(sampled & (y != 0)).flatten(1).any(dim=1)
    if bool(lost.any()):
        raise InputError(
            f"k-space of slice {int(lost.nonzero()[0])} is zero everywhere inside the mask: "
            "give the mask that it was measured with"
        )


def _infer_mask(y: Tensor) -> Tensor:
    sampled = (y != 0).any(dim=1, keepdim=True)
    # Of a slice of zeros nothing is known; its image is zero whatever was sampled.
    sampled |= ~sampled.flatten(1).any(dim=1)[:, None, None, None]
    fraction = float(sampled.float().mean())
    logger.info(
        "no mask given: the samples that are not zero are taken as sampled (%.1f %%)",
        100.0 * fraction,
    )
    return sampled


def check_mask(mask: ArrayLike, shape: tuple[int, int, int]) -> Tensor:
    """A mask ``(batch or 1, 1, ny, nx)`` bool for ``shape`` ``(batch, ny, nx)``; see there too."""
    batch, ny, nx = shape
    sampled = as_tensor(mask, "the mask")
    got = tuple(sampled.shape)
    if sampled.dtype != torch.bool:
        if sampled.is_complex() or not bool(((sampled == 0) | (sampled == 1)).all()):
            raise InputError(
                f"expected a mask of booleans or of 0 and 1, got other values of {mask.dtype}"
            )
        sampled = sampled == 1
    if got == (nx,):
        sampled = sampled.expand(1, 1, ny, nx)
    elif got == (ny, nx):
        sampled = sampled[None, None]
    elif got in {(1, ny, nx), (batch, ny, nx)}:
        sampled = sampled[:, None]
    elif got not in {(1, 1, ny, nx), (batch, 1, ny, nx)}:
        raise InputError(
            f"mask of shape {got} does not fit k-space with batch {batch} and size {ny}x{nx}: "
            f"expected {(nx,)}, {(ny, nx)} or {(batch, 1, ny, nx)}"
        )
    if not bool(sampled.flatten(1).any(dim=1).all()):
        raise InputError("the mask samples nothing: expected True where k-space was measured")
    return sampled


def check_coil_maps(
    coil_maps: ArrayLike, shape: tuple[int, int, int, int], empty: Tensor | None = None
) -> Tensor:
    """Complex64 maps ``(batch or 1, coils, ny, nx)`` for k-space of ``shape``; see there too.

    Those of a slice that is ``empty`` may be zero everywhere.
    """
    coils, ny, nx = shape[1:]
    maps = as_tensor(coil_maps, "coil maps")
    if not maps.is_complex():
        raise InputError(f"expected complex coil maps, got {coil_maps.dtype}")
    if maps.ndim == 3:
        maps = maps[None]
    if tuple(maps.shape) not in {(1, coils, ny, nx), shape}:
        raise InputError(
            f"coil maps of shape {tuple(coil_maps.shape)} do not fit k-space of shape {shape}: "
            f"expected {(coils, ny, nx)} or {shape}"
        )
    maps = maps.to(torch.complex64)
    if not bool(torch.isfinite(torch.view_as_real(maps)).all()):
        raise InputError("coil maps hold NaN or infinite values: estimate them again")
    blind = (maps == 0).flatten(1).all(dim=1)
    if empty is not None and len(blind) == len(empty):
        blind = blind & ~empty.to(blind.device)
    if bool(blind.any()):
        raise InputError("coil maps are zero everywhere: leave them out to have them estimated")
    return maps
