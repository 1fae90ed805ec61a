"""Calgary-Campinas multi-channel raw data ``.h5`` (Souza et al., doi:10.3389/fninf.2022.887635).

``kspace`` is real, ``(nx, ky, kz, 2 coils)``, with interleaved real and imaginary parts of each
coil. The readout is already transformed to the image domain, so its pixels are the slices. Zero
frequency lies at index 0, and the image is the FFT without any shift.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion
from ctxrecon.fourier import fft2c
from ctxrecon.io._arrays import SliceChoice, build_scan, pick_slices, read_slices
from ctxrecon.io._complex import refuse_magnitudes
from ctxrecon.io._reader import Layout
from ctxrecon.io.hdf5 import hdf5_member, open_hdf5
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)


def is_calgary(path: Path, file: Any) -> bool:
    """Return whether an HDF5 file has this layout: real, with an even last axis longer than 2."""
    import h5py

    dataset = hdf5_member(path, file, "kspace") if "kspace" in file else None
    if not isinstance(dataset, h5py.Dataset) or len(dataset.shape) != 4:
        return False
    parts = dataset.shape[-1]
    return dataset.dtype.kind == "f" and parts % 2 == 0 and parts > 2 != dataset.shape[0]


def calgary_shape(path: Path) -> Layout:
    """Return (slices, coils, ny, nx) and dtype of the k-space."""
    with open_hdf5(path) as file:
        slices, ny, nx, parts = _kspace(path, file).shape
        return (slices, parts // 2, ny, nx), np.dtype(np.complex64), {}


def read_calgary(path: Path, slices: SliceChoice = None) -> Scan:
    """Read the selected slices along the readout, with zero frequency moved to the center."""
    with open_hdf5(path) as file:
        dataset = _kspace(path, file)
        chosen = pick_slices(path, slices, dataset.shape[0])
        num_bytes = dataset.dtype.itemsize * len(chosen) * int(np.prod(dataset.shape[1:]))
        check_expansion(path, num_bytes, dataset.id.get_storage_size(), "kspace")
        parts = read_slices(dataset, chosen).astype(np.float32)
    refuse_magnitudes(path, "kspace", parts)
    logger.info(
        "%s: the real numbers along its last axis are interpreted as %d coils in the "
        "Calgary-Campinas layout, with zero frequency at index 0",
        path,
        parts.shape[-1] // 2,
    )
    kspace = (parts[..., ::2] + 1j * parts[..., 1::2]).transpose(0, 3, 1, 2)
    sampled = np.fft.fftshift(kspace != 0, axes=(-2, -1)).any(axis=1, keepdims=True)
    images = torch.fft.ifft2(torch.from_numpy(np.ascontiguousarray(kspace)), norm="ortho")
    return build_scan(path, fft2c(images).numpy() * sampled)


def _kspace(path: Path, file: Any) -> Any:
    dataset = hdf5_member(path, file, "kspace")
    if min(dataset.shape) < 2 or dataset.shape[0] > path.stat().st_size:
        raise InputError(
            f"{path}: expected k-space (slices, ky, kz, 2 coils), got shape {dataset.shape}"
        )
    return dataset
