"""Procedural coronal slices of a knee, from the patella to the popliteal fossa.

Sizes are those of an adult right knee in mm; ``x`` points to the image's right (lateral, before a
random flip) and ``y`` downwards from the joint line. The slice number, from anterior to posterior,
determines which bones, menisci, ligaments and muscles are visible.
"""

from __future__ import annotations

import numpy as np
import torch

from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.knee_findings import KNEE_FINDINGS, draw_findings
from ctxrecon.phantom.person import Person, frequency
from ctxrecon.phantom.shapes import (
    Canvas,
    Field,
    Mask,
    check_size,
    numpy_generator,
    ramp,
    smooth_min,
)
from ctxrecon.phantom.structures import add_tissues
from ctxrecon.phantom.tissues import Tissue

NUM_SLICES = 36
PATHOLOGY_PROBABILITY = 0.35
_AGED = ("Meniscus Tear", "Cartilage")


def knee_anatomy(
    generator: torch.Generator,
    *,
    size: int = 256,
    fov_mm: float = 155.0,
    person: Person | None = None,
) -> Anatomy:
    """Draw one random coronal slice of a knee.

    Example:
        >>> import torch
        >>> from ctxrecon.phantom import knee_anatomy
        >>> anatomy = knee_anatomy(torch.Generator().manual_seed(0), size=64)
        >>> anatomy.name, anatomy.labels.shape
        ('knee', (64, 64))

    Args:
        generator: Only source of randomness; equal states yield equal slices.
        size: Number of pixels along each edge, at least 32.
        fov_mm: Edge length of the square field of view in mm.
        person: Person whose sex affects the size of the bones and the fat layer, and whose age
            affects the cartilage thickness and the findings; ``None`` draws from people of every
            age and sex.

    Returns:
        An :class:`Anatomy` whose slice number, 0 (anterior) to 35 (posterior), indicates the level.

    Raises:
        InputError: If ``size`` or ``fov_mm`` is out of range.
    """
    check_size(size, fov_mm)
    rng = numpy_generator(generator)
    slice_number = int(rng.integers(NUM_SLICES))
    level = float(np.clip((slice_number + rng.uniform(-1.5, 1.5)) / (NUM_SLICES - 1), 0, 1))
    findings = plan_findings(rng, person)
    scale = _bone_size(rng, person)
    side = -1.0 if rng.random() < 0.5 else 1.0
    canvas = Canvas(
        rng,
        size,
        fov_mm,
        scale=(side * scale * float(rng.normal(1, 0.03)), scale),
        shift_mm=4.0,
        rotation_deg=10.0,
        warp_mm=1.4,
    )
    joint = Knee(canvas, level, person)
    joint.draw()
    pathologies = draw_findings(joint, findings)
    labels = canvas.labels
    structures = add_tissues(canvas.structures, labels)
    return Anatomy("knee", labels, canvas.voxel_mm, slice_number, pathologies, structures, person)


def plan_findings(rng: np.random.Generator, person: Person | None) -> list[str]:
    """Draw which findings the slice shows if it has a place for them.

    Meniscus tears and cartilage defects become more frequent with age, by ``e^0.6`` per standard
    deviation of 15 years. In knees without symptoms 4 % and 11 % have them before 40 years, 19 %
    and 43 % later, and bone-marrow lesions do not depend on age (Culvenor et al., Br J Sports Med
    53:1268, 2019); meniscal damage rises from 19 % of women of 50 to 59 years to 56 % of men of 70
    to 90 (Englund et al., N Engl J Med 359:1108, 2008). Patients have a reason for their scan at
    every age, so the rate here is about half as steep, which is an assumption.
    """
    weights = np.array(list(KNEE_FINDINGS.values()))
    usual = weights.sum()
    if person is not None:
        weights[[name.startswith(_AGED) for name in KNEE_FINDINGS]] *= frequency(
            person, "knee", 0.6
        )
    if rng.random() >= PATHOLOGY_PROBABILITY * (weights.sum() / usual):
        return []
    count = 1 + int(rng.random() < 0.4) + int(rng.random() < 0.2)
    chosen = rng.choice(list(KNEE_FINDINGS), count, replace=False, p=weights / weights.sum())
    return [str(name) for name in chosen]


