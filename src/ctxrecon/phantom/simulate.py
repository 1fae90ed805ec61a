"""Simulated scans of the phantom: coils, sampling and noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ctxrecon.coils import simulate_coil_maps
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.brain import brain_anatomy
from ctxrecon.phantom.dataset import describe, normalize
from ctxrecon.phantom.knee import knee_anatomy
from ctxrecon.phantom.protocols import common_field_strength, draw_protocol
from ctxrecon.phantom.subject import Subject, numpy_rng
from ctxrecon.scan import Scan

ANATOMIES = {"brain": brain_anatomy, "knee": knee_anatomy}


def measure(
    images: Tensor,
    coil_maps: Tensor,
    mask: Tensor | None,
    *,
    snr: float | None,
    metadata: Sequence[ScanMetadata] = (),
    generator: torch.Generator | None = None,
) -> Scan:
    r"""Simulate the measurement of images.

    .. math::

        y_c = M\, (F S_c\, x + n)

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import measure
        >>> images = torch.ones(1, 16, 16, dtype=torch.complex64)
        >>> measure(images, torch.ones_like(images)[None], None, snr=50.0).kspace.shape
        torch.Size([1, 1, 16, 16])

    Args:
        images: Images of shape ``(batch, ny, nx)``, complex64, whose magnitudes have a 99 %
            quantile of 1.
        coil_maps: Coil maps of shape ``(batch or 1, coils, ny, nx)``, complex64.
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool; ``None`` samples all.
        snr: Signal-to-noise ratio, the inverse of the standard deviation of each coil's complex
            noise: the ratio of bright image signal to noise. ``None`` adds no noise.
        metadata: Metadata, one per image, or empty.
        generator: Random generator of the noise.

    Returns:
        The scan, with the images as its target.

    Raises:
        InputError: If the SNR is not positive.
    """
    if snr is not None and not snr > 0:
        raise InputError(f"expected a positive SNR, got {snr}")
    kspace = fft2c(coil_maps * images[:, None])
    noise_std = 0.0 if snr is None else 1.0 / snr
    if noise_std:
        # randn of a complex dtype has variance ½ in each part, so 1 for the complex sample.
        noise = torch.randn(kspace.shape, dtype=torch.complex64, generator=generator)
        kspace = kspace + noise_std * noise.to(kspace.device)
    if mask is None:
        mask = torch.ones((1, 1, *kspace.shape[-2:]), dtype=torch.bool)
    return Scan(
        kspace=kspace * mask,
        mask=mask,
        coil_maps=coil_maps,
        metadata=tuple(metadata),
        target=images,
        noise_std=noise_std,
    )


def phantom_scan(
    anatomy: str | Anatomy = "brain",
    *,
    protocols: Sequence[ScanMetadata] | None = None,
    contrast: str | None = None,
    shape: tuple[int, int] = (128, 128),
    num_coils: int = 8,
    mask: Tensor | None = None,
    snr: float | None = 50.0,
    generator: torch.Generator | None = None,
) -> Scan:
    """Simulate a scan of one subject, in several contrasts or echoes for several protocols.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import phantom_scan
        >>> generator = torch.Generator().manual_seed(0)
        >>> scan = phantom_scan("brain", shape=(32, 32), num_coils=4, generator=generator)
        >>> scan.kspace.shape, scan.target.shape
        (torch.Size([1, 4, 32, 32]), torch.Size([1, 32, 32]))

    Args:
        anatomy: ``"brain"``, ``"knee"``, or an :class:`Anatomy`, such as one of a label volume.
        protocols: Sequence and times of each image of the batch, at one field strength; ``None``
            draws one with the frequencies of real scans.
        contrast: Contrast of the drawn protocol; ``None`` if ``protocols`` are given.
        shape: Matrix size ``(ny, nx)``, at most that of the anatomy.
        num_coils: Number of receiver coils of the simulated array, whose maps are returned.
        mask: Sampling mask of shape ``(batch or 1, 1, ny, nx)``, bool; ``None`` samples all.
        snr: Signal-to-noise ratio; see :func:`measure`.
        generator: Random generator.

    Returns:
        The scan, with coil maps, metadata and noiseless target.

    Raises:
        InputError: If the anatomy is unknown, there are no protocols, they have several field
            strengths or a contrast next to them, or the phantom cannot image them.
    """
    if protocols is not None and contrast is not None:
        raise InputError(
            f"`contrast` {contrast!r} is for a drawn protocol, but `protocols` are given: omit one"
        )
    generator = torch.default_generator if generator is None else generator
    if isinstance(anatomy, str):
        if anatomy not in ANATOMIES:
            raise InputError(
                f"no phantom of {anatomy!r}; expected one of {', '.join(ANATOMIES)}, or an Anatomy"
            )
        anatomy = ANATOMIES[anatomy](generator, size=max(256, *shape))
    if protocols is None:
        protocols = [draw_protocol(generator, anatomy=anatomy.name, contrast=contrast)]
    strength = common_field_strength(protocols)
    rng = numpy_rng(generator)
    subject = Subject.draw(anatomy, strength, rng)
    images = torch.stack(
        [torch.from_numpy(normalize(subject.image(one, shape, rng))) for one in protocols]
    )
    return measure(
        images,
        simulate_coil_maps(num_coils, shape, generator=generator),
        mask,
        snr=snr,
        metadata=[describe(anatomy, one) for one in protocols],
        generator=generator,
    )
