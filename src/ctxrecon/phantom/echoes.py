"""Several contrasts or echoes of one subject: images, true T2* map, and whole scans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.bank import AnatomyBank
from ctxrecon.phantom.dataset import describe, normalize
from ctxrecon.phantom.imaging import smooth_field
from ctxrecon.phantom.numbered import NumberedPhantoms
from ctxrecon.phantom.protocols import draw_protocol
from ctxrecon.phantom.sequences import signal
from ctxrecon.phantom.simulate import measure
from ctxrecon.phantom.subject import Subject, numpy_rng

ECHO_TIMES = (9.2, 18.4, 27.6, 36.8, 46.0)
"""In ms. JoJoNet has five echoes at ``TE_c = c Δt`` and does not name Δt; this one, four periods of
fat at 3 T, has water and fat in phase at every echo, so that marrow decays as one exponential."""

_OFF_RESONANCE = 20.0
"""Largest off-resonance that shimming leaves, in Hz."""

Protocols = Callable[[torch.Generator], Sequence[ScanMetadata]]
"""Draws the protocols of one subject's contrasts."""


def multi_echo(generator: torch.Generator) -> tuple[ScanMetadata, ...]:
    """Five spoiled gradient echoes of one series at 3 T, at :data:`ECHO_TIMES`, TR 55 ms.

    The flip angle, one for the series, is drawn from 12 to 24 degrees.
    """
    angle = int(torch.randint(12, 25, (), generator=generator))
    first = ScanMetadata(
        contrast="T2*", sequence="Flash", tr=55.0, flip_angle=angle, field_strength=3.0
    )
    return tuple(replace(first, te=te) for te in ECHO_TIMES)


def pd_pair(generator: torch.Generator) -> tuple[ScanMetadata, ...]:
    """A PD and a PDFS scan of a knee, each drawn as often as it occurs among the real ones.

    Both are at the field strength of the first: one subject lies in one scanner.
    """
    pd, pdfs = (draw_protocol(generator, "knee", contrast) for contrast in ("PD", "PDFS"))
    return pd, replace(pdfs, field_strength=pd.field_strength)


