"""Figures of the results, small enough for a repository."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

LARGEST = 300_000
"""Largest size of an image file in bytes."""
_COLORS = 256
_SMALLER = 0.85


def save_figure(path: Path, figure: Figure, *, dpi: int) -> None:
    """Write a figure as a PNG file of at most :data:`LARGEST` bytes."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=dpi)
    drawn.seek(0)
    with Image.open(drawn) as image:
        save_image(path, image)


def save_image(path: Path, image: Image.Image) -> None:
    """Write an image as a PNG file of at most :data:`LARGEST` bytes.

    An image that is too large is reduced to a palette of 256 colors, then scaled down stepwise.
    """
    data, size = _encoded(image), image.size
    while len(data) > LARGEST:
        smaller = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        data = _encoded(smaller.quantize(_COLORS, dither=Image.Dither.NONE))
        size = (round(size[0] * _SMALLER), round(size[1] * _SMALLER))
    path.write_bytes(data)


def shrink(path: Path) -> None:
    """Rewrite an image file that is larger than :data:`LARGEST` bytes."""
    if path.stat().st_size > LARGEST:
        with Image.open(path) as image:
            image.load()
            save_image(path, image)


def _encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
