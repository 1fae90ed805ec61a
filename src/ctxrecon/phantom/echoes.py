"""Several contrasts or echoes of one subject: images, true T2* maps and scans."""

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
from ctxrecon.phantom.protocols import common_field_strength, draw_protocol
from ctxrecon.phantom.sequences import signal
from ctxrecon.phantom.simulate import measure
from ctxrecon.phantom.subject import Subject, numpy_rng

ECHO_TIMES = (9.2, 18.4, 27.6, 36.8, 46.0)
"""Echo times in ms. JoJoNet has five echoes at ``TE_c = c Δt`` with unspecified Δt. This Δt is four
periods of fat at 3 T, so that water and fat are in phase and marrow decays as one exponential."""

_OFF_RESONANCE = 20.0
"""Largest off-resonance after shimming, in Hz."""

Protocols = Callable[[torch.Generator], Sequence[ScanMetadata]]
"""Function that draws the protocols of one subject's contrasts."""


def multi_echo(generator: torch.Generator) -> tuple[ScanMetadata, ...]:
    """Draw five spoiled gradient echoes of one series at 3 T, at :data:`ECHO_TIMES`, TR 55 ms.

    The flip angle of the series is drawn from 12 to 24 degrees.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import multi_echo
        >>> [echo.te for echo in multi_echo(torch.Generator().manual_seed(0))]
        [9.2, 18.4, 27.6, 36.8, 46.0]
    """
    angle = int(torch.randint(12, 25, (), generator=generator))
    first = ScanMetadata(
        contrast="T2*", sequence="Flash", tr=55.0, flip_angle=angle, field_strength=3.0
    )
    return tuple(replace(first, te=te) for te in ECHO_TIMES)


def pd_pair(generator: torch.Generator) -> tuple[ScanMetadata, ...]:
    """Draw a PD and a PDFS protocol of a knee with the frequencies of real scans.

    Both have the field strength of the first, as one subject is in one scanner.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import pd_pair
        >>> [scan.contrast for scan in pd_pair(torch.Generator().manual_seed(0))]
        ['PD', 'PDFS']
    """
    pd, pdfs = (draw_protocol(generator, "knee", contrast) for contrast in ("PD", "PDFS"))
    return pd, replace(pdfs, field_strength=pd.field_strength)


