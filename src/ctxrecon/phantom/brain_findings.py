"""Findings drawn into the label map of a brain slice, in the terms of fastMRI+."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.phantom.shapes import Canvas, Field, Mask
from ctxrecon.phantom.shown import STRUCTURES
from ctxrecon.phantom.structures import Structure
from ctxrecon.phantom.tissues import Tissue

MIN_FINDING_MM2 = 6.0
_MIN_VENTRICLES_MM2 = 250.0
"""Minimum area of enlarged ventricles in a slice; a fourth ventricle alone is smaller."""

# Relative frequency of each finding
BRAIN_FINDINGS = {
    "Nonspecific white matter lesion": 0.38,
    "Global label: Small vessel chronic white matter ischemic change": 0.06,
    "Nonspecific lesion": 0.08,
    "Mass": 0.10,
    "Extra-axial mass": 0.05,
    "Resection cavity": 0.10,
    "Encephalomalacia": 0.06,
    "Lacunar infarct": 0.06,
    "Enlarged ventricles": 0.07,
    "Craniectomy": 0.02,
    "Extra-axial collection": 0.02,
}
_PARENCHYMA = (Tissue.WHITE_MATTER, Tissue.GRAY_MATTER, Tissue.DEEP_GRAY_MATTER)


def check_finding(finding: str) -> None:
    """Validate the name of a finding that can be drawn into a brain.

    Raises:
        InputError: If there is no such finding.
    """
    if finding not in BRAIN_FINDINGS:
        raise InputError(
            f"expected a finding of a brain, one of {', '.join(BRAIN_FINDINGS)}, got {finding!r}"
        )


def draw_finding(
    canvas: Canvas, level: float, finding: str | None, cavity: Field
) -> tuple[str, ...]:
    """Draw the planned finding; return the names of all visible findings."""
    rng = canvas.rng
    area = canvas.voxel_mm**2
    white = canvas.labels == Tissue.WHITE_MATTER
    within = (cavity < -4) & canvas.among(*_PARENCHYMA)
    drawn: dict[str, Mask] = {}

    def put(name: str, tissue: Tissue, mask: Mask) -> None:
        canvas.paint(tissue, mask, STRUCTURES.get(name, Structure.NONE))
        drawn[name] = mask | drawn.get(name, np.zeros_like(mask))

    deep_white = white & (cavity < -10)
    if finding == "Nonspecific white matter lesion":
        for _ in range(int(rng.integers(1, 9))):
            if (at := canvas.pick(deep_white)) is not None:
                spot = canvas.blob(at, float(rng.uniform(1.3, 4.0)))
                put(finding, Tissue.WHITE_MATTER_LESION, (spot < 0) & white)
    elif finding is not None and finding.startswith("Global label"):
        patches = canvas.noise(22) - 0.4 * canvas.noise(7)
        near = np.abs(canvas.ellipse(0, 2, 24, 40)) < 12
        put(finding, Tissue.WHITE_MATTER_LESION, deep_white & near & (patches > 0.45))
    elif finding in ("Nonspecific lesion", "Lacunar infarct"):
        lacune = finding == "Lacunar infarct"
        tissue = Tissue.INFARCT if lacune else Tissue.WHITE_MATTER_LESION
        at = canvas.pick(canvas.labels == Tissue.DEEP_GRAY_MATTER) if lacune else None
        if (at := at or canvas.pick(within)) is not None:
            radius = float(rng.uniform(2, 4.5) if lacune else rng.uniform(3, 9))
            put(finding, tissue, (canvas.blob(at, radius) < 0) & within)
    elif finding in ("Mass", "Resection cavity", "Encephalomalacia"):
        _draw_large_lesion(canvas, finding, cavity, within, put)
    elif finding in ("Extra-axial mass", "Craniectomy", "Extra-axial collection"):
        rim = (np.abs(cavity + 3) < 2) & (canvas.y * (0.5 - level) < 10)
        if (at := canvas.pick(rim)) is not None:
            if finding == "Extra-axial mass":
                mass = canvas.blob(at, float(rng.uniform(6, 17)), 0.1)
                put("Edema", Tissue.WHITE_MATTER_LESION, (mass < rng.uniform(2, 9)) & white)
                put(finding, Tissue.MASS, (mass < 0) & (cavity < -0.5))
            elif finding == "Craniectomy":
                opening = canvas.ellipse(*at, 28, 28) < 0
                bone = canvas.among(Tissue.CORTICAL_BONE, Tissue.MARROW)
                put(finding, Tissue.MUSCLE, opening & bone)
            else:
                crescent = canvas.ellipse(*at, 62, 62) * np.float32(0.13) - cavity
                fluid = Tissue.CSF if rng.random() < 0.5 else Tissue.INFARCT
                put(finding, fluid, (crescent < 0) & (cavity < 0) & (cavity > -11))
    elif finding == "Enlarged ventricles":
        ventricles = canvas.structures == Structure.VENTRICLES
        if ventricles.sum() * area >= _MIN_VENTRICLES_MM2:
            drawn[finding] = ventricles
    seen = [name for name, mask in drawn.items() if mask.sum() * area >= MIN_FINDING_MM2]
    return tuple(name for name in seen if drawn[name].sum() >= 4)


def _draw_large_lesion(
    canvas: Canvas, finding: str, cavity: Field, within: Mask, put: Callable[..., None]
) -> None:
    """Draw a mass with edema, a surgical cavity below a bone flap, or a wedge of lost tissue."""
    rng = canvas.rng
    place = within if finding == "Mass" else within & (cavity > -26)
    at = canvas.pick(place & (canvas.y < 45))
    if at is None:
        return
    radius = float(rng.uniform(6, 18))
    core = canvas.blob(at, radius)
    halo = core + canvas.noise(20) * np.float32(3) - np.float32(rng.uniform(3, 14))
    white = within & (canvas.labels == Tissue.WHITE_MATTER)
    if finding == "Mass":
        put("Edema", Tissue.WHITE_MATTER_LESION, (halo < 0) & white)
        put(finding, Tissue.MASS, (core < 0) & (cavity < -2))
        if rng.random() < 0.5:
            necrosis = core + np.float32(rng.uniform(2.5, 6)) + canvas.noise(12) < 0
            canvas.paint(Tissue.CSF, necrosis & (cavity < -2), Structure.MASS)
        return
    rim = Tissue.WHITE_MATTER_LESION if finding == "Resection cavity" else Tissue.INFARCT
    name = "Posttreatment change" if finding == "Resection cavity" else finding
    put(name, rim, (halo < 0) & within)
    put(finding, Tissue.CSF, (core < 0) & (cavity < -1))
    if finding == "Resection cavity":
        outwards = np.hypot(*at)
        center = (at[0] * 75 / outwards, at[1] * 85 / outwards)
        flap = np.abs(canvas.ellipse(*center, radius + 18, radius + 18)) < 1.3
        bone = canvas.among(Tissue.CORTICAL_BONE, Tissue.MARROW)
        put("Craniotomy", Tissue.CSF, flap & bone)
