"""Validation of user arrays (NumPy or torch) and conversion to canonical shapes."""

from __future__ import annotations

import os
from math import prod
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.plausibility import check_coil_axis

ArrayLike: TypeAlias = "Tensor | np.ndarray"

# torch lacks long doubles, most unsigned integers and foreign byte orders.
_PORTABLE = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64, "c": np.complex64}

_FAINTEST, _BRIGHTEST = 1e-30, 1e19

# Compound types with which h5py and MATLAB store complex numbers.
_COMPLEX_FIELDS = ({"r", "i"}, {"real", "imag"})


def as_tensor(value: ArrayLike, name: str) -> Tensor:
    """Convert an array to a tensor of a type that torch supports; ``name`` is for messages."""
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            raise InputError(f"expected {name} as a dense tensor, got a sparse one: use to_dense()")
        return value.detach().resolve_conj().resolve_neg()
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"expected {name} as a NumPy array or a torch tensor, got {type(value).__name__}: "
            f"{_how_to_convert(value)}"
        )
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(
            f"expected {name} as a plain array, got a masked array, which hides some values: "
            "use array.filled(0) to mark them as not measured"
        )
    array: np.ndarray = value
    if array.dtype.names is not None and set(array.dtype.names) in _COMPLEX_FIELDS:
        real, imaginary = (array[field] for field in sorted(array.dtype.names, reverse=True))
        array = real + np.complex64(1j) * imaginary
    if array.dtype.kind not in _PORTABLE:
        remedy = (
            "give arrays of one shape, combined with np.stack"
            if array.dtype.kind == "O"
            else "convert it with astype(np.complex64)"
        )
        raise InputError(
            f"expected numbers in {name}, got a NumPy array of {array.dtype}: {remedy}"
        )
    with np.errstate(over="ignore"):  # infinite values are rejected later
        return torch.from_numpy(array.astype(_PORTABLE[array.dtype.kind], order="C"))


def to_numpy(value: Tensor) -> np.ndarray:
    """Return a tensor on any device as a NumPy array; bfloat16, which NumPy lacks, as float32."""
    if value.dtype == torch.bfloat16:
        value = value.float()
    return value.detach().cpu().resolve_conj().resolve_neg().numpy()


def _how_to_convert(value: object) -> str:
    """Return advice on how to get an array from an object that is none."""
    if isinstance(value, str | os.PathLike):
        return "read scan files with ctxrecon.read_scan and arrays with np.load"
    if type(value).__name__ == "Scan":
        return "pass Measurement.from_scan(scan)"
    return "convert it with np.asarray"


def check_kspace(kspace: ArrayLike) -> Tensor:
    """Validate k-space and return it as ``(batch, coils, ny, nx)``, complex64.

    Accepted shapes are those of ``Measurement.from_arrays``.

    Raises:
        InputError: If it is not complex, empty, not finite, or its scale does not suit float32.
    """
    y = as_tensor(kspace, "k-space")
    shape = tuple(y.shape)
    if not y.is_complex():
        raise InputError(
            f"expected complex k-space, got {kspace.dtype} of shape {shape}: {_join_parts(shape)}"
        )
    if y.ndim not in (2, 3, 4):
        remedy = (
            "merge the leading axes with kspace.reshape(-1, *kspace.shape[-3:])"
            if y.ndim > 4
            else "restore the grid with kspace.reshape(ny, nx)"
        )
        raise InputError(
            "expected k-space (batch, coils, ny, nx), (coils, ny, nx) or (ny, nx), "
            f"got shape {shape}: {remedy}"
        )
    if y.numel() == 0:
        raise InputError(
            f"expected at least one k-space sample, got the empty shape {shape}: "
            "check how it was read"
        )
    y = y.to(torch.complex64)[(None,) * (4 - y.ndim)]
    if not bool(torch.isfinite(torch.view_as_real(y)).all()):
        raise InputError(
            "k-space contains NaN or infinite values: check how it was read or computed"
        )
    peak = y.abs().flatten(1).amax(dim=1)
    vanished = not bool(peak.any()) and _largest(kspace) > 0
    if vanished or bool(((peak > 0) & ((peak < _FAINTEST) | (peak > _BRIGHTEST))).any()):
        raise InputError(
            f"expected k-space whose largest sample lies between {_FAINTEST:g} and "
            f"{_BRIGHTEST:g}, so that its square fits single precision, got "
            f"{_largest(kspace):.3g}: multiply k-space by a constant"
        )
    check_coil_axis(y)
    return y