def _bone_size(rng: np.random.Generator, person: Person | None) -> float:
    """Draw the size of a knee relative to the average.

    The femur is 82.7 ± 4.0 mm wide at the epicondyles in men and 72.5 ± 3.5 mm in women (Kapur et
    al., Folia Medica Fac Med Univ Sarajevo, n = 100). Cartilage scales with the bones: in women it
    is thinner and covers less (Otterness & Eckstein, Osteoarthritis Cartilage 15:666, 2007). The
    spread over both sexes is 8 %; without persons it is 5 %.
    """
    if person is None:
        return float(rng.normal(1.0, 0.05))
    return float(rng.normal(0.935 if person.is_woman else 1.065, 0.045))


def _cartilage(person: Person | None) -> float:
    """Return the cartilage thickness relative to the average, apart from the size of the knee.

    Beyond 40 years it loses 0.4 % per year: 0.013 to 0.035 mm of about 3 mm per year at ages from
    26 to 61, osteoarthritis included (Ding et al., Ann Rheum Dis 64:549, 2005).
    """
    return 1.0 if person is None else 1.02 - 0.004 * max(person.age - 40, 0.0)


def _fat_layer(person: Person | None) -> float:
    """Return the thickness of subcutaneous fat relative to the average of both sexes.

    Men have half as much as women (Diepold et al., Ann Anat 200:30, 2015: −50 % of the
    cross-section of the thigh, n = 25).
    """
    if person is None:
        return 1.0
    return 1.33 if person.is_woman else 0.67


