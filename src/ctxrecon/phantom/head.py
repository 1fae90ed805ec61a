"""Surroundings of the brain in an axial slice: scalp, skull, skull base, orbits and sinuses."""

from __future__ import annotations

import numpy as np

from ctxrecon.phantom.person import Person
from ctxrecon.phantom.shapes import Canvas, Field, Mask, ramp, smooth_min
from ctxrecon.phantom.tissues import Tissue


def head_width(rng: np.random.Generator, person: Person | None) -> float:
    """Draw the size of a head relative to the average.

    Men's intracranial volume is 10 % larger than women's (1538 and 1393 ml: PMC10511609, table 1,
    n = 133; also Ritchie et al., Cereb Cortex 28:2959, 2018), so each of the three dimensions
    differs by 3.2 %; the spread over both sexes remains 3 %.
    """
    if person is None:
        return float(rng.normal(1.0, 0.03))
    return float(rng.normal(0.984 if person.is_woman else 1.016, 0.0254))


def _outline(canvas: Canvas, half_width: float, half_length: float, taper: float) -> Field:
    """Return the radial distance to an egg shape that is broader posteriorly."""
    x, y = canvas.x, canvas.y
    across = x / (np.float32(half_width) * (1 + np.float32(taper) * y / np.float32(half_length)))
    along = y / np.float32(half_length)
    rho = (np.abs(across) ** 2.12 + np.abs(along) ** 2.12) ** np.float32(1 / 2.12)
    rho = np.maximum(rho, np.float32(1e-3))
    distance: Field = (np.hypot(x, y) * (1 - 1 / rho)).astype(np.float32)
    return distance


def draw_head(canvas: Canvas, level: float) -> Field:
    """Paint skin, fat, muscle, skull and face; return the distance to the cranial cavity."""
    rng, t = canvas.rng, level
    half_width = ramp(t, (0, 0.3, 0.6, 0.8, 0.92, 1), (70, 75, 75, 68, 58, 46))
    half_length = ramp(t, (0, 0.3, 0.6, 0.8, 0.92, 1), (93, 96, 94, 86, 74, 60))
    head = _outline(canvas, half_width, half_length, ramp(t, (0, 0.4, 0.8), (0.16, 0.09, 0.05)))
    if t < 0.2:
        nose = canvas.stroke([(0, -80), (0, -92 - 60 * (0.2 - t))], 16, 7)
        head = smooth_min(head, nose, 14)
    scalp = rng.uniform(4, 7.5) + canvas.noise(60) * np.float32(0.6)
    if t < 0.36:
        cavity = _base_cavity(canvas, t, head)
    else:
        cavity = head + np.float32(rng.uniform(11.5, 14.5) + 10 * max(0.0, t - 0.85))
    skull = np.float32(rng.uniform(5.5, 8)) + canvas.noise(45) * np.float32(0.8)
    if t > 0.36:
        skull = np.minimum(skull, cavity - head - 3.5)
    canvas.paint(Tissue.SKIN, head < 0)
    canvas.paint(Tissue.FAT, head < -2.2)
    muscle = (head < -scalp) & (cavity > skull + 0.8)
    lateral = np.abs(canvas.x) > 0.62 * half_width
    if t < 0.36:
        _face(canvas, t, head, cavity, muscle)
    elif t < 0.66:
        temporalis = muscle | ((head < -3) & (cavity > skull))
        canvas.paint(Tissue.MUSCLE, temporalis & lateral & (canvas.y < 20) & (canvas.y > -55))
    canvas.paint(Tissue.CORTICAL_BONE, (cavity < skull) & (head < -2.5))
    diploe = (cavity > 1.8) & (cavity < skull - 1.7)
    canvas.paint(Tissue.MARROW, diploe & (head < -3))
    canvas.paint(Tissue.CSF, cavity < 0)
    if t < 0.2:
        for side in (-1, 1):
            ear = canvas.stroke([(side * 73, 8), (side * 82, 24)], 2.2, 3.2)
            canvas.paint(Tissue.SKIN, (ear < 0) & (head > -1))
    return cavity


def _base_cavity(canvas: Canvas, t: float, head: Field) -> Field:
    """Return the posterior, middle and anterior fossae, which join into one cavity higher up."""
    fossa = canvas.ellipse(
        0,
        ramp(t, (0, 0.2, 0.36), (46, 40, 34)),
        ramp(t, (0, 0.15, 0.36), (43, 53, 60)),
        ramp(t, (0, 0.15, 0.36), (31, 38, 48)),
    )
    cavity = np.maximum(fossa, head + 13)
    if t > 0.06:
        rx, ry = ramp(t, (0.06, 0.2, 0.36), (14, 23, 31)), ramp(t, (0.06, 0.2, 0.36), (18, 33, 44))
        for side in (-1, 1):
            pole = canvas.ellipse(side * 41, ramp(t, (0.06, 0.36), (-10, -2)), rx, ry, side * -12)
            cavity = smooth_min(cavity, np.maximum(pole, head + 12), 3)
    if t > 0.19:
        rx, ry = ramp(t, (0.19, 0.24, 0.36), (16, 34, 60)), ramp(t, (0.19, 0.36), (13, 48))
        front = canvas.ellipse(0, ramp(t, (0.19, 0.36), (-58, -38)), rx, ry)
        cavity = smooth_min(cavity, np.maximum(front, head + 13), 4)
    if t > 0.15:
        stem = canvas.ellipse(0, 0, ramp(t, (0.15, 0.36), (16, 26)), 20)
        cavity = smooth_min(cavity, stem, 4)
    return cavity


