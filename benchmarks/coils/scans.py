"""Scans that are difficult for coil-map estimation.

Heads exceed the field of view, regions are dark, coils are few. Each scan is an object on a canvas
larger than the field of view, surrounded by a simulated coil array. Whatever lies outside the field
of view wraps into it, coil by coil, as in a scanner.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ctxrecon.coils import root_sum_of_squares, simulate_coil_maps
from ctxrecon.fourier import fft2c
from ctxrecon.masks import make_mask
from ctxrecon.phantom.imaging import smooth_field
from ctxrecon.phantom.labels import anatomy_from_labels, load_label_volume
from ctxrecon.phantom.protocols import draw_protocol
from ctxrecon.phantom.subject import Subject

_CANVAS = 1.5  # canvas over the longer side of the object
_MASKS = ("uniform1d", "equispaced1d", "gaussian1d", "poisson_disk2d")
_KINDS = ("fits", "wraps in x", "wraps in y", "wraps in both", "dark", "at the edge")


@dataclass(frozen=True)
class CoilScan:
    """One simulated scan.

    Attributes:
        kspace: k-space of shape ``(1, coils, ny, nx)``, zero outside ``mask``.
        mask: Sampling mask of shape ``(1, 1, ny, nx)``.
        images: Noiseless coil images of shape ``(1, coils, ny, nx)``.
        reference: Root sum of squares of ``images``, ``(1, ny, nx)``.
        about: Properties of the scan, for the record.
    """

    kspace: Tensor
    mask: Tensor
    images: Tensor
    reference: Tensor
    about: dict[str, Any] = field(default_factory=dict)


def coil_scan(number: int, data: Path, *, seed: int, max_size: int = 192) -> CoilScan:
    """Simulate scan ``number`` of the test set with this seed.

    Args:
        number: Number of the scan. Kind, source and number of coils cycle with it; everything else
            is random.
        data: Folder with ``brain_label_maps`` and ``real_mr``.
        seed: Random seed of the test set. Scans of different seeds share only their sources.
        max_size: Largest side of the matrix.
    """
    rng = np.random.default_rng([seed, number])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    kind = _KINDS[number % len(_KINDS)]
    coils = (4, 6, 8, 12, 16)[number // len(_KINDS) % 5]
    source, magnitude = _object(number, data, rng, generator)
    canvas = _on_canvas(magnitude, int(rng.integers(128, max_size + 1)))
    rows, columns = _extent(canvas)
    if kind == "dark":
        canvas = canvas * _voids(canvas.shape, rng)
    ny, nx = (int(n) // 2 * 2 for n in (min(rows * 1.12, max_size), min(columns * 1.12, max_size)))
    share = float(rng.uniform(0.7, 0.95))
    if kind in ("wraps in x", "wraps in both"):
        nx = int(share * columns) // 2 * 2
    if kind in ("wraps in y", "wraps in both"):
        ny = int(share * rows) // 2 * 2
    if kind == "at the edge":
        shift = int(rng.uniform(0.05, 0.12) * columns) + (nx - columns) // 2
        canvas = np.roll(canvas, shift if rng.random() < 0.5 else -shift, axis=1)
    phase = np.pi * rng.random() * smooth_field(canvas.shape, 3, rng)
    image = torch.from_numpy((canvas * np.exp(1j * phase)).astype(np.complex64))
    maps = simulate_coil_maps(coils, (image.shape[0], image.shape[1]), generator=generator)
    images = _fold(maps * image, (ny, nx))
    acceleration = float(rng.choice([2, 3, 4, 6]))
    name = _MASKS[int(rng.integers(len(_MASKS)))]
    lines = int(rng.integers(12, 29))
    center = lines / (nx if name.endswith("1d") else max(ny, nx))
    center = min(center, 0.7 / acceleration if name.endswith("1d") else 0.5)
    mask = make_mask(name, (ny, nx), acceleration, center, generator=generator)
    reference = root_sum_of_squares(images)
    noise_std = float(np.exp(rng.uniform(np.log(0.002), np.log(0.05))))
    noise = torch.randn(images.shape, dtype=images.dtype, generator=generator)
    kspace = mask * (fft2c(images) + noise_std * reference.amax() * noise)
    about = {
        "kind": kind,
        "source": source,
        "coils": coils,
        "shape": [ny, nx],
        "object": [rows, columns],
        "mask": f"{name} x{acceleration:g}",
        "center_lines": lines,
        "noise": noise_std,
    }
    return CoilScan(kspace, mask, images, reference, about)


def _object(
    number: int, data: Path, rng: np.random.Generator, generator: torch.Generator
) -> tuple[str, NDArray[np.float32]]:
    """Return a source name and a magnitude image, in turn from label volumes and real slices."""
    if number // len(_KINDS) % 2:
        volumes = sorted((data / "brain_label_maps").glob("*.nii.gz"))
        path = volumes[int(rng.integers(len(volumes)))]
        anatomy = anatomy_from_labels(_volume(path), float(rng.uniform(0.2, 0.9)), rng)
        protocol = draw_protocol(generator, anatomy="brain")
        subject = Subject.draw(anatomy, protocol.field_strength or 3.0, rng)
        image = np.abs(subject.image(protocol, (256, 256), rng)).astype(np.float32)
        return f"{path.name.split('.')[0]}, {protocol.contrast}", image / image.max()
    images, notes = _slices(data)
    knees = [i for i, note in enumerate(notes) if note["metadata"]["anatomy"] == "knee"]
    heads = [i for i, note in enumerate(notes) if note["metadata"]["anatomy"] != "knee"]
    chosen = knees if number % 5 == 0 else heads
    index = chosen[int(rng.integers(len(chosen)))]
    return f"real_mr {notes[index]['subject']}, {index}", (images[index] / 255.0).astype(
        np.float32
    ) ** 2


@lru_cache(maxsize=16)
def _volume(path: Path) -> NDArray[np.int16]:
    return load_label_volume(path)


@lru_cache(maxsize=1)
def _slices(data: Path) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    folder = data / "real_mr"
    with np.load(folder / "slices.npz") as file:
        images = file["images"]
    return images, json.loads((folder / "slices.json").read_text())


def _on_canvas(magnitude: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Scale the object to ``size`` pixels along its longer side and center it on a canvas."""
    bright = magnitude > 0.04
    rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
    cropped = torch.from_numpy(
        magnitude[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].copy()
    )
    factor = size / max(cropped.shape)
    small = interpolate(
        cropped[None, None], scale_factor=factor, mode="bilinear", antialias=factor < 1
    )[0, 0]
    edge = int(_CANVAS * size) // 2 * 2
    before = [(edge - n) // 2 for n in small.shape]
    after = [edge - n - b for n, b in zip(small.shape, before, strict=True)]
    return pad(small, (before[1], after[1], before[0], after[0])).numpy()


def _extent(canvas: NDArray[np.float32]) -> tuple[int, int]:
    bright = canvas > 0.04
    rows, columns = (np.flatnonzero(bright.any(axis=axis)) for axis in (1, 0))
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def _voids(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return factors near 0 in one to three round regions, as around metal, and 1 elsewhere."""
    y, x = np.meshgrid(*(np.linspace(-_CANVAS, _CANVAS, n) for n in shape), indexing="ij")
    keep = np.ones(shape, dtype=np.float32)
    for _ in range(int(rng.integers(1, 4))):
        center, radius = rng.uniform(-0.6, 0.6, 2), rng.uniform(0.15, 0.4)
        distance = np.hypot(y - center[0], x - center[1])
        keep *= 1 / (1 + np.exp((radius - distance) / 0.03))
    return keep


def _fold(coil_images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Alias coil images ``(1, coils, NY, NX)`` into a field of view of ``shape``."""
    for axis, n in zip((2, 3), shape, strict=True):
        size = coil_images.shape[axis]
        copies = -(-size // n) + (-(-size // n) + 1) % 2  # odd, so that the center stays
        extra = copies * n - size
        before = copies * n // 2 - size // 2
        widths = (0, 0, before, extra - before) if axis == 2 else (before, extra - before)
        padded = pad(coil_images, widths)
        coil_images = padded.unflatten(axis, (copies, n)).sum(dim=axis)
    return coil_images