def contrast_images(
    subject: Subject,
    protocols: Sequence[ScanMetadata],
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> NDArray[np.complex64]:
    """Noiseless images of one subject, one for each protocol, ``(contrasts, ny, nx)``.

    Protocols that differ in TE alone are echoes of one series: they share the smooth phase, the
    k-space filter and the intensity scale, the 99 % quantile of the magnitude of all of them, so
    that magnitudes decay by T2* from echo to echo. Every other protocol is a scan of its own with
    its own phase and scale. Gradient echoes get the phase ``2π Δf TE`` as well, of one smooth
    off-resonance Δf of the subject of at most 20 Hz; what it dephases within a pixel is part of
    the tissues' T2*.

    Args:
        subject: who is imaged.
        protocols: sequence and times in ms of each image.
        shape: matrix size ``(ny, nx)``, at most that of the anatomy.
        rng: draws phase, filters and off-resonance.

    Raises:
        InputError: no protocols, or ones that the phantom cannot image.
    """
    if not protocols:
        raise InputError("expected at least one protocol, got an empty list")
    off_resonance = _OFF_RESONANCE * rng.random() * smooth_field(shape, 3, rng)
    series = [replace(protocol, te=None) for protocol in protocols]
    images = np.empty((len(protocols), *shape), np.complex64)
    for one in dict.fromkeys(series):
        places = [place for place, other in enumerate(series) if other == one]
        seed = int(rng.integers(2**62))
        for place in places:
            # The same draws for every echo: one phase, one filter.
            own = np.random.default_rng(seed)
            images[place] = subject.image(protocols[place], shape, own)
        images[places] = normalize(images[places])
    for image, protocol in zip(images, protocols, strict=True):
        if (protocol.sequence or "").lower() == "flash":
            image *= np.exp(2e-3j * np.pi * off_resonance * (protocol.te or 0.0))
    return images


def true_t2_star(
    subject: Subject, protocol: ScanMetadata, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """The tissues' T2* at each pixel of a scan, ``(ny, nx)`` in ms.

    The inverse of the mean of the rates ``1/T2*`` of what lies in the pixel, weighted by the
    signal that it has in ``protocol``: the rate at which the magnitude of a series that starts
    with that echo falls at first. 0 where more than half of the pixel is air. Not clipped: fluids
    reach 600 ms.

    Args:
        subject: who is imaged.
        protocol: the first echo's sequence and times in ms.
        shape: matrix size ``(ny, nx)``, at most that of the anatomy.
    """
    labels = subject.anatomy.labels
    strength = np.abs(signal(subject.parameters, protocol))
    rows, columns = (_box(fine, n) for fine, n in zip(labels.shape, shape, strict=True))

    def mean(of_tissue: NDArray[np.float64]) -> NDArray[np.float64]:
        return rows @ of_tissue[labels] @ columns.T

    total = mean(strength)
    decaying = mean(strength / subject.parameters.t2_star)
    tissue = mean((subject.parameters.proton_density > 0).astype(np.float64)) >= 0.5
    return np.where(tissue, total / np.where(tissue, decaying, 1.0), 0.0).astype(np.float32)


class PhantomContrasts(NumberedPhantoms):
    """Endless subjects, each in several contrasts; item ``i`` is the same whenever it is drawn.

    Each item is a dictionary: ``images`` ``(contrasts, n, n)`` complex64, without noise, on the
    scale of :func:`contrast_images`; ``t2_star`` ``(n, n)`` float32, see :func:`true_t2_star`;
    ``metadata`` a tuple of :class:`ScanMetadata`, one for each contrast.

    Args:
        bank: anatomies to draw from, for :func:`pd_pair` knees.
        protocols: draws a subject's protocols, such as :func:`multi_echo` or :func:`pd_pair`.
        resolution: matrix size ``n``.
        length: number of items.
        seed: of the whole set.
    """

    def __init__(
        self,
        bank: AnatomyBank,
        protocols: Protocols,
        *,
        resolution: int = 96,
        length: int = 2**31,
        seed: int = 0,
    ) -> None:
        super().__init__(bank, resolution, length, seed)
        self.protocols = protocols

    def draw(self, index: int, resolution: int) -> dict[str, Any]:
        """Item ``index`` at another matrix size ``n``."""
        anatomy, generator, rng = self._subject(index)
        protocols = self.protocols(generator)
        if rng.random() < 0.5:
            anatomy = anatomy.mirrored()
        images, t2_star = _image_all(anatomy, protocols, (resolution, resolution), rng)
        return {
            "images": images,
            "t2_star": t2_star,
            "metadata": tuple(describe(anatomy, one) for one in protocols),
        }


@dataclass(frozen=True)
class ContrastScan:
    """A fully sampled scan of one subject in several contrasts, with its truth.

    Attributes:
        kspace: ``(1, contrasts, coils, ny, nx)`` complex64, with noise.
        coil_maps: ``(1, coils, ny, nx)`` complex64.
        images: ``(1, contrasts, ny, nx)`` complex64, without noise.
        t2_star: ``(1, ny, nx)`` float32 in ms, see :func:`true_t2_star`.
        metadata: one for each contrast.
        noise_std: standard deviation of the complex noise of each coil's samples.
    """

    kspace: Tensor
    coil_maps: Tensor
    images: Tensor
    t2_star: Tensor
    metadata: tuple[ScanMetadata, ...]
    noise_std: float


def contrast_scan(
    anatomy: Anatomy,
    protocols: Sequence[ScanMetadata],
    *,
    shape: tuple[int, int] = (96, 96),
    num_coils: int = 8,
    snr: float | None = 50.0,
    generator: torch.Generator | None = None,
) -> ContrastScan:
    """Scan a random person with this anatomy in several contrasts, with one coil array.

    Args:
        anatomy: for testing one that no training has seen, see
            :meth:`~ctxrecon.phantom.AnatomyBank.split`.
        protocols: of the contrasts, such as :func:`multi_echo` draws.
        shape: matrix size ``(ny, nx)``, at most that of the anatomy.
        num_coils: receiver coils of the simulated array.
        snr: see :func:`~ctxrecon.phantom.measure`; ``None`` adds no noise.
        generator: draws everything that is random.

    Raises:
        InputError: no protocols, or ones that the phantom cannot image; a shape, number of coils
            or SNR that makes no sense.
    """
    generator = torch.default_generator if generator is None else generator
    images, t2_star = _image_all(anatomy, protocols, shape, numpy_rng(generator))
    maps = simulate_coil_maps(num_coils, shape, generator=generator)
    scan = measure(images, maps, None, snr=snr, generator=generator)
    return ContrastScan(
        kspace=scan.kspace[None],
        coil_maps=maps,
        images=images[None],
        t2_star=t2_star[None],
        metadata=tuple(describe(anatomy, one) for one in protocols),
        noise_std=scan.noise_std or 0.0,
    )


def _image_all(
    anatomy: Anatomy,
    protocols: Sequence[ScanMetadata],
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Images ``(contrasts, ny, nx)`` and T2* map ``(ny, nx)`` of a random person."""
    if not protocols:
        raise InputError("expected at least one protocol, got an empty list")
    subject = Subject.draw(anatomy, protocols[0].field_strength or 3.0, rng)
    images = contrast_images(subject, protocols, shape, rng)
    return torch.from_numpy(images), torch.from_numpy(true_t2_star(subject, protocols[0], shape))


def _box(fine: int, n: int) -> NDArray[np.float64]:
    """Mean over each of ``n`` pixels of ``fine`` small ones, ``(n, fine)``; wraps around.

    Pixel k of an image that is a crop of k-space is centred on small pixel ``k · fine/n``, so its
    borders lie half of ``fine/n`` on either side.
    """
    width = fine / n
    # From the left border of pixel k to the middle of each small pixel, in [0, fine).
    left = (np.arange(fine) - (np.arange(n)[:, None] - 0.5) * width) % fine
    overlap = np.clip(np.minimum(left + 0.5, width) - np.maximum(left - 0.5, 0.0), 0.0, None)
    # A small pixel that straddles the left border from beyond the seam.
    overlap += np.clip(left + 0.5 - fine, 0.0, None)
    return overlap / width