def _face(canvas: Canvas, level: float, head: Field, cavity: Field, muscle: Mask) -> None:
    """Paint orbits, sinuses, petrous bone and muscles around the skull base."""
    rng, t = canvas.rng, level
    x, y = canvas.x, canvas.y
    side_x = np.abs(x)
    grain = canvas.noise(9)
    behind = muscle & ((y > 35) | (side_x > 50)) & (head < -7)
    canvas.paint(Tissue.MUSCLE, behind & (grain < 1.3))
    base = canvas.ellipse(0, -12, 46, 44)
    canvas.paint(Tissue.CORTICAL_BONE, base < 0)
    canvas.paint(Tissue.MARROW, (base < -2) & (np.abs(grain) > 0.45))
    for side in (-1, 1):
        if t < 0.1:
            antrum = canvas.ellipse(side * 30, -56, 13, 17, side * 15) + grain
            canvas.paint(Tissue.CORTICAL_BONE, (antrum < 1.5) & (head < -4))
            canvas.paint(Tissue.AIR, (antrum < 0) & (head < -4))
            masseter = canvas.ellipse(side * 52, -38, 8, 20, side * -15)
            canvas.paint(Tissue.MUSCLE, (masseter < 0) & (head < -6))
        petrous = canvas.stroke([(side * 10, 2), (side * 56, 24)], 6, 13)
        canvas.paint(Tissue.CORTICAL_BONE, petrous < 0)
        mastoid = canvas.ellipse(side * 55, 26, 12, 15)
        canvas.paint(Tissue.AIR, (mastoid < 0) & (canvas.noise(7) > -0.2))
        temporal_muscle = canvas.stroke([(side * 56, -45), (side * 63, -8)], 6, 5)
        canvas.paint(Tissue.MUSCLE, (temporal_muscle < 0) & (head < -5))
        zygoma = canvas.stroke([(side * 49, -62), (side * 50, -42)], 3.5)
        canvas.paint(Tissue.CORTICAL_BONE, zygoma < 0)
        canvas.paint(Tissue.MARROW, zygoma < -1.8)
    opacified = rng.random() < 0.15
    ethmoid = np.maximum(canvas.ellipse(0, -58, 13, 27), -canvas.ellipse(0, -58, 0.8, 30))
    canvas.paint(Tissue.CORTICAL_BONE, ethmoid < 1)
    cells = np.abs(canvas.noise(10)) > 0.25
    canvas.paint(Tissue.AIR, (ethmoid < 0) & cells)
    canvas.paint(Tissue.SKIN, (ethmoid < 0) & ~cells)
    sphenoid = canvas.ellipse(rng.normal(0, 2), -18, 14, 11)
    canvas.paint(Tissue.AIR, sphenoid < 0)
    canvas.paint(Tissue.CORTICAL_BONE, (sphenoid < 0) & (np.abs(x - 1) < 0.7))
    if opacified:
        canvas.paint(Tissue.SYNOVIAL_FLUID, (sphenoid < 0) & (x > 1))
    if 0.02 < t < 0.3:
        opening = 1 - ((t - 0.15) / 0.16) ** 2
        for side in (-1, 1):
            _orbit(canvas, side, float(np.sqrt(max(opening, 0.15))), head)


def _orbit(canvas: Canvas, side: int, opening: float, head: Field) -> None:
    """Paint a fat cone with globe, lens, optic nerve and two rectus muscles."""
    cone = canvas.stroke([(side * 32, -64), (side * 14, -26)], 18 * opening, 3)
    canvas.paint(Tissue.CORTICAL_BONE, (cone < 2) & (head < -3))
    canvas.paint(Tissue.FAT, (cone < 0) & (head < -2))
    for outward in (-1, 1):
        belly = [
            (side * 32 + outward * 11.5, -66),
            (side * 25 + outward * 9, -48),
            (side * 14 + outward * 2, -28),
        ]
        rectus = canvas.stroke(belly, 1.0, 2.6, 1.0)
        canvas.paint(Tissue.MUSCLE, (rectus < 0) & (cone < 0))
    nerve = canvas.stroke([(side * 31, -62), (side * 24, -45), (side * 12, -22)], 1.9)
    canvas.paint(Tissue.CSF, (nerve < 1.0) & (cone < 2))
    canvas.paint(Tissue.WHITE_MATTER, (nerve < 0) & (cone < 2))
    radius = 12 * opening
    globe = canvas.ellipse(side * 32, -72, radius, radius)
    canvas.paint(Tissue.MUSCLE, globe < 1.1)
    canvas.paint(Tissue.VITREOUS, globe < 0)
    canvas.paint(Tissue.LIGAMENT, canvas.ellipse(side * 32, -72 - radius * 0.68, 4.2, 1.9) < 0)
