"""Findings drawn into the label map of a knee slice, in the terms of fastMRI+."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ctxrecon.phantom.shapes import Canvas, Field, Mask
from ctxrecon.phantom.tissues import Tissue

MIN_FINDING_MM2 = 2.0

# Relative frequency of each finding
KNEE_FINDINGS = {
    "Meniscus Tear": 0.26,
    "Cartilage - Partial Thickness loss/defect": 0.15,
    "Cartilage - Full Thickness loss/defect": 0.06,
    "Joint Effusion": 0.12,
    "Bone-Fracture/Contusion/dislocation": 0.07,
    "Bone- Subchondral edema": 0.09,
    "Periarticular cysts": 0.06,
    "Ligament - ACL Low Grade sprain": 0.04,
    "Ligament - ACL High Grade Sprain": 0.04,
    "Ligament - MCL Low-Mod Grade Sprain": 0.03,
    "Displaced Meniscal Tissue": 0.02,
    "Bone - Lesion": 0.03,
    "Soft Tissue Lesion": 0.02,
    "Joint Bodies": 0.01,
}


class KneeLike(Protocol):
    """Interface of a drawn knee for findings: its canvas, level and signed distances."""

    canvas: Canvas
    level: float
    femur: Field
    tibia: Field
    leg: Field
    inner: Field
    meniscus: Mask
    acl: Mask


def draw_findings(knee: KneeLike, findings: list[str]) -> tuple[str, ...]:
    """Draw each finding that fits into this slice; return the names of those drawn."""
    canvas = knee.canvas
    area = canvas.voxel_mm**2
    drawn = []
    for name in findings:
        mask = _draw_finding(knee, name)
        if mask is not None and mask.sum() * area >= MIN_FINDING_MM2 and mask.sum() >= 3:
            drawn.append(name)
    return tuple(drawn)


def _draw_finding(knee: KneeLike, name: str) -> Mask | None:
    """Draw one finding; return its mask, or ``None`` if the slice has no place for it."""
    canvas, rng = knee.canvas, knee.canvas.rng
    labels = canvas.labels
    marrow = labels == Tissue.MARROW
    surface = marrow & (np.minimum(np.abs(knee.femur), np.abs(knee.tibia)) < 5)
    surface &= np.abs(canvas.y) < 18

    def put(tissue: Tissue, mask: Mask) -> Mask:
        canvas.paint(tissue, mask)
        return mask

    def around(place: Mask, low: float, high: float, roughness: float = 0.3) -> Field | None:
        at = canvas.pick(place)
        return None if at is None else canvas.blob(at, rng.uniform(low, high), roughness)

    if name == "Meniscus Tear":
        place = knee.meniscus & (labels == Tissue.MENISCUS)
        if (at := canvas.pick(place)) is None:
            return None
        angle, reach = rng.uniform(0, np.pi), rng.uniform(3, 8)
        dx, dy = reach * np.cos(angle), reach * np.sin(angle)
        line = canvas.stroke([(at[0] - dx, at[1] - dy), (at[0] + dx, at[1] + dy)], 0.7)
        return put(Tissue.MENISCUS_TEAR, (line < 0) & place)
    if name.startswith("Cartilage"):
        place = labels == Tissue.CARTILAGE
        distance = around(place, 3, 7)
        if distance is None:
            return None
        depth = np.minimum(np.abs(knee.femur), np.abs(knee.tibia))
        kept = 0.0 if "Full" in name else 1.2
        return put(Tissue.CARTILAGE_DEFECT, (distance < 0) & place & (depth > kept))
    if name.startswith("Bone- Sub") or name.startswith("Bone-Fr"):
        fracture = name.startswith("Bone-Fr")
        distance = around(surface, *((8, 20) if fracture else (4, 10)), 0.35)
        if distance is None:
            return None
        mask = put(Tissue.BONE_EDEMA, (distance < 0) & (labels == Tissue.MARROW))
        if fracture and rng.random() < 0.5:
            crack = np.abs(canvas.noise(25)) < 0.06
            canvas.paint(Tissue.CORTICAL_BONE, mask & crack & (distance < -3))
        return mask
    if name == "Joint Effusion":
        extra = rng.uniform(2.5, 7)
        near = (knee.femur > 0) & (knee.femur < extra) & (np.abs(canvas.y + 18) < 26)
        soft = canvas.among(Tissue.FAT, Tissue.SYNOVIAL_FLUID, Tissue.MUSCLE)
        pouch = canvas.ellipse(0, -52, 26, extra + 2) if knee.level < 0.4 else knee.femur + 99
        near |= (pouch < 0) & (knee.inner < 0)
        return put(Tissue.SYNOVIAL_FLUID, near & soft & (canvas.noise(12) > -0.6))
    if name == "Periarticular cysts":
        rim = (np.abs(np.abs(canvas.x) - 41) < 4) & (np.abs(canvas.y) < 14)
        distance = around(rim & (labels == Tissue.FAT), 3, 7)
    elif name.startswith("Ligament - ACL"):
        gap = np.abs(canvas.noise(5)) < (0.9 if "High" in name else 0.35)
        return put(Tissue.SYNOVIAL_FLUID, knee.acl & gap)
    elif name.startswith("Ligament - MCL"):
        near = canvas.stroke([(-42.5, -22), (-42, -4), (-38, 14)], 4.0) < 0
        return put(Tissue.SYNOVIAL_FLUID, near & (labels == Tissue.FAT) & (knee.level > 0.34))
    elif name == "Displaced Meniscal Tissue":
        notch = (np.abs(canvas.x) < 14) & (np.abs(canvas.y) < 8) & (labels == Tissue.FAT)
        distance = around(notch, 2, 3.5)
        return (
            None
            if distance is None
            else put(Tissue.MENISCUS, (distance < 0) & (knee.femur > 0) & (knee.tibia > 0))
        )
    elif name == "Joint Bodies":
        distance = around(labels == Tissue.SYNOVIAL_FLUID, 2, 4)
        return (
            None
            if distance is None
            else put(
                Tissue.CORTICAL_BONE,
                (distance < 0) & canvas.among(Tissue.FAT, Tissue.SYNOVIAL_FLUID),
            )
        )
    else:
        soft = canvas.among(Tissue.FAT, Tissue.MUSCLE) & (knee.leg < -4)
        place = marrow if name == "Bone - Lesion" else soft
        distance = around(place, 4, 10)
        return None if distance is None else put(Tissue.MASS, (distance < 0) & place)
    return (
        None
        if distance is None
        else put(Tissue.SYNOVIAL_FLUID, (distance < 0) & (labels == Tissue.FAT))
    )
