"""Daubechies-2 wavelet transform of batches of images, complex or real, on their device.

It agrees with PyWavelets for ``mode="zero"``, which handles one image at a time on the CPU.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

FILTER_LENGTH = 4

# The filter bank is a rotation by 60°, a shift by one sample and a rotation by 15°. Dividing both
# rotations by their cosines saves multiplications; each axis of a level makes up for it once.
_FIRST = math.sqrt(3)  # tan 60°
_SECOND = 2 - math.sqrt(3)  # tan 15°
_MARGIN = FILTER_LENGTH - 2  # zeros before the first sample; the shift wraps around onto them
_GAIN = (1 + math.sqrt(3)) / (4 * math.sqrt(2))  # cos 60° · cos 15°


def max_level(shape: tuple[int, ...]) -> int:
    """Return the largest number of levels at which an interior coefficient sees no boundary.

    Args:
        shape: Image size; an odd axis counts as one sample longer, as in sigpy.

    Returns:
        ``⌊log2(n / 3)⌋`` for the shorter axis of ``n`` samples, at least 0.

    Example:
        >>> from ctxrecon.baselines.wavelets import max_level
        >>> max_level((320, 256))
        6
    """
    shortest = min(size + size % 2 for size in shape)
    return max((shortest // (FILTER_LENGTH - 1)).bit_length() - 1, 0)


def wavedec2(images: Tensor, level: int) -> list[Tensor]:
    r"""Compute the wavelet coefficients of images.

    Each level splits both axes of the approximation that the previous level left:

    .. math::
        a_k = \sum_{t=0}^{3} h_t\, x_{2k+t-2}, \qquad
        d_k = \sum_{t=0}^{3} (-1)^{t+1} h_{3-t}\, x_{2k+t-2}, \qquad
        h = \frac{(1+\sqrt 3,\; 3+\sqrt 3,\; 3-\sqrt 3,\; 1-\sqrt 3)}{4\sqrt 2}

    with zeros outside of the image (Daubechies, Comm. Pure Appl. Math. 41, 909 (1988)). All
    coefficients that see the image are kept, so the transform ``W`` preserves inner products:
    ``WᴴW = 1``. It is computed as two plane rotations (Vaidyanathan and Hoang, IEEE Trans. Acoust.
    Speech Signal Process. 36, 81 (1988)).

    Args:
        images: Images of shape ``(batch, ny, nx)``, real or complex.
        level: Number of levels.

    Returns:
        ``3 · level + 1`` tensors ``(batch, …, …)``: the approximation, then from the coarsest level
        to the finest the details along ``y``, along ``x`` and along both. A level makes ``n``
        samples ``⌊n / 2⌋ + 1`` (``n`` even) or ``⌊n / 2⌋ + 2``.

    Example:
        >>> import torch
        >>> from ctxrecon.baselines.wavelets import wavedec2
        >>> coefficients = wavedec2(torch.ones(1, 8, 8), level=1)
        >>> coefficients[0][0, 1:-1, 1:-1].round(decimals=4)
        tensor([[2., 2., 2.],
                [2., 2., 2.],
                [2., 2., 2.]])
        >>> round(float(sum(band.square().sum() for band in coefficients)), 3)
        64.0
    """
    details: list[Tensor] = []
    for _ in range(level):
        low, high = _split(images, -2)
        images, along_x, along_y, both = (
            band.mul_(_GAIN**2) for band in (*_split(low, -1), *_split(high, -1))
        )
        details[:0] = along_y, along_x, both
    return [images, *details]


def waverec2(coefficients: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Compute the images of wavelet coefficients: the adjoint and inverse of :func:`wavedec2`.

    Args:
        coefficients: Coefficients as :func:`wavedec2` returns them.
        shape: Image size ``(ny, nx)``.

    Returns:
        Images of shape ``(batch, ny, nx)``.

    Example:
        >>> import torch
        >>> from ctxrecon.baselines.wavelets import wavedec2, waverec2
        >>> image = torch.arange(15.0).reshape(1, 3, 5)
        >>> torch.allclose(waverec2(wavedec2(image, level=1), (3, 5)), image, atol=1e-5)
        True
    """
    levels = len(coefficients) // 3
    sizes = [tuple(shape)]
    for _ in range(levels - 1):
        sizes.append(tuple((size + size % 2) // 2 + 1 for size in sizes[-1]))
    images = coefficients[0]
    for number, (ny, nx) in enumerate(reversed(sizes[:levels])):
        along_y, along_x, both = coefficients[3 * number + 1 : 3 * number + 4]
        low, high = _merge(images, along_x, -1, nx), _merge(along_y, both, -1, nx)
        images = _merge(low, high, -2, ny).mul_(_GAIN**2)
    return images


def _split(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return approximation and detail along one axis, both divided by the gain."""
    margins = (_MARGIN, x.shape[axis] % 2)
    x = pad(x, margins if axis == -1 else (0, 0, *margins))
    even, odd = _phases(x, axis)
    first = torch.add(even, odd, alpha=_FIRST)
    second = torch.sub(odd, even, alpha=_FIRST).roll(-1, axis)
    return torch.sub(first, second, alpha=_SECOND), torch.add(second, first, alpha=_SECOND)


def _merge(low: Tensor, high: Tensor, axis: int, size: int) -> Tensor:
    """Return the ``size`` samples that :func:`_split` was given, divided by the gain."""
    first = torch.add(low, high, alpha=_SECOND)
    second = torch.sub(high, low, alpha=_SECOND).roll(1, axis)
    shape = list(low.shape)
    shape[axis] *= 2
    x = low.new_empty(shape)
    even, odd = _phases(x, axis)
    torch.sub(first, second, alpha=_FIRST, out=even)
    torch.add(second, first, alpha=_FIRST, out=odd)
    return x.narrow(axis, _MARGIN, size)


def _phases(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return the samples of even and of odd index along one of the last two axes, as views."""
    if axis == -1:
        return x[..., ::2], x[..., 1::2]
    return x[..., ::2, :], x[..., 1::2, :]