def contrast_images(
    subject: Subject,
    protocols: Sequence[ScanMetadata],
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> NDArray[np.complex64]:
    """Compute noiseless images of one subject, one per protocol, ``(contrasts, ny, nx)``.

    Protocols that differ only in TE are echoes of one series: they share the smooth phase, the
    k-space filter and the intensity scale, the 99 % quantile of the magnitude over the series, so
    that magnitudes decay with T2* from echo to echo. All other protocols are separate scans with
    their own phase and scale. Gradient echoes also get the phase ``2π Δf TE`` of a smooth
    off-resonance Δf of the subject, at most 20 Hz; dephasing within a pixel is part of the tissues'
    T2*.

    Args:
        subject: Subject to image.
        protocols: Sequence and times in ms of each image.
        shape: Matrix size ``(ny, nx)``, at most that of the anatomy.
        rng: Random generator of phase, filters and off-resonance.

    Raises:
        InputError: If there are no protocols, or the phantom cannot image them.
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
            # Echoes of a series repeat the same draws and share phase and filter.
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
    """Compute the true T2* at each pixel of a scan, ``(ny, nx)`` in ms.

    It is the inverse of the mean rate ``1/T2*`` of the tissues in the pixel, weighted by their
    signal in ``protocol``: the initial decay rate of the magnitude in a series that starts with
    that echo. It is 0 where more than half of the pixel is air, and not clipped: fluids reach
    600 ms.

    Args:
        subject: Subject to image.
        protocol: Sequence and times in ms of the first echo.
        shape: Matrix size ``(ny, nx)``, at most that of the anatomy.
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
    """Endless data set of subjects in several contrasts, in which item ``i`` is reproducible.

    Each item is a dictionary: ``images``, complex64 ``(contrasts, n, n)``, noiseless, on the scale
    of :func:`contrast_images`; ``t2_star``, float32 ``(n, n)``, see :func:`true_t2_star`;
    ``metadata``, a tuple of :class:`ScanMetadata`, one per contrast.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import AnatomyBank, PhantomContrasts, brain_anatomy, multi_echo
        >>> bank = AnatomyBank.build([brain_anatomy(torch.Generator().manual_seed(0), size=64)])
        >>> PhantomContrasts(bank, multi_echo, resolution=32)[0]["images"].shape
        torch.Size([5, 32, 32])

    Args:
        bank: Anatomies to draw from; knees for :func:`pd_pair`.
        protocols: Function that draws a subject's protocols, such as :func:`multi_echo` or
            :func:`pd_pair`.
        resolution: Matrix size ``n``, at most that of the anatomies.
        length: Number of items.
        seed: Random seed of the data set.

    Raises:
        InputError: If the seed is not a whole number, or the resolution is above the size of the
            anatomies.
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
        """Return item ``index`` at another matrix size ``n``."""
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
    """Fully sampled scan of one subject in several contrasts, with its ground truth.

    Attributes:
        kspace: Noisy k-space, complex64 ``(1, contrasts, coils, ny, nx)``.
        coil_maps: Coil maps, complex64 ``(1, coils, ny, nx)``.
        images: Noiseless images, complex64 ``(1, contrasts, ny, nx)``.
        t2_star: T2* map in ms, float32 ``(1, ny, nx)``; see :func:`true_t2_star`.
        metadata: Metadata, one per contrast.
        noise_std: Standard deviation of the complex noise of each coil's samples.
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

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import brain_anatomy, contrast_scan, multi_echo
        >>> generator = torch.Generator().manual_seed(0)
        >>> anatomy = brain_anatomy(generator, size=64)
        >>> protocols = multi_echo(generator)
        >>> contrast_scan(anatomy, protocols, shape=(32, 32), generator=generator).kspace.shape
        torch.Size([1, 5, 8, 32, 32])

    Args:
        anatomy: Anatomy to scan; for tests, one not used in training, see
            :meth:`~ctxrecon.phantom.AnatomyBank.split`.
        protocols: Protocols of the contrasts, such as those of :func:`multi_echo`.
        shape: Matrix size ``(ny, nx)``, at most that of the anatomy.
        num_coils: Number of receiver coils of the simulated array.
        snr: Signal-to-noise ratio; see :func:`~ctxrecon.phantom.measure`. ``None`` adds no noise.
        generator: Random generator.

    Raises:
        InputError: If there are no protocols, they have several field strengths, the phantom
            cannot image them, or the shape, number of coils or SNR is not valid.
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
    """Return images ``(contrasts, ny, nx)`` and the T2* map ``(ny, nx)`` of a random person."""
    subject = Subject.draw(anatomy, common_field_strength(protocols), rng)
    images = contrast_images(subject, protocols, shape, rng)
    return torch.from_numpy(images), torch.from_numpy(true_t2_star(subject, protocols[0], shape))


def _box(fine: int, n: int) -> NDArray[np.float64]:
    """Return the matrix ``(n, fine)`` that averages fine pixels over ``n`` pixels, periodically.

    Pixel k of an image that is a crop of k-space is centered on fine pixel ``k · fine/n``, so its
    borders lie at half of ``fine/n`` on either side.
    """
    width = fine / n
    # Distance from the left border of pixel k to the center of each fine pixel, in [0, fine)
    left = (np.arange(fine) - (np.arange(n)[:, None] - 0.5) * width) % fine
    overlap = np.clip(np.minimum(left + 0.5, width) - np.maximum(left - 0.5, 0.0), 0.0, None)
    # The fine pixel that straddles the left border across the periodic boundary
    overlap += np.clip(left + 0.5 - fine, 0.0, None)
    return overlap / width
