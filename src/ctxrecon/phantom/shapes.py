"""Signed distances, smooth random fields and a label canvas for procedural anatomies."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.phantom.structures import Structure
from ctxrecon.phantom.tissues import Tissue

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


def numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """Return a NumPy generator seeded by one draw from a torch generator."""
    seed = torch.randint(0, 2**62, (1,), generator=generator, dtype=torch.int64)
    return np.random.default_rng(int(seed.item()))


def check_size(size: int, fov_mm: float) -> None:
    """Validate that an anatomy can be drawn at this size and field of view."""
    if size < 32:
        raise InputError(f"size must be at least 32 pixels, got {size}; request a larger map")
    if not fov_mm > 0:
        raise InputError(f"fov_mm must be positive, got {fov_mm}; pass the field of view in mm")


@lru_cache(maxsize=256)
def _spline_taps(
    num_samples: int, num_knots: int, periodic: bool
) -> tuple[NDArray[np.intp], Field]:
    """Return knots and cubic B-spline weights, each ``(4, num_samples)``, on the unit interval."""
    span = num_knots if periodic else num_knots - 3
    position = (np.arange(num_samples) + 0.5) / num_samples * span
    first = np.minimum(position.astype(int), span - 1)
    f = position - first
    weights = np.stack([(1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, 3 * (f + f**2 - f**3) + 1, f**3])
    # Unit variance on average over the positions between knots
    weights /= np.sqrt((weights**2).sum(0).mean())
    return (first + np.arange(4)[:, None]) % num_knots, weights.astype(np.float32)


def _interpolate_rows(coefficients: Field, num_samples: int, periodic: bool) -> Field:
    # Four taps instead of a matrix product, since BLAS threads cost more than they save here
    knots, weights = _spline_taps(num_samples, len(coefficients), periodic)
    values: Field = coefficients[knots[0]] * weights[0, :, None]
    for k in range(1, 4):
        values += coefficients[knots[k]] * weights[k, :, None]
    return values


def random_table(
    rng: np.random.Generator,
    knots: tuple[int, int],
    samples: tuple[int, int],
    *,
    periodic: bool = False,
) -> Field:
    """Draw smooth unit-variance noise of shape ``samples`` from ``knots`` B-spline coefficients.

    ``periodic`` closes the first axis.
    """
    rows, columns = max(4, knots[0]), max(4, knots[1])
    coefficients = rng.standard_normal((rows, columns)).astype(np.float32)
    across = np.ascontiguousarray(_interpolate_rows(coefficients.T, samples[1], False).T)
    return _interpolate_rows(across, samples[0], periodic)


def look_up(table: Field, row: Field, column: Field) -> Field:
    """Interpolate ``table`` bilinearly at unit coordinates, clamped at the edges."""
    r = np.clip(row * (table.shape[0] - 1), 0, table.shape[0] - 1.001)
    c = np.clip(column * (table.shape[1] - 1), 0, table.shape[1] - 1.001)
    i, j = r.astype(np.int32), c.astype(np.int32)
    r, c = r - i, c - j
    flat = table.ravel()
    at = i * table.shape[1] + j
    below = at + table.shape[1]
    upper = flat[at] * (1 - c) + flat[at + 1] * c
    lower = flat[below] * (1 - c) + flat[below + 1] * c
    value: Field = (upper * (1 - r) + lower * r).astype(np.float32)
    return value


def gradient_length(field: Field, voxel_mm: float) -> Field:
    """Return the length of the gradient of ``field``, per mm."""
    length: Field = np.empty_like(field)
    across = np.zeros_like(field)
    along = np.zeros_like(field)
    across[:, 1:-1] = field[:, 2:] - field[:, :-2]
    along[1:-1] = field[2:] - field[:-2]
    np.sqrt(across * across + along * along, out=length)
    return length / np.float32(2 * voxel_mm)


def smooth_min(a: Field, b: Field, width: float) -> Field:
    """Return the minimum of two distances with the seam rounded over ``width`` mm."""
    h = np.maximum(width - np.abs(a - b), 0) / width
    joined: Field = np.minimum(a, b) - h * h * np.float32(width / 4)
    return joined


def ramp(value: float, knots: Sequence[float], values: Sequence[float]) -> float:
    """Evaluate a piecewise linear function."""
    return float(np.interp(value, knots, values))


class Canvas:
    """Label map under construction, with anatomical coordinates at every pixel.

    Attributes:
        labels: Tissue labels, uint8 ``(size, size)``, initially air.
        structures: Structure labels, uint8 ``(size, size)``, initially none; values of
            :class:`~ctxrecon.phantom.Structure`.
        x: Coordinate to the right in the upright, unwarped anatomy, in mm.
        y: Coordinate downwards in the upright, unwarped anatomy, in mm.
        voxel_mm: Edge length of a pixel in mm.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        size: int,
        fov_mm: float,
        *,
        scale: tuple[float, float],
        shift_mm: float,
        rotation_deg: float,
        warp_mm: float,
    ) -> None:
        self.rng = rng
        self.voxel_mm = fov_mm / size
        self.labels = np.zeros((size, size), np.uint8)
        self.structures = np.zeros((size, size), np.uint8)
        axis = ((np.arange(size) + 0.5) * self.voxel_mm - fov_mm / 2).astype(np.float32)
        dx, dy = rng.normal(0, shift_mm, 2)
        angle = np.deg2rad(np.clip(rng.normal(0, rotation_deg / 2), -rotation_deg, rotation_deg))
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        right, down = (axis - np.float32(dx))[None, :], (axis - np.float32(dy))[:, None]
        bend_x, bend_y = (
            self.noise(90) * np.float32(warp_mm) + self.noise(24) * np.float32(0.15 * warp_mm)
            for _ in range(2)
        )
        self.x: Field = (cos * right + sin * down + bend_x) / np.float32(scale[0])
        self.y: Field = (cos * down - sin * right + bend_y) / np.float32(scale[1])

    def noise(self, wavelength_mm: float) -> Field:
        """Draw isotropic smooth noise of unit variance on the pixel grid."""
        size = len(self.labels)
        knots = min(round(size * self.voxel_mm / wavelength_mm * 2) + 4, size)
        return random_table(self.rng, (knots, knots), (size, size))

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, angle_deg: float = 0.0) -> Field:
        """Return the first-order signed distance to an ellipse in mm, negative inside."""
        u, v = self.x - np.float32(cx), self.y - np.float32(cy)
        if angle_deg:
            cos, sin = (np.float32(f(np.deg2rad(angle_deg))) for f in (np.cos, np.sin))
            u, v = cos * u + sin * v, cos * v - sin * u
        u, v = u / np.float32(rx), v / np.float32(ry)
        k = np.sqrt(u * u + v * v)
        u, v = u / np.float32(rx), v / np.float32(ry)
        slope = np.sqrt(u * u + v * v) + np.float32(1e-6)
        distance: Field = k * (k - 1) / slope
        return distance

    def stroke(self, points: Sequence[tuple[float, float]], *radii: float) -> Field:
        """Return the signed distance to a thick polyline in mm, with linearly varying radius.

        Args:
            points: Corners ``(x, y)``, at least two.
            radii: One radius for all corners, or one per corner.
        """
        at = list(radii) if len(radii) == len(points) else [radii[0]] * len(points)
        best: Field | None = None
        for (ax, ay), (bx, by), ra, rb in zip(
            points[:-1], points[1:], at[:-1], at[1:], strict=True
        ):
            u, v = self.x - np.float32(ax), self.y - np.float32(ay)
            ex, ey = np.float32(bx - ax), np.float32(by - ay)
            h = np.clip((u * ex + v * ey) / (ex * ex + ey * ey + np.float32(1e-6)), 0, 1)
            u, v = u - h * ex, v - h * ey
            d = np.sqrt(u * u + v * v) - (np.float32(ra) + h * np.float32(rb - ra))
            best = d if best is None else np.minimum(best, d)
        if best is None:
            raise InputError(f"a stroke needs at least two points, got {len(points)}; add points")
        return best

    def paint(self, tissue: Tissue, mask: Mask, structure: Structure = Structure.NONE) -> None:
        """Set ``tissue`` and its structure where ``mask`` is true."""
        self.labels[mask] = tissue
        self.structures[mask] = structure

    def among(self, *tissues: Tissue) -> Mask:
        """Return a mask of the pixels whose label is one of ``tissues``."""
        table = np.zeros(256, bool)
        table[list(tissues)] = True
        found: Mask = table[self.labels]
        return found

    def pick(self, mask: Mask) -> tuple[float, float] | None:
        """Return coordinates of a random pixel of ``mask``, or ``None`` if it is empty."""
        inside = np.flatnonzero(mask)
        if not len(inside):
            return None
        at = inside[self.rng.integers(len(inside))]
        return float(self.x.flat[at]), float(self.y.flat[at])

    def blob(self, center: tuple[float, float], radius: float, roughness: float = 0.25) -> Field:
        """Return the signed distance to an irregular oval in mm."""
        aspect, angle = self.rng.uniform(0.75, 1.3), self.rng.uniform(0, 180)
        distance = self.ellipse(*center, radius * aspect, radius / aspect, angle)
        wobble = self.noise(max(radius * 1.6, 4 * self.voxel_mm))
        return distance + np.float32(roughness * radius) * wobble
