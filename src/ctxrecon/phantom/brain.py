"""Procedural axial slices of a head, from the skull base to the vertex.

Sizes are those of an adult head in mm; ``x`` points to the image's right and ``y`` downwards
(posterior) from the center of the head. The cortex is the set of points within 3 mm of a pial
surface: the surface of the brain, the fissures, and sulci along the zero lines of a random field
that is defined in angle and depth, so that they run inwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.brain_findings import BRAIN_FINDINGS, check_finding, draw_finding
from ctxrecon.phantom.head import draw_head, head_width
from ctxrecon.phantom.person import Person, aged_beta, frequency
from ctxrecon.phantom.shapes import (
    Canvas,
    Field,
    Mask,
    check_size,
    gradient_length,
    look_up,
    numpy_generator,
    ramp,
    random_table,
    smooth_min,
)
from ctxrecon.phantom.structures import Structure, add_tissues
from ctxrecon.phantom.tissues import Tissue

NUM_SLICES = 16
PATHOLOGY_PROBABILITY = 0.35
_MEAN_AGE = 52.0
_ATROPHY = (1.5, 2.5)
_ENLARGED = 2.0
_AGED = (
    "Nonspecific white matter lesion",
    "Global label: Small vessel chronic white matter ischemic change",
    "Lacunar infarct",
)


@dataclass(frozen=True)
class _Subject:
    """Level in the head (0 base, 1 vertex) and proportions, drawn once per person."""

    level: float
    atrophy: float
    ventricles: float
    cortex: float


def brain_anatomy(
    generator: torch.Generator,
    *,
    size: int = 256,
    fov_mm: float = 230.0,
    person: Person | None = None,
    finding: str | None = None,
) -> Anatomy:
    """Draw one random axial slice of a head.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import brain_anatomy
        >>> anatomy = brain_anatomy(torch.Generator().manual_seed(0), size=64)
        >>> anatomy.name, anatomy.labels.shape
        ('brain', (64, 64))

    Args:
        generator: Only source of randomness; equal states yield equal slices.
        size: Number of pixels along each edge, at least 32.
        fov_mm: Edge length of the square field of view in mm.
        person: Person whose age affects the width of ventricles and sulci, the cortical thickness
            and the findings, and whose sex affects the size of the head; ``None`` draws from people
            of every age and sex.
        finding: Finding to draw if the slice has a place for it, such as "Mass"; ``None`` draws
            findings with the frequencies of patients.

    Returns:
        An :class:`Anatomy` whose slice number, 0 (skull base) to 15 (vertex), indicates the level.

    Raises:
        InputError: If ``size`` or ``fov_mm`` is out of range, or the finding is unknown.
    """
    check_size(size, fov_mm)
    if finding is not None:
        check_finding(finding)
    rng = numpy_generator(generator)
    slice_number = int(rng.integers(NUM_SLICES))
    level = float(np.clip((slice_number + rng.uniform(-0.7, 0.7)) / (NUM_SLICES - 1), 0, 1))
    if finding is None:
        finding = plan_finding(rng, level, person)
    subject = _draw_subject(rng, level, finding, person)
    width = head_width(rng, person)
    canvas = Canvas(
        rng,
        size,
        fov_mm,
        scale=(width, width * float(rng.normal(1.0, 0.03))),
        shift_mm=4.0,
        rotation_deg=10.0,
        warp_mm=1.6,
    )
    cavity = draw_head(canvas, level)
    if level < 0.44:
        _posterior_fossa(canvas, subject, cavity)
    if level > 0.06:
        _cerebrum(canvas, subject, cavity)
    if level < 0.44:
        _brainstem(canvas, subject)
    _vessels(canvas, subject, cavity)
    pathologies = draw_finding(canvas, level, finding, cavity)
    labels = canvas.labels
    structures = add_tissues(canvas.structures, labels)
    return Anatomy("brain", labels, canvas.voxel_mm, slice_number, pathologies, structures, person)


def plan_finding(rng: np.random.Generator, level: float, person: Person | None) -> str | None:
    """Draw which finding the slice shows, if any.

    White-matter lesions, chronic ischemic change and lacunes become more frequent with age, by
    ``e^0.7`` per standard deviation of 15 years: 95 % of people from 60 to 90 years have lesions
    somewhere (de Leeuw et al., J Neurol Neurosurg Psychiatry 70:9, 2001), and their volume grows
    exponentially with age (de Kort et al., Neurobiol Aging, 2024,
    doi:10.1016/j.neurobiolaging.2024.11.006). The rate is an assumption, as these studies count
    whole brains. The slightly higher frequency in women is not modeled.
    """
    weights = np.array(list(BRAIN_FINDINGS.values()))
    usual = weights.sum()
    if person is not None:
        weights[[name in _AGED for name in BRAIN_FINDINGS]] *= frequency(person, "brain", 0.7)
    if rng.random() >= PATHOLOGY_PROBABILITY * (weights.sum() / usual):
        return None
    finding = str(rng.choice(list(BRAIN_FINDINGS), p=weights / weights.sum()))
    if finding == "Enlarged ventricles" and not 0.42 < level < 0.74:
        return "Nonspecific white matter lesion"
    return finding


def _draw_subject(
    rng: np.random.Generator, level: float, finding: str | None, person: Person | None
) -> _Subject:
    """Draw the proportions of a brain.

    Age has these effects, relative to 52 years, the mean of patients and the default:

    * Ventricles grow by 20 % of their volume per ten years (Kaye et al., J Am Geriatr Soc 40:225,
      1992: in both sexes, and faster beyond 50), or by a factor of 2.3 from 30 to 75 years. Area
      and volume scale with their width here, and only the finding of :data:`BRAIN_FINDINGS` has
      enlarged ones, of twice the usual width.
    * Atrophy, which widens the sulci and the gap below the skull, has a rank correlation of 0.5
      with age: sulci at 64 to 70 years are 17 % wider than at 44 to 50 years (Front Aging Neurosci
      10:339, 2018).
    * The cortex loses 0.35 % of its thickness per year (Storsve et al., J Neurosci 34:8488, 2014).
    """
    if person is None:
        atrophy, growth, cortex = float(rng.beta(*_ATROPHY)), 1.0, 1.0
    else:
        years = person.age - _MEAN_AGE
        atrophy = aged_beta(rng, _ATROPHY, person, "brain", 0.5)
        # Atrophy accounts for the rest of 20 % in ten years.
        growth = 1.16 ** (years / 10)
        cortex = 1 - 0.0035 * years
    ventricles = min(float(rng.uniform(0.65, 1.1) + 0.45 * atrophy) * growth, _ENLARGED)
    if finding == "Enlarged ventricles":
        ventricles = float(rng.uniform(_ENLARGED, 2.6))
    return _Subject(level, atrophy, ventricles, cortex)


def _posterior_fossa(canvas: Canvas, subject: _Subject, cavity: Field) -> None:
    """Paint the cerebellum: folia along its surface, branching white matter, vermis."""
    t = subject.level
    rx = ramp(t, (0, 0.15, 0.3, 0.44), (41, 52, 42, 15))
    ry = ramp(t, (0, 0.15, 0.3, 0.44), (29, 36, 29, 16))
    cy = ramp(t, (0, 0.15, 0.3, 0.44), (51, 47, 42, 30))
    surface = np.maximum(canvas.ellipse(0, cy, rx, ry), cavity + 1.5)
    notch = canvas.ellipse(0, cy + ry + 2, 6, 9) if t < 0.2 else canvas.ellipse(0, 300, 1, 1)
    surface = np.maximum(surface, -notch)
    depth = -surface
    wave = np.hypot(canvas.x * np.float32(0.9), canvas.y - np.float32(cy - 16))
    phase = (wave + canvas.noise(25) * 2.5) * np.float32(2 * np.pi / 4.2)
    folia = np.sin(phase)
    inside = depth > 0
    canvas.paint(Tissue.GRAY_MATTER, inside)
    canvas.paint(Tissue.WHITE_MATTER, inside & (depth > 2.5) & (folia < -0.45))
    canvas.paint(Tissue.CSF, inside & (depth < 13 + canvas.noise(15) * 4) & (folia > 0.86))
    core = canvas.ellipse(0, 300, 1, 1)
    for side in (-1, 1):
        lobe = canvas.ellipse(side * rx * 0.45, cy - 5, rx * 0.34, ry * 0.42, side * 25)
        core = np.minimum(core, lobe + canvas.noise(9) * np.float32(2.2))
        if 0.08 < t < 0.25:
            dentate = canvas.ellipse(side * 15, cy - 7, 7, 4, side * 35)
            core = np.where(np.abs(dentate + canvas.noise(5) * 0.5) < 0.8, np.float32(9), core)
    canvas.paint(Tissue.WHITE_MATTER, (core < 0) & (depth > 4))
    if t < 0.3:
        for side in (-1, 1):
            peduncle = canvas.stroke([(side * 9, 10), (side * 18, cy - 6)], 5, 6)
            canvas.paint(Tissue.WHITE_MATTER, (peduncle < 0) & (cavity < -1))


def _brainstem(canvas: Canvas, subject: _Subject) -> None:
    """Paint medulla, pons or midbrain with cisterns and fourth ventricle."""
    t = subject.level
    rx = ramp(t, (0, 0.1, 0.2, 0.3, 0.44), (8, 12, 16, 15, 15))
    ry = ramp(t, (0, 0.1, 0.2, 0.3, 0.44), (7, 9, 13, 11, 9))
    stem = canvas.ellipse(0, 6, rx, ry)
    if t > 0.27:
        for side in (-1, 1):
            stem = smooth_min(stem, canvas.ellipse(side * 10, -1, 6.5, 9, side * 30), 3)
            stem = smooth_min(stem, canvas.ellipse(side * 5, 17, 5, 4.5), 2)
        chiasm = canvas.stroke([(-13, -16), (0, -9), (13, -16)], 8, 6, 8)
        canvas.paint(Tissue.CSF, np.minimum(chiasm, stem - 2.6) < 0)
        canvas.paint(Tissue.WHITE_MATTER, canvas.stroke([(-9, -20), (0, -16), (9, -20)], 1.7) < 0)
    else:
        canvas.paint(Tissue.CSF, (stem < 3.5) & (canvas.y < 8))
    canvas.paint(Tissue.WHITE_MATTER, stem < 0)
    nuclei = (stem < -2.5) & (canvas.noise(8) > 1.0)
    canvas.paint(Tissue.DEEP_GRAY_MATTER, nuclei)
    if t > 0.27:
        for side in (-1, 1):
            canvas.paint(Tissue.DEEP_GRAY_MATTER, canvas.ellipse(side * 5, 5, 3.2, 3.2) < 0)
            nigra = canvas.stroke([(side * 4, -3), (side * 12, 3)], 1.2)
            canvas.paint(Tissue.DEEP_GRAY_MATTER, nigra < 0)
        canvas.paint(Tissue.CSF, canvas.ellipse(0, 13, 1.3, 1.5) < 0, Structure.VENTRICLES)
        canvas.paint(Tissue.CSF, canvas.ellipse(0, -6, 3.5, 5) < 0)
    else:
        width = ramp(t, (0, 0.12, 0.2, 0.27), (2.5, 6.5, 8, 3.5)) * min(1.4, subject.ventricles)
        fourth = canvas.ellipse(0, 6 + ry + 4, width, 4.5)
        fourth = smooth_min(fourth, canvas.ellipse(0, 9 + ry + 4, 3, 6), 3)
        canvas.paint(Tissue.CSF, fourth < 0, Structure.VENTRICLES)
    basilar = canvas.ellipse(float(canvas.rng.normal(0, 1.5)), 6 - ry - 2.6, 1.9, 1.9)
    canvas.paint(Tissue.BLOOD, basilar < 0)


def _cerebrum(canvas: Canvas, subject: _Subject, cavity: Field) -> None:
    """Paint folded cortex, white matter, deep nuclei and ventricles."""
    t, rng = subject.level, canvas.rng
    x, y = canvas.x, canvas.y
    side_x = np.abs(x)
    region = cavity < 0
    if t < 0.44:
        # Below the tentorium, the region belongs to cerebellum and brainstem.
        rx = ramp(t, (0, 0.15, 0.3, 0.44), (43, 54, 44, 17))
        cy = ramp(t, (0, 0.15, 0.3, 0.44), (51, 47, 42, 30))
        ry = ramp(t, (0, 0.15, 0.3, 0.44), (30, 36, 30, 18))
        region &= (canvas.ellipse(0, cy, rx, ry) > 0) & (canvas.ellipse(0, 6, 20, 18) > 0)
        if t < 0.27:
            region &= y < 30 + 80 * max(0.0, t - 0.15)
    gap = np.float32(1.0 + 2.6 * subject.atrophy)
    depth = -cavity - gap * (1 + 0.5 * canvas.noise(30))
    fissure = _fissures(canvas, t)
    pial = np.minimum(depth, fissure - np.float32(0.5 + 0.5 * subject.atrophy))
    sulcus = _sulci(canvas, subject, depth, pial)
    pial = np.minimum(pial, sulcus)
    thickness = rng.uniform(2.5, 3.3) * subject.cortex
    ribbon = np.float32(thickness) + canvas.noise(12) * np.float32(0.35)
    tissue = np.where(pial < ribbon, Tissue.GRAY_MATTER, Tissue.WHITE_MATTER).astype(np.uint8)
    tissue[pial < 0] = Tissue.CSF
    canvas.labels[region] = tissue[region]
    falx = (side_x < 0.5) & region & (fissure < 1) & (depth < 40)
    if t > 0.42:
        canvas.paint(Tissue.LIGAMENT, falx)
        _deep_structures(canvas, subject, region)


def _fissures(canvas: Canvas, t: float) -> Field:
    """Return the distance to the interhemispheric and Sylvian fissures in mm."""
    front = ramp(t, (0.2, 0.42, 0.55, 0.66, 0.74), (-28, -40, -42, -38, 0))
    back = ramp(t, (0.2, 0.42, 0.55, 0.66, 0.74), (60, 44, 34, 36, 0))
    wander = canvas.noise(40) * np.float32(0.8)
    past = np.maximum(np.minimum(canvas.y - front, back - canvas.y), 0)
    middle = np.sqrt((canvas.x + wander) ** 2 + past * past)
    nearest: Field = middle.astype(np.float32)
    reach = ramp(t, (0.2, 0.34, 0.5, 0.6, 0.68), (0.2, 1, 1, 0.6, 0))
    if reach > 0.15:
        for side in (-1, 1):
            dy = float(canvas.rng.normal(0, 3))
            mouth = (side * 78.0, 2.0 + dy)
            stem = (side * (78 - 36 * reach), -4.0 + dy)
            nearest = np.minimum(nearest, canvas.stroke([mouth, stem], 0.4, 1.3))
            if reach > 0.5:
                insula = [(side * 37, -24.0), (side * 41, -6.0 + dy), (side * 40, 14.0)]
                nearest = np.minimum(nearest, canvas.stroke(insula, 0.9))
    return nearest


def _sulci(canvas: Canvas, subject: _Subject, depth: Field, pial: Field) -> Field:
    """Return the distance to the nearest sulcus minus its half width, in mm."""
    rng = canvas.rng
    angle = np.arctan2(np.abs(canvas.x), canvas.y) / np.float32(np.pi)
    around: Field = (angle + canvas.noise(40) * np.float32(0.014)).astype(np.float32)
    inwards: Field = np.clip(depth / 60, 0, 1).astype(np.float32)
    shared = random_table(rng, (50, 5), (640, 64))
    own = [shared * 0.8 + 0.6 * random_table(rng, (50, 5), (640, 64)) for _ in range(2)]
    left = look_up(own[0], around, inwards)
    radial = np.where(canvas.x > 0, look_up(own[1], around, inwards), left)
    # An isotropic field replaces the spokes near the center, where they would crowd.
    outer = np.clip(1.15 - depth / 26, 0, 1) * np.float32(ramp(subject.level, (0.7, 1), (1, 0.5)))
    outer = outer * np.clip(np.abs(canvas.x) / 30 + np.abs(canvas.y) / 50, 0, 1)
    field = radial * outer + canvas.noise(18) * (np.float32(1.15) - np.float32(0.5) * outer)
    distance = np.abs(field) / (gradient_length(field, canvas.voxel_mm) + np.float32(0.02))
    floor = 15 + 6 * canvas.noise(24) + 3 * float(subject.level > 0.7)
    below = np.maximum(pial - np.maximum(floor, 3), 0)
    half_width = np.float32(0.3 + 1.0 * subject.atrophy) * (1 + 0.5 * canvas.noise(18))
    spread: Field = (np.sqrt(distance * distance + below * below) - half_width).astype(np.float32)
    return spread


def _deep_structures(canvas: Canvas, subject: _Subject, region: Mask) -> None:
    """Paint corpus callosum, basal ganglia, thalami, and lateral and third ventricles."""
    t, v, rng = subject.level, subject.ventricles, canvas.rng
    if t > 0.76:
        return
    basal = ramp(t, (0.42, 0.47, 0.57, 0.62), (0.55, 1, 1, 0))
    body = ramp(t, (0.54, 0.6, 0.68, 0.76), (0, 1, 1, 0))
    core = canvas.ellipse(0, -4, 31, 36)
    soft = canvas.noise(14) * np.float32(0.9)
    canvas.paint(Tissue.WHITE_MATTER, (core + soft < 0) & region)
    for side in (-1, 1):
        k = float(rng.normal(1, 0.06))
        if basal > 0:
            nuclei = [
                canvas.ellipse(side * 26.5, -7, 4.6 * k * basal, 15 * basal, side * -12),
                canvas.ellipse(side * 20, -4, 3.4 * basal, 8.5 * basal, side * -20),
                canvas.ellipse(side * (13 + 2 * v), -25, 5.2 * k * basal, 8.5 * basal, side * 20),
                canvas.ellipse(side * (9 + v), 9, 8.0 * k * basal, 13 * basal, side * -25),
            ]
            for nucleus in nuclei:
                canvas.paint(Tissue.DEEP_GRAY_MATTER, nucleus + 0.5 * soft < 0)
            horn = [(side * (3 + v), -20.0), (side * (6 + 2 * v), -29.0), (side * 15.0, -38.0)]
            front = canvas.stroke(horn, 1.6 * v, 3.2 * v * k, 1.2 * v) + 0.5 * soft
            canvas.paint(Tissue.CSF, front < 0, Structure.VENTRICLES)
            atrium = [(side * 24.0, 26.0), (side * 29.0, 36.0), (side * 27.0, 50.0)]
            back = canvas.stroke(atrium, 2.2 * v, 3.6 * v * k, 0.8 * v) + 0.5 * soft
            canvas.paint(Tissue.CSF, back < 0, Structure.VENTRICLES)
            if rng.random() < 0.7:
                plexus = canvas.ellipse(side * 26.5, 32, 2.0, 4.5, side * -25)
                canvas.paint(Tissue.BLOOD, plexus + 0.6 * soft < 0)
        if body > 0.3:
            tail = canvas.stroke(
                [(side * 14.0, -28.0), (side * 18.0, -4.0), (side * 24.0, 18.0)],
                4.5 * body,
                2.5,
                1.0,
            )
            canvas.paint(Tissue.DEEP_GRAY_MATTER, tail + 0.5 * soft < 0)
            lateral = [
                (side * 9.0, -34.0),
                (side * 8.5, -4.0),
                (side * 19.0, 24.0),
                (side * 26.0, 36.0),
            ]
            radii = [r * v * body * k for r in (3.4, 4.0, 4.4, 1.5)]
            middle = canvas.stroke(lateral, *radii) + 0.5 * soft
            canvas.paint(Tissue.CSF, middle < 0, Structure.VENTRICLES)
    if basal > 0:
        third = canvas.stroke([(0, -6), (0, 14)], 0.9 * v * basal, 1.7 * v * basal)
        canvas.paint(Tissue.CSF, third < 0, Structure.VENTRICLES)
        if t < 0.52:
            canvas.paint(Tissue.CSF, canvas.ellipse(0, 25, 9, 4.5) + soft < 0)
    if rng.random() < 0.85:
        septum = canvas.stroke([(0, -36), (0, -16 if basal > 0.3 else 22)], 0.9)
        canvas.paint(Tissue.WHITE_MATTER, septum < 0)


def _vessels(canvas: Canvas, subject: _Subject, cavity: Field) -> None:
    """Paint venous sinuses and small vessels within the cerebrospinal fluid."""
    t = subject.level
    edge = (cavity < 0.3) & (cavity > -5)
    if t > 0.3:
        canvas.paint(Tissue.BLOOD, edge & (np.abs(canvas.x) < 4.5 + cavity) & (canvas.y > 0))
    if t > 0.6:
        canvas.paint(Tissue.BLOOD, edge & (np.abs(canvas.x) < 3 + cavity) & (canvas.y < 0))
    if t < 0.28:
        for side in (-1, 1):
            sinus = canvas.stroke([(side * 46, 44), (side * 52, 30)], 3.0)
            canvas.paint(Tissue.BLOOD, (sinus < 0) & (cavity < 1.5))
            carotid = canvas.ellipse(side * 13, -12, 2.4, 2.4)
            canvas.paint(Tissue.BLOOD, carotid < 0)
    small = canvas.noise(3.2) > 2.0
    canvas.paint(Tissue.BLOOD, small & (canvas.labels == Tissue.CSF) & (np.abs(cavity + 7) < 7))
