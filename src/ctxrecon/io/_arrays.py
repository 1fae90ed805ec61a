"""Conversion of arrays from files into a validated :class:`~ctxrecon.scan.Scan`."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.metadata import ScanMetadata, from_fastmri_header, from_prompt, plausible_metadata
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)

SliceChoice: TypeAlias = "int | slice | Sequence[int] | None"


def pick_slices(path: Path, choice: SliceChoice, num_slices: int) -> Sequence[int]:
    """Return the selected slices as indices, in the requested order."""
    if choice is None:
        return range(num_slices)
    chosen: Sequence[int]
    if isinstance(choice, slice):
        try:
            chosen = range(num_slices)[choice]
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}: expected whole numbers in {choice} ({error})") from error
    else:
        asked: list[Any] = list(choice) if np.ndim(choice) else [choice]  # type: ignore[arg-type]
        for index in asked:
            if isinstance(index, bool | np.bool_) or not isinstance(index, int | np.integer):
                raise InputError(
                    f"{path}: expected slices as a whole number, a slice or several whole "
                    f"numbers, got {choice!r}"
                )
            if not -num_slices <= index < num_slices:
                count = f"{num_slices} slice{'s' * (num_slices != 1)}"
                raise InputError(f"{path} has {count}, numbered from 0: there is no slice {index}")
        chosen = [int(index) % num_slices for index in asked]
    if not chosen:
        raise InputError(f"{path}: the choice {choice} selects none of its {num_slices} slices")
    return chosen


def read_slices(dataset: Any, chosen: Sequence[int]) -> np.ndarray:
    """Read only the selected slices of an array on disk (HDF5 dataset or memory map)."""
    if (isinstance(chosen, range) and chosen.step == 1) or list(chosen) == list(
        range(chosen[0], chosen[-1] + 1)
    ):
        return np.asarray(dataset[chosen[0] : chosen[-1] + 1])
    return np.stack([np.asarray(dataset[index]) for index in chosen])


def check_complex(path: Path, dtype: np.dtype, name: str = "k-space") -> None:
    """Validate that a data type is complex."""
    if dtype.kind != "c":
        raise InputError(f"{path}: expected complex {name}, got {dtype}: store it as complex64")


def kspace_layout(path: Path, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Return a NumPy k-space shape as (slices, coils, ny, nx); 2-D is one coil, 3-D one slice."""
    if len(shape) not in {2, 3, 4} or min(shape) < 1 or min(shape[-2:]) < 2:
        raise InputError(
            f"{path}: expected k-space (ny, nx), (coils, ny, nx) or (slices, coils, ny, nx), "
            f"got shape {shape}"
        )
    slices, coils, ny, nx = (1,) * (4 - len(shape)) + shape
    return slices, coils, ny, nx


def infer_mask(kspace: torch.Tensor) -> torch.Tensor:
    """Infer the sampling mask, shape ``(batch or 1, 1, ny, nx)``, from samples that are not zero.

    A sample counts as measured if any coil is not exactly zero. All-zero slices get the union of
    the other slices' masks, or a full mask if all slices are zero.
    """
    mask = (kspace != 0).any(dim=1, keepdim=True)
    there = mask.flatten(1).any(dim=1)
    elsewhere = mask.any(dim=0) if bool(there.any()) else torch.ones_like(mask[0])
    mask = torch.where(there[:, None, None, None], mask, elsewhere)
    return mask[:1].clone() if bool((mask == mask[:1]).all()) else mask


def metadata_to_json(metadata: Sequence[ScanMetadata]) -> str:
    """Encode the metadata of each slice as a JSON list without unknown fields."""
    return json.dumps(
        [
            {k: v for k, v in dataclasses.asdict(item).items() if v is not None and v != ()}
            for item in metadata
        ]
    )


def metadata_from_json(path: Path, text: str) -> tuple[ScanMetadata, ...]:
    """Decode :func:`metadata_to_json`; implausible values are dropped with a warning."""
    try:
        items = json.loads(text)
        known = {field.name for field in dataclasses.fields(ScanMetadata)}
        for item in items:
            if unknown := [name for name in item if name not in known]:
                raise ValueError(f"unknown fields {unknown}")
            if "pathologies" in item:
                item["pathologies"] = tuple(item["pathologies"])
        return tuple(plausible_metadata(str(path), **item) for item in items)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path}: expected the metadata as a JSON list of objects with the fields of "
            f"ScanMetadata, one per slice ({error})"
        ) from error


def metadata_from_prompts(path: Path, prompts: Sequence[str]) -> tuple[ScanMetadata, ...]:
    """Parse one prompt per slice; implausible values are dropped with a warning."""

    def metadata(prompt: str) -> ScanMetadata:
        try:
            return from_prompt(prompt)
        except InputError:
            return from_prompt(", ".join(filter(possible, prompt.split(","))))

    def possible(part: str) -> bool:
        try:
            from_prompt(part)
        except InputError as error:
            logger.warning("%s: %r is dropped from the prompt: %s", path, part.strip(), error)
            return False
        return True

    return tuple(map(metadata, prompts))


