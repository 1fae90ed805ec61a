"""Scans of the phantom: coils, sampling and noise."""

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
from ctxrecon.phantom.protocols import draw_protocol
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
    """Measure images: ``y_c = M (F S_c x + n)``.

    Args:
        images: ``(batch, ny, nx)`` complex64, 99 % quantile of the magnitude at 1.
        coil_maps: ``(batch or 1, coils, ny, nx)`` complex64.
        mask: ``(batch or 1, 1, ny, nx)`` bool; ``None`` samples everything.
        snr: 1 over the standard deviation of the complex noise of each coil, that is the ratio
            of the image's bright signal to the noise; ``None`` adds none.
        metadata: one for each image, or none.
        generator: draws the noise.
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
    """A scan of one subject; several protocols give several contrasts or echoes of it.

    Args:
        anatomy: ``"brain"``, ``"knee"``, or an :class:`Anatomy`, one of a label volume say.
        protocols: sequence and times of each image of the batch; drawn from the distribution of
            real scans when ``None``.
        contrast: contrast of the drawn protocol.
        shape: matrix size ``(ny, nx)``, at most that of the anatomy.
        num_coils: receiver coils of the simulated array; the maps are the scan's truth.
        mask: ``(batch or 1, 1, ny, nx)`` bool; ``None`` samples everything.
        snr: see :func:`measure`.
        generator: draws everything that is random.
    """
    generator = torch.default_generator if generator is None else generator
    if isinstance(anatomy, str):
        if anatomy not in ANATOMIES:
            raise InputError(
                f"no phantom of {anatomy!r}; expected one of {', '.join(ANATOMIES)}, or an Anatomy"
            )
        anatomy = ANATOMIES[anatomy](generator, size=max(256, *shape))
    if protocols is None:
        protocols = [draw_protocol(generator, anatomy=anatomy.name, contrast=contrast)]
    if not protocols:
        raise InputError("expected at least one protocol, got an empty list")
    rng = numpy_rng(generator)
    subject = Subject.draw(anatomy, protocols[0].field_strength or 3.0, rng)
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
