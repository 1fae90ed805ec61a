"""Phantom slices as a training set: complex image and prompt, made when asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ctxrecon.checks import check_whole
from ctxrecon.errors import InputError
from ctxrecon.intensity import magnitude_quantile
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.bank import AnatomyBank
from ctxrecon.phantom.protocols import draw_protocol, vary_times
from ctxrecon.phantom.subject import Subject


def normalize(image: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Divide by the 99 % quantile of the magnitude, the prior's intensity scale."""
    scale = float(magnitude_quantile(torch.from_numpy(image)[None], "lower"))
    if scale <= 0:
        raise InputError("the image is empty, so it has no scale; expected some signal")
    return image / np.float32(scale)


def describe(anatomy: Anatomy, protocol: ScanMetadata) -> ScanMetadata:
    """The metadata of one slice: the protocol with what the anatomy shows."""
    return replace(
        protocol,
        anatomy=anatomy.name,
        slice=anatomy.slice,
        pathologies=anatomy.pathologies,
    )


class PhantomSlices(Dataset[dict[str, Any]]):
    """Endless phantom slices; item ``i`` is the same whenever and wherever it is asked for.

    Each item is a dictionary: ``image`` ``(2, n, n)`` float32, real and imaginary part with the
    99 % quantile of the magnitude at 1; ``metadata`` a :class:`ScanMetadata`.

    Args:
        bank: anatomies to draw from.
        resolution: matrix size ``n``.
        length: number of items.
        seed: of the whole set.
        noise: largest standard deviation of complex noise left in the images, on that scale.
        field_of_view: smallest part of the anatomy's width and height that a slice shows; each
            shows a square of a random part from there to all of it.
        varied_times: share of the slices whose TR, TE and TI are scaled at random
            (:func:`ctxrecon.phantom.protocols.vary_times`).
    """

    def __init__(
        self,
        bank: AnatomyBank,
        *,
        resolution: int = 128,
        length: int = 2**31,
        seed: int = 0,
        noise: float = 0.025,
        field_of_view: float = 1.0,
        varied_times: float = 0.0,
    ) -> None:
        if not 0 < field_of_view <= 1:
            raise InputError(f"expected a field of view in (0, 1], got {field_of_view}")
        check_whole("seed", seed, least=0)
        self.bank = bank
        self.resolution = resolution
        self.length = length
        self.seed = seed
        self.noise = noise
        self.field_of_view = field_of_view
        self.varied_times = varied_times

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.draw(index, self.resolution)

    def draw(self, index: int, resolution: int) -> dict[str, Any]:
        """Item ``index`` at another matrix size ``n``."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        anatomy = self.bank[int(rng.integers(len(self.bank)))]
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        protocol = draw_protocol(generator, anatomy=anatomy.name)
        if self.varied_times and rng.random() < self.varied_times:
            protocol = vary_times(protocol, generator)
        if rng.random() < 0.5:
            anatomy = replace(anatomy, labels=anatomy.labels[:, ::-1])
        if self.field_of_view < 1:
            anatomy = _zoom(anatomy, rng.uniform(self.field_of_view, 1), resolution, rng)
        subject = Subject.draw(anatomy, protocol.field_strength or 1.5, rng)
        shape = (resolution, resolution)
        image = normalize(subject.image(protocol, shape, rng))
        level = np.float32(self.noise * rng.random() / np.sqrt(2))
        channels = np.stack([image.real, image.imag])
        channels += level * rng.standard_normal(channels.shape, dtype=np.float32)
        return {"image": torch.from_numpy(channels), "metadata": describe(anatomy, protocol)}


def _zoom(anatomy: Anatomy, part: float, smallest: int, rng: np.random.Generator) -> Anatomy:
    """A square around the middle, give or take a tenth, with this part of the width and height."""
    labels = anatomy.labels
    size = max(smallest, 2 * round(part * min(labels.shape) / 2))
    corner = []
    for length in labels.shape:
        room = length - size
        shift = rng.uniform(-0.1, 0.1) * length
        corner.append(int(np.clip(room / 2 + shift, 0, room)))
    y, x = corner
    return replace(anatomy, labels=labels[y : y + size, x : x + size])