def metadata_from_header(
    path: Path, numbers: Sequence[int], xml: str | None, acquisition: str | None = None
) -> tuple[ScanMetadata, ...]:
    """Return metadata from an ISMRMRD header and fastMRI's ``acquisition``, for some slices.

    Implausible values are dropped with a warning.

    Args:
        path: File name for messages.
        numbers: Numbers of the slices.
        xml: ISMRMRD header, or ``None``.
        acquisition: Name of the contrast in fastMRI files, or ``None``.
    """
    try:
        item = from_fastmri_header(xml, acquisition)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return tuple(dataclasses.replace(item, slice=number) for number in numbers)


def override_metadata(
    path: Path, metadata: ScanMetadata | Sequence[ScanMetadata], batch: int
) -> tuple[ScanMetadata, ...]:
    """Return the caller's metadata, one per slice that is read; a single one applies to all."""
    items = (metadata,) * batch if isinstance(metadata, ScanMetadata) else tuple(metadata)
    if not all(isinstance(item, ScanMetadata) for item in items):
        raise InputError(f"{path}: expected metadata as ScanMetadata, got {metadata!r:.60}")
    if len(items) != batch:
        raise InputError(
            f"{path}: expected metadata for each of the {batch} slices read, got {len(items)}"
        )
    return items


def _finite(path: Path, array: np.ndarray, name: str) -> torch.Tensor:
    with np.errstate(over="ignore"):
        array = np.array(array, dtype=np.complex64, order="C")
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InputError(
            f"{path}: {bad} of the {array.size} values of {name} are not finite: "
            "the file is damaged or was not exported correctly"
        )
    return torch.from_numpy(array)


def check_maps(path: Path, coil_maps: np.ndarray) -> torch.Tensor:
    """Validate coil maps ``([slices,] coils, ny, nx)`` and return them with slices, complex64."""
    check_complex(path, coil_maps.dtype, "coil maps")
    maps = _finite(path, coil_maps, "coil maps")
    return maps[None] if maps.ndim == 3 else maps


def _full_mask(path: Path, mask: np.ndarray, batch: int, ny: int, nx: int) -> torch.Tensor:
    values = np.asarray(mask)
    if values.dtype.kind not in "biuf":
        raise InputError(f"{path}: expected a mask of booleans or of 0 and 1, got {values.dtype}")
    if not np.isin(values, (0, 1)).all():
        raise InputError(f"{path}: expected a mask of 0 and 1, got other values")
    shaped = values.astype(bool)
    planes = [(ny, nx), (1, nx)]
    shapes = {(nx,), *planes}
    shapes |= {(b, *axes) for b in (1, batch) for plane in planes for axes in (plane, (1, *plane))}
    if shaped.shape not in shapes:
        raise InputError(
            f"{path}: a mask of shape {shaped.shape} does not fit k-space of ({batch} slices, "
            f"{ny}, {nx}): expected ({nx},), ({ny}, {nx}) or ({batch}, 1, {ny}, {nx})"
        )
    if shaped.ndim == 3:
        shaped = shaped[:, None]
    full = np.broadcast_to(shaped, (shaped.shape[0] if shaped.ndim == 4 else 1, 1, ny, nx))
    return torch.from_numpy(full.copy())


