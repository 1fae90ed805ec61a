"""A simulated scanner that differs from the training data of the shipped prior.

Its images have another contrast (the magnitude to a power), a texture of fine streaks that the
phantom lacks, other shading, a non-square matrix, 3 % noise and another coil array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common.held_out import scan_seed
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.datasets import ShardSlices
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import brain_anatomy, draw_protocol
from ctxrecon.phantom.dataset import describe, normalize
from ctxrecon.phantom.imaging import smooth_field
from ctxrecon.phantom.simulate import measure
from ctxrecon.phantom.subject import Subject, numpy_rng
from ctxrecon.scan import Scan
from ctxrecon.training.slices import resize

SHAPE = (120, 96)
CONTRAST = "T2"
COILS = 6
NOISE = 0.03
_GAMMA = 0.7
_TEXTURE = 0.25
_STREAKS = (0.7, 4.0)
"""Standard deviations across and along the streaks, in pixels."""
_SHADING = 0.5
_FINE = 256


def foreign_scan(number: int, seed: int, images: PeopleImages | None = None) -> Scan:
    """Simulate a fully sampled slice of one person on that scanner, without coil maps.

    Args:
        number: Number of the person.
        seed: Random seed of the study.
        images: Images of real people; the phantom if ``None``.
    """
    generator = torch.Generator().manual_seed(scan_seed(seed, number))
    rng = numpy_rng(generator)
    if images is None:
        anatomy = brain_anatomy(generator, size=_FINE)
        protocol = draw_protocol(generator, anatomy="brain", contrast=CONTRAST)
        subject = Subject.draw(anatomy, protocol.field_strength or 3.0, rng)
        image, metadata = subject.image(protocol, SHAPE, rng), describe(anatomy, protocol)
    else:
        image, metadata = images.image(number, rng)
    image = _as_seen_there(image, rng)
    scan = measure(
        torch.from_numpy(normalize(image))[None],
        simulate_coil_maps(COILS, SHAPE, generator=generator),
        None,
        snr=1 / NOISE,
        metadata=[metadata],
        generator=generator,
    )
    return replace(scan, noise_std=None)


class PeopleImages:
    """One slice of each of several real people, with a simulated phase.

    Args:
        folder: Folder written by ``ctxrecon prepare images``.
    """

    def __init__(self, folder: Path) -> None:
        slices = ShardSlices(folder)
        first: dict[str, list[int]] = {}
        for index, subject in enumerate(slices.subjects):
            first.setdefault(subject, []).append(index)
        self._numbers = [places[len(places) // 2] for places in first.values()]
        self._slices = slices

    def __len__(self) -> int:
        return len(self._numbers)

    def image(
        self, number: int, rng: np.random.Generator
    ) -> tuple[NDArray[np.complex64], ScanMetadata]:
        """Return the image of a person at the scanner's matrix size, with its metadata."""
        item = self._slices[self._numbers[number]]
        magnitude = item["image"][0]
        side = max(SHAPE)
        small = resize(magnitude.to(torch.complex64), side).abs().numpy()
        left = (side - SHAPE[1]) // 2
        small = small[:, left : left + SHAPE[1]]
        phase = np.pi * rng.random() * smooth_field(SHAPE, 3, rng)
        return (small * np.exp(1j * phase)).astype(np.complex64), item["metadata"]


def _as_seen_there(image: NDArray[np.complex64], rng: np.random.Generator) -> NDArray[np.complex64]:
    """Apply the scanner's contrast, texture and shading to an image."""
    image = normalize(image)
    magnitude = np.abs(image)
    changed = magnitude**_GAMMA * (1 + _TEXTURE * _streaks(rng))
    changed = changed * (1 + _SHADING * smooth_field(SHAPE, 2, rng))
    # A power below 1 would amplify residual ringing in the background.
    changed = np.where(magnitude > 0.05, changed, magnitude)
    phase = np.exp(1j * np.angle(image))
    return (np.maximum(changed, 0) * phase).astype(np.complex64)


def _streaks(rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw unit-variance noise, fine across and coarse along a direction 30° from ``y``."""
    y, x = np.meshgrid(*(np.fft.fftfreq(n) for n in SHAPE), indexing="ij")
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    along, across = c * y + s * x, c * x - s * y
    widths = (_STREAKS[0] * across) ** 2 + (_STREAKS[1] * along) ** 2
    spectrum = np.fft.fft2(rng.standard_normal(SHAPE)) * np.exp(-2 * np.pi**2 * widths)
    streaks = np.fft.ifft2(spectrum).real
    return streaks / streaks.std()


def targets(scans: Sequence[Scan]) -> Tensor:
    """Stack the target images, ``(scans, ny, nx)``, complex64."""
    return torch.cat([scan.target for scan in scans if scan.target is not None])