class Knee:
    """Drawing of a knee, with the distance fields that findings use as well."""

    def __init__(self, canvas: Canvas, level: float, person: Person | None = None) -> None:
        self.canvas = canvas
        self.cartilage = _cartilage(person)
        self.level = level
        rng = canvas.rng
        reach = (level - 0.5) / 0.62
        self.half_width = float(np.sqrt(max(0.12, 1 - reach * reach))) * rng.uniform(54, 62)
        self.notch = ramp(level, (0.36, 0.46, 0.6, 0.8), (0, 8.0, 10.5, 11.0))
        self.top = 0.0
        self.femur = self._femur()
        self.tibia = self._tibia()
        self.fat_thickness = float(rng.uniform(4, 13)) * _fat_layer(person)
        self.meniscus: Mask = np.zeros_like(canvas.labels, bool)
        self.acl: Mask = self.meniscus

    def _femur(self) -> Field:
        """Return the shaft that flares into two condyles with the intercondylar notch between."""
        canvas, p = self.canvas, self.level
        rx = ramp(p, (0.16, 0.3, 0.5, 0.75, 0.88), (11, 19, 21.5, 20, 11))
        ry = ramp(p, (0.16, 0.3, 0.5, 0.75, 0.88), (12, 19, 21, 21, 14))
        if not 0.16 < p < 0.88:
            return np.full_like(canvas.x, 99)
        cx = ramp(p, (0.16, 0.35, 0.6, 0.85), (12, 20, 22.5, 24))
        bottom = ramp(p, (0.16, 0.32, 0.62, 0.88), (-16, -2.6, -2.4, -4.5))
        medial = canvas.ellipse(-cx, bottom - ry, rx, ry, 8)
        lateral = canvas.ellipse(cx, bottom - ry + 0.5, rx * 0.97, ry, -8)
        femur = np.minimum(medial, lateral)
        if p < 0.72:
            width = ramp(p, (0.16, 0.3, 0.6, 0.72), (13, 17, 16, 11))
            flare = ramp(p, (0.16, 0.35, 0.6, 0.72), (18, 33, 32, 22))
            trunk = canvas.stroke([(0, -110), (0, -58), (0, -30)], width, width + 2, flare * 0.86)
            trunk = np.maximum(trunk, canvas.y + 17)
            femur = smooth_min(femur, trunk, 12)
            if p < 0.42:
                femur = smooth_min(femur, canvas.ellipse(0, bottom - ry, 16, ry * 0.9), 8)
        if self.notch > 0:
            top = ramp(p, (0.36, 0.6, 0.72, 0.8), (-12, -22, -30, -60))
            gap = canvas.stroke([(0, top), (0, 20)], self.notch * 0.8, self.notch * 1.15)
            femur = -smooth_min(-femur, gap, 4)
        return femur

    def _tibia(self) -> Field:
        """Return the plateau with two spines, which tapers to the shaft."""
        canvas, p = self.canvas, self.level
        if not 0.16 < p < 0.84:
            return np.full_like(canvas.x, 99)
        half = ramp(p, (0.16, 0.32, 0.6, 0.76, 0.84), (18, 35, 39, 34, 20))
        top = self.top = ramp(p, (0.16, 0.3, 0.7, 0.84), (14, 2.6, 2.3, 4.5))
        side_x = np.abs(canvas.x)
        spine = 6.5 * np.exp(-(((side_x - 4.5) / 3.4) ** 2)) if 0.4 < p < 0.7 else 0.0
        dish = 1.2 * np.cos(np.clip((side_x - 21) / 15, -1, 1) * np.pi / 2)
        plateau = top - canvas.y - spine + dish.astype(np.float32)
        down = np.maximum(canvas.y - top, 0)
        shaft = ramp(p, (0.16, 0.5, 0.84), (13, 16, 12))
        width = shaft + (half - shaft) * np.exp(-((down / 30) ** 2))
        flank = (side_x - width) * np.float32(0.85)
        tibia: Field = -smooth_min(-plateau, -flank, 7).astype(np.float32)
        return tibia

    def draw(self) -> None:
        """Paint all tissues of a healthy knee, outermost first."""
        self._soft_tissue()
        p = self.level
        if p < 0.3:
            self._extensor_mechanism()
        if 0.16 < p < 0.88:
            self._joint()
        if p > 0.4:
            self._fibula()
        if 0.16 < p < 0.88:
            self._collaterals()
        if 0.38 < p < 0.8:
            self._cruciates()
        if p > 0.68:
            self._popliteal()
        self._marble()

    def _marble(self) -> None:
        """Paint fat planes between the muscle bellies and strands within them."""
        canvas = self.canvas
        belly = (canvas.labels == Tissue.MUSCLE) & (self.leg < -3)
        along = canvas.x + canvas.noise(45) * np.float32(7)
        planes = np.abs(np.sin(along / 9 + canvas.noise(60))) < 0.06
        tendon = np.abs(np.sin(along / 9 + 1.7)) < 0.02 + 0.03 * canvas.noise(25)
        strands = (canvas.noise(5) > 2.2) | (np.abs(canvas.noise(11)) < 0.025)
        canvas.paint(Tissue.FAT, belly & (planes | strands))
        canvas.paint(Tissue.LIGAMENT, belly & tendon)

    def _soft_tissue(self) -> None:
        """Paint skin, subcutaneous fat with septa, and muscle bellies with fat planes."""
        canvas, p = self.canvas, self.level
        x, y = canvas.x, canvas.y
        waist = self.half_width * (
            1 + 0.10 * np.clip(-(y + 15) / 60, 0, 1) - 0.05 * np.exp(-(((y - 25) / 22) ** 2))
        )
        leg = np.abs(x) - waist.astype(np.float32) + canvas.noise(60)
        if p < 0.22:
            cap = canvas.ellipse(0, -10, self.half_width, ramp(p, (0, 0.22), (62, 105)))
            leg = np.maximum(leg, cap)
        canvas.paint(Tissue.SKIN, leg < 0)
        canvas.paint(Tissue.FAT, leg < -1.6)
        septa = np.abs(canvas.noise(13)) < 0.045
        canvas.paint(Tissue.MUSCLE, (leg < -2.5) & septa & (np.abs(canvas.noise(30)) < 1))
        # Near the joint the bellies end in tendons, and fat and capsule lie on the bones.
        middle = ramp(p, (0, 0.5, 0.75, 1), (2, 0, 2, 10))
        spread = ramp(p, (0, 0.5, 0.75, 1), (34, 31, 26, 14))
        waisted = np.exp(-(((y - middle) / spread) ** 2)) * ramp(p, (0, 0.7, 1), (36, 30, 8))
        inner = leg + np.float32(self.fat_thickness) + canvas.noise(35) * np.float32(1.5)
        canvas.paint(Tissue.LIGAMENT, (np.abs(inner) < 0.5) & (np.abs(y) > 12))
        inner = inner + waisted.astype(np.float32)
        canvas.paint(Tissue.MUSCLE, inner < 0)
        canvas.paint(Tissue.BLOOD, (canvas.noise(4.5) > 2.5) & (leg < -4))
        self.leg, self.inner = leg, inner

    def _bone(self, distance: Field, rim: Field | float) -> None:
        canvas = self.canvas
        canvas.paint(Tissue.CORTICAL_BONE, distance < 0)
        canvas.paint(Tissue.MARROW, distance < -rim)

    def _extensor_mechanism(self) -> None:
        """Paint patella, quadriceps and patellar tendons, retinacula and infrapatellar fat."""
        canvas, p = self.canvas, self.level
        if p < 0.2:
            tendon = canvas.stroke([(1, -90), (0, -40), (0, 2), (2, 44)], 11, 14, 9, 9)
            canvas.paint(Tissue.LIGAMENT, (tendon < 0) & (np.abs(canvas.noise(6)) > 0.12))
            radius = ramp(p, (0, 0.08, 0.2), (15, 21, 14))
            patella = canvas.ellipse(0, -24, radius * 1.02, radius)
            patella = patella + canvas.noise(18) * np.float32(0.8)
            self._bone(patella, 1.4)
            if p > 0.1:
                canvas.paint(Tissue.CARTILAGE, (patella < 2.6 * self.cartilage) & (patella > 0))
        tubercle = canvas.stroke([(1, 48), (5, 120)], 11, 8)
        self._bone(tubercle, 1.6)
        if p > 0.1:
            pouch = [(-22, -42), (-13, -49), (0, -52), (13, -49), (22, -42)]
            fluid = canvas.stroke(pouch, 0.5, 1.3, 1.8, 1.3, 0.5) + canvas.noise(12)
            canvas.paint(Tissue.SYNOVIAL_FLUID, (fluid < 0) & (self.inner < 0))

    def _joint(self) -> None:
        """Paint bones with growth-plate scars, cartilage, menisci and a film of fluid."""
        canvas, p = self.canvas, self.level
        x, y = canvas.x, canvas.y
        side_x = np.abs(x)
        femur, tibia = self.femur, self.tibia
        edge = np.clip((41 - side_x) / 9, 0, 1)
        deepest = np.float32(2.3 * self.cartilage)
        thickness = (deepest + canvas.noise(30) * np.float32(0.25)) * edge
        between = (y > -24) & (y < 16) & (side_x < 44) & (femur > 0) & (tibia > 0)
        canvas.paint(Tissue.FAT, (femur > 0) & (tibia > 0) & (y > -26) & (y < 12) & (side_x < 36))
        space = between & (femur < 4) & (tibia < 4)
        canvas.paint(Tissue.SYNOVIAL_FLUID, space & (side_x < 40) & (side_x > 6))
        if 0.2 < p < 0.82:
            inner_edge = ramp(p, (0.2, 0.35, 0.6, 0.82), (8, 26, 26, 10))
            slack = np.float32(0.1)
            wedge = (femur > thickness - slack) & (tibia > thickness - slack)
            ring = (side_x > inner_edge - 4) & (side_x < 39.5) & (y > -9) & (y < 9)
            self.meniscus = wedge & ring & (femur < 8) & (tibia < 8)
            canvas.paint(Tissue.MENISCUS, self.meniscus)
        bearing = (femur > 0) & (tibia > 0) & (side_x < 41) & (side_x > self.notch - 2)
        touching = bearing & (femur + tibia < 2 * thickness + 0.9)
        cap = bearing & (femur < thickness) & (y > -24)
        plate = bearing & (tibia < thickness) & (side_x > 7) & (y < self.top + 2.5)
        canvas.paint(Tissue.CARTILAGE, cap | plate | touching)
        canvas.paint(Tissue.SYNOVIAL_FLUID, touching & (np.abs(femur - tibia) < 0.3))
        shaft_rim = np.clip((np.abs(y) - 32) / 22, 0, 1) * np.float32(2.2)
        self._bone(tibia, 1.0 + shaft_rim)
        self._bone(femur, 0.9 + shaft_rim)
        wave = canvas.noise(20) * np.float32(1.5)
        scar = np.abs(y + 33 - side_x * 0.12 + wave) < 0.7
        canvas.paint(Tissue.CORTICAL_BONE, scar & (femur < -1))
        scar = np.abs(y - 21 + side_x * 0.1 + wave) < 0.7
        canvas.paint(Tissue.CORTICAL_BONE, scar & (tibia < -1))
        vessels = canvas.noise(4) > 2.4
        canvas.paint(Tissue.MUSCLE, vessels & ((femur < -3) | (tibia < -3)))

    def _fibula(self) -> None:
        canvas, p = self.canvas, self.level
        head = ramp(p, (0.4, 0.55, 0.75, 0.95), (2, 8.5, 9, 2))
        fibula = canvas.stroke([(41, 24), (38, 48), (37, 110)], head, head * 0.6, head * 0.62)
        self._bone(fibula, 1.5)

    def _collaterals(self) -> None:
        """Paint the medial and lateral collateral ligaments and the iliotibial band."""
        canvas, p = self.canvas, self.level
        if 0.34 < p < 0.66:
            band = canvas.stroke([(-42.5, -26), (-42, -4), (-39, 12), (-30, 46)], 1.5)
            canvas.paint(Tissue.LIGAMENT, (band < 0) & (self.tibia > -0.5) & (self.femur > -0.5))
        if p > 0.5:
            cord = canvas.stroke([(42, -24), (45, 0), (42, 18)], 1.6)
            canvas.paint(Tissue.LIGAMENT, cord < 0)
        elif p > 0.25:
            tract = canvas.stroke([(47, -100), (44, -30), (42, 0), (36, 16)], 1.3)
            canvas.paint(Tissue.LIGAMENT, (tract < 0) & (self.tibia > -0.5))

    def _cruciates(self) -> None:
        """Paint the cruciate ligaments: ACL anterior and lateral, PCL posterior and medial."""
        canvas, p = self.canvas, self.level
        grain = np.abs(canvas.noise(4)) > 0.15
        if 0.42 < p < 0.68:
            slide = ramp(p, (0.42, 0.68), (0, 1))
            acl = canvas.stroke(
                [(-2 + 3 * slide, 1), (3, -8), (7.5, -13 - 9 * slide)], 2.4, 2.8, 2.4
            )
            free = (self.femur > 0) & (self.tibia > 0)
            self.acl = (acl < 0) & free
            canvas.paint(Tissue.LIGAMENT, self.acl & grain)
        if p > 0.46:
            low = ramp(p, (0.46, 0.6, 0.8), (-16, -10, 12))
            pcl = canvas.stroke([(-5.5, -17 if p < 0.64 else -12), (-2.5, low)], 3.4)
            canvas.paint(Tissue.LIGAMENT, (pcl < 0) & (self.femur > 0))

    def _popliteal(self) -> None:
        """Paint artery, vein, gastrocnemius heads and hamstrings behind the joint."""
        canvas, p = self.canvas, self.level
        if p > 0.8:
            for side in (-1, 1):
                head = canvas.stroke(
                    [(side * 20, -24), (side * 22, 20), (side * 18, 100)], 6, 15, 17
                )
                tendon = canvas.stroke(
                    [(side * 36, -100), (side * 38, -30), (side * 36, 10)], 9, 8, 4
                )
                muscle = (np.minimum(head, tendon) < 0) & (self.inner < 0)
                canvas.paint(Tissue.MUSCLE, muscle & (self.femur > 2) & (self.tibia > 2))
                edge = np.abs(np.minimum(head, tendon)) < 0.6
                between = (self.inner < 0) & (self.femur > 2) & (self.tibia > 2)
                canvas.paint(Tissue.FAT, edge & between)
        if p > 0.72:
            lane = canvas.noise(110) * np.float32(4)
            plane = canvas.noise(60) > -0.7
            artery = np.abs(canvas.x - 3 + lane) - 2.6
            vein = np.abs(canvas.x - 10 + lane) - 2.2
            inside = (self.femur > 2) & (self.tibia > 3)
            fossa = np.abs(canvas.x - 6 + lane) - 13 + ((canvas.y + 5) / 14) ** 2 / 2
            canvas.paint(Tissue.FAT, (fossa + canvas.noise(20) < 0) & inside)
            wall = np.minimum(artery, vein)
            canvas.paint(Tissue.SKIN, (wall < 0.7) & inside & plane)
            canvas.paint(Tissue.BLOOD, (wall < 0) & inside & plane)