def build_scan(
    path: Path,
    kspace: np.ndarray,
    *,
    mask: np.ndarray | None = None,
    coil_maps: np.ndarray | None = None,
    target: np.ndarray | None = None,
    metadata: tuple[ScanMetadata, ...] = (),
    noise_std: float | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    trajectory: np.ndarray | None = None,
    matrix: tuple[int, int] | None = None,
    affine: torch.Tensor | None = None,
) -> Scan:
    """Validate arrays from a file and build a scan from them.

    Args:
        path: File name for messages.
        kspace: Complex k-space of shape ``(batch, coils, ny, nx)``, or with a trajectory
            ``(batch, coils, shots, samples)``.
        mask: Sampling mask of shape ``(nx,)``, ``(ny, nx)``, ``(batch or 1, ny, nx)`` or
            ``(batch or 1, 1, ny, nx)``; inferred from the zeros of ``kspace`` if ``None``.
        coil_maps: Coil maps of shape ``(coils, ny, nx)`` or ``(batch or 1, coils, ny, nx)``.
        target: Target image of shape ``(ny, nx)`` or ``(batch, ny, nx)``, real or complex.
        metadata: Metadata, one per slice, or empty.
        noise_std: Standard deviation of the complex noise, in the units of ``kspace``.
        voxel_size: Voxel size (ny, nx, slice) in mm.
        trajectory: Trajectory of shape ``(batch or 1, shots, samples, 2)`` in radians per pixel.
        matrix: Image size ``(ny, nx)`` for a scan with a trajectory.
        affine: Affine of these slices, shape ``(4, 4)``, float64, from (y, x, slice) indices to mm
            in RAS+.

    Raises:
        InputError: If an array has the wrong type or shape, or values that are not finite.
    """
    check_complex(path, kspace.dtype)
    samples = _finite(path, kspace, "k-space")
    batch, _, ny, nx = samples.shape
    sampled: torch.Tensor | None
    if trajectory is not None:
        sampled = None
    elif mask is None:
        sampled = infer_mask(samples)
        logger.info(
            "%s: mask inferred from the zeros of k-space, %.1f %% sampled",
            path,
            100 * sampled.float().mean().item(),
        )
    else:
        sampled = _full_mask(path, mask, batch, ny, nx)
        if not bool(sampled.any()) and not bool(samples.any()):
            sampled = infer_mask(samples)
        if not bool(sampled.any()):
            raise InputError(f"{path}: the mask is empty: it must contain at least one sample")
        if bool((samples * ~sampled != 0).any()):
            logger.info("%s: k-space outside the mask was set to zero", path)
            samples = samples * sampled
    maps = None
    if coil_maps is not None:
        maps = check_maps(path, coil_maps)
    truth = None
    if target is not None:
        if target.dtype.kind not in "fc":
            raise InputError(f"{path}: expected a real or complex target, got {target.dtype}")
        truth = _finite(path, target, "the target")
        truth = truth[None] if truth.ndim == 2 else truth
    if noise_std is not None and not (np.isfinite(noise_std) and noise_std >= 0):
        raise InputError(f"{path}: expected a noise level of 0 or more, got {noise_std}")
    try:
        return Scan(
            samples,
            sampled,
            maps,
            metadata,
            truth,
            noise_std,
            voxel_size,
            None if trajectory is None else torch.from_numpy(trajectory),
            matrix,
            affine,
        )
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def remove_oversampling(path: Path, kspace: np.ndarray, num_readout: int) -> np.ndarray:
    """Crop the field of view along the readout to its central ``num_readout`` pixels.

    Args:
        path: File name for messages.
        kspace: K-space of shape ``(batch, coils, ny, nx)`` with complete readouts: each line along
            ``ny`` is either fully sampled or zero.
        num_readout: Number of readout pixels to keep, at most ``ny``.

    Returns:
        K-space of shape ``(batch, coils, num_readout, nx)``; zero lines stay exactly zero.

    Raises:
        InputError: If ``num_readout`` is below 2 or above ``ny``.
    """
    ny = kspace.shape[-2]
    if not 2 <= num_readout <= ny:
        raise InputError(
            f"{path}: cannot crop a readout of {ny} samples to {num_readout}: "
            "read it with crop_readout=False"
        )
    image = ifft2c(torch.from_numpy(np.array(kspace, dtype=np.complex64)))
    start = ny // 2 - num_readout // 2
    cropped = fft2c(image[..., start : start + num_readout, :])
    lines = (kspace != 0).any(axis=(1, 2))[:, None, None, :]
    return np.where(lines, cropped.numpy(), np.complex64(0))


def slices_along_readout(
    path: Path, volume: np.ndarray, num_readout: int, chosen: Sequence[int]
) -> np.ndarray:
    """Transform the readout of a 3-D scan to the image domain, where its pixels are the slices.

    Args:
        path: File name for messages.
        volume: K-space of shape ``(coils, readout, first phase encoding, second phase encoding)``.
        num_readout: Number of central readout pixels to keep.
        chosen: Slices to return, counted among these pixels.

    Returns:
        K-space of shape ``(slices, coils, first, second)``; samples that are zero along the whole
        readout stay exactly zero.

    Raises:
        InputError: If the readout is not fully sampled.
    """
    sampled = (volume != 0).any(axis=0)
    lines = sampled.any(axis=0)
    if (lines != sampled.all(axis=0)).any():
        raise InputError(
            f"{path}: expected 3-D k-space with a fully sampled readout, got one that is partly "
            "sampled along its first axis: put the readout first, or zero incomplete readouts"
        )
    length = volume.shape[1]
    start = length // 2 - num_readout // 2
    samples = torch.from_numpy(np.array(volume, np.complex64)).moveaxis(1, -1)[..., None, :]
    slices = ifft2c(samples)[..., 0, start : start + num_readout]
    wanted = slices.moveaxis(-1, 0)[list(chosen)]
    return np.where(lines, wanted.numpy(), np.complex64(0))


def mean_of_measured(averages: np.ndarray) -> np.ndarray:
    """Average k-space, where each sample is averaged over the averages that measured it.

    Args:
        averages: K-space of shape ``(averages, batch, coils, ny, nx)``, zero where not sampled.

    Returns:
        K-space of shape ``(batch, coils, ny, nx)``.
    """
    measured = (averages != 0).any(axis=2, keepdims=True).sum(axis=0)
    return averages.sum(axis=0) / np.maximum(measured, 1).astype(np.float32)
