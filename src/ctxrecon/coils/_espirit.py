"""ESPIRiT: coil maps as eigenvectors of the local k-space subspace (Uecker et al., 2014).

Two properties keep the computation small. The matrix ``G(q)`` whose leading eigenvector is the coil
map at pixel ``q`` is a trigonometric polynomial of the kernel's degree, so it is summed directly
from the kernel projector without an FFT of every kernel. Its eigenvectors vary as slowly as the
coil sensitivities, so they are computed on a coarse grid and interpolated.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ctxrecon.coils._checks import check_kspace
from ctxrecon.coils._eigenmaps import (
    automatic_crop,
    exponentials,
    images_on_grid,
    leading_eigenpair,
    one_set,
    principal_components,
    two_sets,
)
from ctxrecon.errors import InputError

POINTS_PER_SAMPLE = 8
"""Grid points per axis for each sample of the kernel; smaller images use every pixel.

``G`` is a polynomial of the kernel's degree, so interpolating its eigenvectors from a grid of this
density is accurate to about 1e-4 at every pixel.
"""

_MAX_GRID_ENTRIES = 1 << 24  # complex entries of G in memory at once: 128 MiB
_SMALLEST_THRESHOLD = 0.02
# Fractions of the calibration image's energy; the part that needs a second set has less of it.
_CROPPED_ENERGY = (0.005, 0.002)


class EspiritMaps(NamedTuple):
    """Result of :func:`espirit`.

    Attributes:
        coil_maps: Coil maps, complex64 ``(batch, coils, ny, nx)``, with ``Σ_c |S_c|² = 1`` except
            where cropped; ``(batch, 2, coils, ny, nx)`` for two sets, orthogonal at each pixel.
        eigenvalues: Eigenvalues, float32 ``(batch, ny, nx)``, 1 where one set of maps explains the
            data; ``(batch, 2, ny, nx)`` for two sets, the second 1 where two are needed.
    """

    coil_maps: Tensor
    eigenvalues: Tensor


def espirit(
    calibration: Tensor,
    shape: tuple[int, int],
    *,
    kernel_size: tuple[int, int] = (6, 6),
    threshold: float | Literal["auto"] = "auto",
    crop: float | Literal["auto"] = "auto",
    num_maps: Literal[1, 2] = 1,
) -> EspiritMaps:
    r"""Estimate coil maps with ESPIRiT from a fully sampled block of k-space.

    Signal patches :math:`y_c(k + d)` of the kernel's size span a subspace with projector P. The map
    :math:`S(q)` is the eigenvector with eigenvalue 1 of

    .. math::

        G(q)_{cc'} = \frac{1}{|d|} \sum_{d d'} P_{(cd)(c'd')}\,
            e^{2 \pi i (d - d') \cdot (q - \lfloor n/2 \rfloor) / n}

    (Uecker et al., Magn Reson Med 71:990, 2014, equations 14 to 23).

    The phase of the maps is relative: each pixel is rotated so that the projection on the first
    principal component of the coils in the calibration data is real and positive. Images combined
    with the maps therefore have the phase of this virtual coil.

    If the field of view is smaller than the object, a pixel holds signal of two places with
    different sensitivities, and ``G`` has two eigenvalues of 1. A single set of maps cannot explain
    the data, and images reconstructed with one have ghosts at the center. ``num_maps=2`` returns
    both sets; the second is zero where one suffices. See :class:`ctxrecon.operators.SoftSense`.

    Example:
        >>> import torch
        >>> from ctxrecon.coils import espirit
        >>> espirit(torch.ones(1, 4, 16, 16, dtype=torch.complex64), (32, 32)).coil_maps.shape
        torch.Size([1, 4, 32, 32])

    Args:
        calibration: Calibration data of shape ``(batch, coils, cy, cx)``, complex, any scale.
        shape: Shape ``(ny, nx)`` of the maps.
        kernel_size: Kernel size along both axes, at most that of the calibration block.
        threshold: Singular values below ``threshold`` times the largest are treated as noise.
            ``"auto"`` is the optimal hard threshold for white noise of unknown level,
            ``ω(β) σ_median`` with ``ω(β) ≈ 0.56β³ − 0.95β² + 1.82β + 1.43`` and ``β`` the aspect
            ratio of the matrix of patches (Gavish and Donoho, IEEE Trans Inf Theory 60:5040, 2014),
            but at least 0.02: in clean scans weaker directions explain little signal, and enlarge
            the support of the maps.
        crop: Eigenvalue below which maps are zero; 0 disables cropping. ``"auto"`` is 0.95, or less
            for an item where that would remove more than 0.5 % of the energy of its low-resolution
            calibration image: with few lines the eigenvalue also falls below 1 inside the object,
            and cropped signal is lost. Two sets have separate crops; the second may lose 0.2 %.
        num_maps: Number of sets of maps; 1 suits every scan whose field of view covers the object.

    Returns:
        The coil maps and their eigenvalues.

    Raises:
        InputError: If the calibration data are malformed, or the kernel is larger.
    """
    check_kspace(calibration)
    if num_maps not in (1, 2):
        raise InputError(
            f"expected num_maps of 1 or 2, got {num_maps!r}: use 2 if the field of view is smaller "
            "than the object"
        )
    coils, *size = calibration.shape[1:]
    if num_maps > coils:
        raise InputError("expected at least two coils for num_maps=2, got one: leave num_maps at 1")
    if not all(1 <= k <= n for k, n in zip(kernel_size, size, strict=True)):
        raise InputError(
            f"expected a kernel that fits the calibration block {tuple(size)}, got {kernel_size}: "
            "shrink it to about half the block along a short side"
        )
    points = POINTS_PER_SAMPLE * max(kernel_size)
    grid = (min(shape[0], points), min(shape[1], points))
    chunk = max(1, _MAX_GRID_ENTRIES // (grid[0] * grid[1] * coils**2))
    parts = [
        _espirit_chunk(part, shape, grid, kernel_size, threshold, crop, num_maps)
        for part in calibration.to(torch.complex64).split(chunk)
    ]
    coil_maps, eigenvalues = (torch.cat(part) for part in zip(*parts, strict=True))
    return EspiritMaps(coil_maps, eigenvalues)


def _espirit_chunk(
    calibration: Tensor,
    shape: tuple[int, int],
    grid: tuple[int, int],
    kernel_size: tuple[int, int],
    threshold: float | Literal["auto"],
    crop: float | Literal["auto"],
    num_maps: int,
) -> tuple[Tensor, Tensor]:
    # The Gram matrix squares the data: scaling first avoids underflow and overflow.
    calibration = calibration / calibration.abs().amax(dim=(1, 2, 3), keepdim=True)
    projector = SignalSubspace(calibration, kernel_size).projector(threshold)
    gram = pixel_gram(projector, calibration.shape[1], kernel_size, grid)
    if num_maps == 1:
        vectors, values = leading_eigenpair(gram)
        return single_maps(calibration, vectors, values, crop, shape)
    values, vectors = torch.linalg.eigh(gram)
    return paired_maps(
        calibration, vectors[..., -2:].flip(-1), values[..., -2:].flip(-1), crop, shape
    )


def single_maps(
    calibration: Tensor,
    vectors: Tensor,
    values: Tensor,
    crop: float | Literal["auto"],
    shape: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Return cropped maps ``(batch, coils, ny, nx)`` and eigenvalues ``(batch, ny, nx)``.

    Args:
        calibration: Calibration data, ``(batch, coils, cy, cx)``.
        vectors: Leading eigenvectors on the grid, ``(batch, gy, gx, coils)``.
        values: Eigenvalues on the grid, ``(batch, gy, gx)``.
        crop: Eigenvalue below which maps are zero, or "auto"; see :func:`espirit`.
        shape: Shape ``(ny, nx)`` of the maps.
    """
    images = images_on_grid(calibration, (values.shape[1], values.shape[2]))
    energy = (images.real**2 + images.imag**2).sum(dim=1)
    crops = _crops(crop, energy, values, _CROPPED_ENERGY[0] * energy.sum(dim=(1, 2)))
    reference = principal_components(calibration, 1)[..., 0]
    maps, eigenvalues = one_set(vectors, values, reference, shape)
    return maps * (eigenvalues >= crops[:, None, None])[:, None], eigenvalues


def paired_maps(
    calibration: Tensor,
    vectors: Tensor,
    values: Tensor,
    crop: float | Literal["auto"],
    shape: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Return cropped maps ``(batch, 2, coils, ny, nx)`` and eigenvalues ``(batch, 2, ny, nx)``.

    Args:
        calibration: Calibration data, ``(batch, coils, cy, cx)``.
        vectors: Eigenvectors on the grid, ``(batch, gy, gx, coils, 2)``, the leading one first.
        values: Eigenvalues on the grid, ``(batch, gy, gx, 2)``.
        crop: Eigenvalue below which maps are zero, or "auto"; see :func:`espirit`.
        shape: Shape ``(ny, nx)`` of the maps.
    """
    images = images_on_grid(calibration, (values.shape[1], values.shape[2]))
    energy = (images.real**2 + images.imag**2).sum(dim=(1, 2, 3))
    parts = torch.einsum("byxck,bcyx->byxk", vectors.conj(), images).abs().square()
    crops = torch.stack(
        [
            _crops(crop, parts[..., k], values[..., k], share * energy)
            for k, share in enumerate(_CROPPED_ENERGY)
        ],
        dim=1,
    )
    references = principal_components(calibration, 2)
    maps, eigenvalues = two_sets(vectors, values, references, crops, shape)
    return maps * (eigenvalues >= crops[..., None, None])[:, :, None], eigenvalues


def _crops(crop: float | Literal["auto"], energy: Tensor, values: Tensor, loss: Tensor) -> Tensor:
    """Return the eigenvalue ``(batch,)`` below which maps are zero."""
    return automatic_crop(energy, values, loss) if crop == "auto" else torch.full_like(loss, crop)


class SignalSubspace:
    """Singular vectors of the matrix of patches, from which projectors of any threshold follow.

    Args:
        calibration: Calibration data, complex64 ``(batch, coils, cy, cx)``, with a largest
            magnitude near 1.
        kernel_size: Size of the patches.
    """

    def __init__(self, calibration: Tensor, kernel_size: tuple[int, int]) -> None:
        windows = calibration.unfold(2, kernel_size[0], 1).unfold(3, kernel_size[1], 1)
        # (batch, coils, py, px, ky, kx) -> (batch, coils·ky·kx, positions)
        patches = windows.permute(0, 1, 4, 5, 2, 3).flatten(4).flatten(1, 3)
        self._size, self._positions = patches.shape[1:]
        if self._positions < self._size:  # the smaller Gram has the same singular values
            self._values, right = torch.linalg.eigh(patches.mH @ patches)
            scale = self._values.clamp_min(1e-20).rsqrt()
            self._vectors = patches @ (right * scale[:, None])
        else:
            self._values, self._vectors = torch.linalg.eigh(patches @ patches.mH)

    def projector(self, threshold: float | Literal["auto"]) -> Tensor:
        """Return the projector ``(batch, n, n)`` on the patches' span; ``n = coils · ky · kx``."""
        keep = self._kept(threshold)
        vectors = (self._vectors * keep[:, None])[..., -int(keep.sum(dim=1).max()) :]
        return vectors @ vectors.mH

    def rank(self, threshold: float | Literal["auto"]) -> tuple[int, ...]:
        """Return the number of singular vectors of each item that contain signal."""
        return tuple(self._kept(threshold).sum(dim=1).tolist())

    def _kept(self, threshold: float | Literal["auto"]) -> Tensor:
        values = self._values
        if threshold == "auto":
            thresholds = _noise_threshold(values, self._size, self._positions)
        else:
            thresholds = torch.full_like(values[:, -1:], threshold)
        return values > thresholds**2 * values[:, -1:]


def _noise_threshold(values: Tensor, n: int, positions: int) -> Tensor:
    """Return the relative singular value ``(batch, 1)`` of the noise (Gavish and Donoho).

    Args:
        values: Eigenvalues of the smaller Gram matrix of the patches, ascending, ``(batch, m)``.
        n: Number of samples of a patch.
        positions: Number of patches.
    """
    beta = min(n, positions) / max(n, positions)
    omega = 0.56 * beta**3 - 0.95 * beta**2 + 1.82 * beta + 1.43
    relative = (values.median(dim=1, keepdim=True).values / values[:, -1:]).clamp_min(0).sqrt()
    return (omega * relative).clamp_min(_SMALLEST_THRESHOLD)


def pixel_gram(
    projector: Tensor, coils: int, kernel_size: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """Return ``G`` on a periodic grid over the field of view, ``(batch, gy, gx, coils, coils)``."""
    ky, kx = kernel_size
    batch = projector.shape[0]
    blocks = projector.reshape(batch, coils, ky * kx, coils, ky * kx)
    blocks = blocks.permute(2, 4, 0, 1, 3).flatten(0, 1)
    offset_y = torch.arange(ky, device=projector.device)
    offset_x = torch.arange(kx, device=projector.device)
    y = offset_y.repeat_interleave(kx)
    x = offset_x.repeat(ky)
    # Blocks with equal lag d − d' share an exponential: they are summed before the grid.
    lag = (y[:, None] - y + ky - 1) * (2 * kx - 1) + (x[:, None] - x + kx - 1)
    lags = blocks.new_zeros((2 * ky - 1) * (2 * kx - 1), *blocks.shape[1:])
    lags = lags.index_add(0, lag.flatten(), blocks) / (ky * kx)
    along_y, along_x = (
        exponentials(points, torch.arange(1 - k, k, device=projector.device))
        for points, k in zip(grid, kernel_size, strict=True)
    )
    lags = lags.reshape(2 * ky - 1, 2 * kx - 1, batch, coils, coils).permute(2, 0, 1, 3, 4)
    rows = along_y @ lags.reshape(batch, 2 * ky - 1, -1)
    gram = along_x @ rows.reshape(batch, grid[0], 2 * kx - 1, coils * coils)
    return gram.reshape(batch, *grid, coils, coils)
