"""A subject: an anatomy with its own tissues and fine structure, imaged in any contrast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.sequences import signal
from ctxrecon.phantom.tissues import TissueParameters, tissue_parameters

_TILE = 1024


@lru_cache(maxsize=1)
def _texture_tile() -> NDArray[np.float32]:
    """Band-limited noise at two scales, unit variance, periodic; a window of it is a texture."""
    rng = np.random.default_rng(20240601)
    frequency = np.fft.fftfreq(_TILE)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    # Gaussian blurs of 1.2 and 6 pixels, applied in the Fourier domain so that the tile wraps.
    parts = []
    for sigma in (1.2, 6.0):
        spectrum = np.fft.fft2(rng.standard_normal((_TILE, _TILE)))
        part = np.fft.ifft2(spectrum * np.exp(-2 * (np.pi * sigma * radius) ** 2)).real
        parts.append(part / part.std())
    return ((parts[0] + parts[1]) / np.sqrt(2)).astype(np.float32)


def numpy_rng(generator: torch.Generator | None) -> np.random.Generator:
    """A NumPy generator seeded by one draw from a torch one (from the global one if ``None``)."""
    seed = torch.randint(2**62, (1,), generator=generator).item()
    return np.random.default_rng(int(seed))


def smooth_field(
    shape: tuple[int, int], order: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """A random smooth real field in about [−1, 1]: cosines of up to ``order`` half periods."""
    ny, nx = shape
    y = np.cos(np.pi * np.outer(np.arange(order + 1), (np.arange(ny) + 0.5) / ny))
    x = np.cos(np.pi * np.outer(np.arange(order + 1), (np.arange(nx) + 0.5) / nx))
    i, j = np.mgrid[: order + 1, : order + 1]
    weights = rng.standard_normal((order + 1, order + 1)) / (1.0 + i**2 + j**2)
    weights[0, 0] = 0.0
    field = y.T @ weights @ x
    return (field / max(float(np.abs(field).max()), 1e-6)).astype(np.float32)


@dataclass(frozen=True)
class Subject:
    """One slice of one person, the same in every contrast that is taken of it.

    Attributes:
        anatomy: the label map.
        parameters: this person's tissues.
        texture_offset: where this person's texture lies in the texture tile.
        bias: ``(ny, nx)`` receive and transmit shading that coil combination leaves.
    """

    anatomy: Anatomy
    parameters: TissueParameters
    texture_offset: tuple[int, int]
    bias: NDArray[np.float32]

    @classmethod
    def draw(
        cls, anatomy: Anatomy, field_strength: float, rng: np.random.Generator, *, bias: float = 0.3
    ) -> Subject:
        """A random person with this anatomy; ``bias`` is the largest relative shading."""
        ny, nx = anatomy.labels.shape
        field = smooth_field((ny, nx), 2, rng)
        parameters = tissue_parameters(field_strength, rng)
        offset = (int(rng.integers(_TILE)), int(rng.integers(_TILE)))
        shading = 1.0 + bias * rng.random() * field
        if anatomy.name == "knee":
            shading = shading * _coil_reach(ny, rng)[:, None]
        return cls(anatomy, parameters, offset, shading.astype(np.float32))

    def image(
        self,
        metadata: ScanMetadata,
        shape: tuple[int, int],
        rng: np.random.Generator,
        *,
        phase: float = 1.0,
    ) -> NDArray[np.complex64]:
        """The noiseless complex image of one scan, ``shape`` ``(ny, nx)``.

        The signal of each tissue comes from :func:`ctxrecon.phantom.sequences.signal`; the image
        is the inverse Fourier transform of the centre of the fine grid's k-space, as a scanner
        measures it: partial volume and truncation at edges are physical. Phase is smooth, larger
        for gradient echoes, and drawn anew for every scan (``rng``).

        Args:
            metadata: sequence and times in ms.
            shape: matrix size, at most that of the label map; the field of view stays.
            rng: draws the phase and the strength of the k-space filter.
            phase: scales the smooth phase, in units of π.
        """
        labels = self.anatomy.labels
        fine_y, fine_x = labels.shape
        ny, nx = shape
        if not (16 <= ny <= fine_y and 16 <= nx <= fine_x):
            raise InputError(
                f"expected a matrix size from 16 to the anatomy's {labels.shape}, got {shape}"
            )
        table = signal(self.parameters, metadata).astype(np.complex64)
        weights = (table * self.parameters.texture).astype(np.complex64)
        oy, ox = self.texture_offset
        texture = _texture_tile().take(np.arange(oy, oy + fine_y), 0, mode="wrap")
        texture = texture.take(np.arange(ox, ox + fine_x), 1, mode="wrap")
        fine = (table[labels] + weights[labels] * texture) * self.bias
        kspace = np.fft.fftshift(np.fft.fft2(fine, norm="forward"))
        y0, x0 = fine_y // 2 - ny // 2, fine_x // 2 - nx // 2
        kspace = kspace[y0 : y0 + ny, x0 : x0 + nx] * _raised_cosine(shape, rng.random())
        image = np.fft.ifft2(np.fft.ifftshift(kspace), norm="forward")
        smooth = rng.random() * smooth_field(shape, 3, rng)
        if (metadata.sequence or "").lower() == "flash":
            smooth = 1.5 * smooth
        angle = np.pi * phase * smooth + 2 * np.pi * rng.random()
        return (image * np.exp(1j * angle)).astype(np.complex64)


def _coil_reach(ny: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How a knee coil's reach ends along the leg, ``(ny,)``: the leg goes on, the signal fades.

    Without it the leg would be cut at the edges, and no coil map that is periodic, as those of a
    measured k-space are, could follow.
    """
    position = (np.arange(ny) + 0.5) / ny
    reach = np.ones(ny)
    for distance in (position, 1 - position):
        reach *= 0.5 - 0.5 * np.cos(np.pi * np.minimum(distance / rng.uniform(0.12, 0.24), 1.0))
    return reach


def _raised_cosine(shape: tuple[int, int], strength: float) -> NDArray[np.float32]:
    """A separable Hann-type k-space filter; strength 0 is none, 1 halves the corners' edge."""
    windows = []
    for n in shape:
        position = (np.arange(n) - n // 2) / n
        windows.append(1 - 0.5 * strength * (1 - np.cos(2 * np.pi * position)) / 2)
    return np.outer(windows[0], windows[1]).astype(np.float32)