def _largest(values: Any) -> float:
    """Return the largest magnitude of an array in its own type."""
    if getattr(values.dtype, "names", None):  # real and imaginary part
        return max(float(abs(values[name]).max()) for name in values.dtype.names)
    return float(abs(values).max())


def _join_parts(shape: tuple[int, ...]) -> str:
    """Return advice on how to make real k-space of this shape complex."""
    if shape and shape[-1] == 2:
        return (
            "combine real and imaginary parts with kspace[..., 0] + 1j * kspace[..., 1] "
            "(torch.view_as_complex)"
        )
    if len(shape) >= 3 and shape[-3] == 2:
        return (
            "combine real and imaginary parts with "
            "kspace[..., 0, :, :] + 1j * kspace[..., 1, :, :] (torch.complex)"
        )
    return (
        "give the complex samples, because the phase is required "
        "(torch.view_as_complex combines real and imaginary parts)"
    )


def check_mask(mask: ArrayLike, shape: tuple[int, int, int]) -> Tensor:
    """Validate a mask and return it as ``(batch or 1, 1, ny, nx)``, bool.

    Args:
        mask: Sampling mask of any shape that ``Measurement.from_arrays`` accepts.
        shape: Shape ``(batch, ny, nx)`` of the k-space without coils.

    Raises:
        InputError: If it has other values than 0 and 1 or another shape, or samples nothing.
    """
    batch, ny, nx = shape
    sampled = as_tensor(mask, "the mask")
    got = tuple(sampled.shape)
    if sampled.dtype != torch.bool:
        if sampled.is_complex() or not bool(((sampled == 0) | (sampled == 1)).all()):
            raise InputError(
                f"expected a mask of booleans or of 0 and 1, got other values of {mask.dtype}: "
                "give mask != 0 if it is non-zero where k-space was measured"
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
            f"expected {(nx,)}, {(ny, nx)} or {(batch, 1, ny, nx)}{_reshape_mask(got, (ny, nx))}"
        )
    if not bool(sampled.flatten(1).any(dim=1).all()):
        raise InputError("the mask samples nothing: expected True where k-space was measured")
    return sampled


def _reshape_mask(shape: tuple[int, ...], size: tuple[int, int]) -> str:
    """Return advice on how to make a mask of this shape fit, if there is an obvious way."""
    ny, nx = size
    if len(shape) == 4 and shape[-2:] == size:
        return "; all coils share one mask, mask[:, :1]"
    if shape != (nx,) and prod(shape) == nx:
        return "; use mask.reshape(-1)"
    if shape == (ny,):
        return "; for lines along nx use np.repeat(mask[:, None], nx, axis=1)"
    if shape[-2:] == (nx, ny):
        return "; swap its axes with np.swapaxes(mask, -1, -2)"
    return ""


def check_coil_maps(
    coil_maps: ArrayLike, shape: tuple[int, int, int, int], empty: Tensor | None = None
) -> Tensor:
    """Validate coil maps and return them as ``(batch or 1, [sets,] coils, ny, nx)``, complex64.

    Args:
        coil_maps: Coil maps of any shape that ``Measurement.from_arrays`` accepts.
        shape: Shape ``(batch, coils, ny, nx)`` of the k-space.
        empty: Flags of slices without signal, shape ``(batch,)``, whose maps may be zero.

    Raises:
        InputError: If they are not complex and finite, have another shape, or are zero.
    """
    batch, coils, ny, nx = shape
    maps = as_tensor(coil_maps, "coil maps")
    if not maps.is_complex():
        raise InputError(f"expected complex coil maps, got {coil_maps.dtype}")
    if maps.ndim == 3:
        maps = maps[None]
    fits = maps.ndim in (4, 5) and tuple(maps.shape[-3:]) == (coils, ny, nx)
    if not fits or len(maps) not in {1, batch} or maps.shape[1] == 0:
        raise InputError(
            f"coil maps of shape {tuple(coil_maps.shape)} do not fit k-space of shape {shape}: "
            f"expected {(coils, ny, nx)} or {shape}, or (batch, sets, coils, ny, nx)"
        )
    maps = maps.to(torch.complex64)
    if not bool(torch.isfinite(torch.view_as_real(maps)).all()):
        raise InputError("coil maps contain NaN or infinite values: estimate them again")
    blind = (maps == 0).flatten(1).all(dim=1)
    if empty is not None and len(blind) == len(empty):
        blind = blind & ~empty.to(blind.device)
    if bool(blind.any()):
        raise InputError("coil maps are zero everywhere: leave them out to have them estimated")
    return maps
