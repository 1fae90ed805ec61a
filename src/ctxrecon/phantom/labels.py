"""Anatomies from label volumes of real heads (FreeSurfer labels, as published with SynthSeg)."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray

from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion
from ctxrecon.nifti import affine_in_mm, check_to_the_end, nibabel_for
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.imaging import smooth_field
from ctxrecon.phantom.structures import DEEP_GRAY_LABELS, of_freesurfer
from ctxrecon.phantom.tissues import Tissue

logger = logging.getLogger(__name__)

_GROUPS: dict[Tissue, tuple[int, ...]] = {
    Tissue.WHITE_MATTER: (2, 7, 16, 28, 41, 46, 60, 85, 192, 250, *range(251, 256)),
    Tissue.GRAY_MATTER: (3, 8, 17, 18, 42, 47, 53, 54, 136, 137, 163, 164),
    Tissue.DEEP_GRAY_MATTER: DEEP_GRAY_LABELS,
    Tissue.CSF: (4, 5, 14, 15, 24, 30, 31, 43, 44, 62, 63, 72),
    Tissue.WHITE_MATTER_LESION: (25, 57, 77, 78, 79),
    Tissue.SKIN: (511,),
    Tissue.CORTICAL_BONE: (515, 530),
    Tissue.MARROW: (516,),
    Tissue.VITREOUS: (506,),
    Tissue.BLOOD: (508, 512),
    Tissue.MUSCLE: (502, 507, 509, 514),
}
_AXIS = {"axial": 0, "sagittal": 2, "coronal": 1}
"""Axis of the slices in a volume from :func:`load_label_volume`. Slices are upright; sagittal ones
face left."""
PLANES = tuple(_AXIS)
_SOFT_TISSUE = 507
_SCALP = 511
_NUM_LABELS = 1024
_VOXEL_TOLERANCE = 0.05
"""Largest deviation of the voxel edges from 1 mm."""
# Findings of fewer fine pixels would be invisible and are not named.
_MIN_LESION_PIXELS = 12


def _lookup() -> NDArray[np.uint8]:
    table = np.full(_NUM_LABELS, int(Tissue.AIR), dtype=np.uint8)
    for tissue, labels in _GROUPS.items():
        table[list(labels)] = int(tissue)
    return table


def _warn_of_unknown(name: str, volume: NDArray[Any]) -> None:
    """Warn if labels other than background have no tissue."""
    counts = np.bincount(volume.ravel().astype(np.int64), minlength=_NUM_LABELS)
    known = _lookup() != int(Tissue.AIR)
    known[0] = True
    unknown = np.flatnonzero((counts > 0) & ~known).tolist()
    if unknown:
        logger.warning(
            "%s has labels without a known tissue, which become air: %s (%d voxels)",
            name,
            ", ".join(map(str, unknown)),
            counts[unknown].sum(),
        )


def load_label_volume(path: str | Path) -> NDArray[np.int16]:
    """Read a 3-D label volume at 1 mm as ``(slice, ny, nx)``: superior first, anterior up.

    Labels without a known tissue are reported by a warning.

    Args:
        path: NIfTI file of whole numbers from 0 to 1023, with voxels of 1 mm.

    Raises:
        InputError: If there is no such file, it is not a volume of valid labels, or its voxels
            have another size.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no label volume at {path}; pass a NIfTI file of FreeSurfer labels")
    with nibabel_for(path) as nibabel:
        image: Any = nibabel.load(path)
        num_bytes = math.prod(map(int, image.shape)) * image.get_data_dtype().itemsize
        check_expansion(path, num_bytes, path.stat().st_size, "the volume")
        volume = np.asarray(image.dataobj)
        check_to_the_end(path)
        affine = affine_in_mm(image)
        orientations = nibabel.orientations
        orientation = orientations.io_orientation(affine)
    if volume.dtype.kind not in "biuf":
        raise InputError(f"{path.name} contains {volume.dtype}, expected labels as whole numbers")
    if volume.ndim < 3 or math.prod(volume.shape[3:]) != 1:
        raise InputError(f"expected a 3-D label volume, {path.name} has shape {volume.shape}")
    volume = volume.reshape(volume.shape[:3])
    valid = np.isfinite(volume) & (volume >= 0) & (volume < _NUM_LABELS)
    valid &= volume == np.rint(volume)
    if volume.size == 0 or not valid.all():
        raise InputError(f"{path.name} contains invalid labels (expected whole numbers 0 to 1023)")
    target = orientations.axcodes2ornt(("I", "P", "L"))
    if not np.isfinite(orientation).all():  # an axis of the volume without a direction in space
        raise InputError(f"{path.name} has an impossible orientation: its affine is damaged")
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(edges - 1).max() > _VOXEL_TOLERANCE:
        sizes = " × ".join(f"{edge:.3g}" for edge in edges)
        raise InputError(
            f"expected a label volume with voxels of 1 mm, {path.name} has {sizes} mm: resample it "
            "by nearest neighbors"
        )
    _warn_of_unknown(path.name, volume)
    transform = orientations.ornt_transform(orientation, target)
    return orientations.apply_orientation(volume, transform).astype(np.int16)


def brain_range(volume: NDArray[np.int16]) -> tuple[int, int]:
    """Return the first and last slice with brain; axial slices count from the vertex downwards."""
    brain = np.isin(volume, (2, 3, 41, 42, 7, 8, 46, 47)).sum(axis=(1, 2)) > 200
    indices = np.flatnonzero(brain)
    if not len(indices):
        raise InputError("the label volume contains no brain (FreeSurfer labels 2, 3, 41, 42)")
    return int(indices[0]), int(indices[-1])


def anatomy_from_labels(
    volume: NDArray[np.int16],
    position: float,
    rng: np.random.Generator,
    *,
    size: int = 256,
    voxel_mm: float = 0.9,
    num_slices: int = 16,
    plane: str = "axial",
) -> Anatomy:
    """Draw one warped slice of a label volume.

    The slice is rotated, scaled and smoothly warped. Tissue boundaries are determined at the fine
    resolution by interpolating the indicator of each label, so that they are smooth at any
    ``voxel_mm``. Soft tissue outside the skull is split into fat and muscle by a random smooth
    field, and the scalp into skin and fat by depth.

    Args:
        volume: Label volume from :func:`load_label_volume`.
        position: Relative position of the slice: from the lowest slice with brain (0) to the vertex
            (1), and in the other planes from the person's left to right or from back to front.
        rng: Random generator of rotation, scale, warp and fat.
        size: Edge length of the square label map in fine pixels.
        voxel_mm: Edge length of a fine pixel in mm; ``size · voxel_mm`` is the field of view. A
            field of view smaller than the head shows a random part of it.
        num_slices: Number of slices of the scan to which the slice number refers.
        plane: One of :data:`PLANES`; only axial slices have a number.
    """
    from scipy.ndimage import distance_transform_edt

    volume = np.moveaxis(volume, _AXIS[plane], 0)
    top, bottom = brain_range(volume)
    index = round(bottom + (top - bottom) * position)
    labels = volume[index]
    head = np.argwhere(labels > 0)
    center = (head.min(axis=0) + head.max(axis=0)) / 2
    extent = head.max(axis=0) - head.min(axis=0)
    fov = size * voxel_mm
    slack = np.maximum(extent - fov, 0.0) / 2
    center = center + slack * rng.uniform(-1, 1, 2) + 4.0 * rng.standard_normal(2)
    angle = np.deg2rad(8.0 * rng.standard_normal())
    scale = np.exp(0.05 * rng.standard_normal(2))
    axis = (np.arange(size) - size / 2) * voxel_mm
    gy, gx = np.meshgrid(axis, axis, indexing="ij")
    warp = [6.0 * rng.random() * smooth_field((size, size), 5, rng) for _ in range(2)]
    y = center[0] + scale[0] * (np.cos(angle) * gy - np.sin(angle) * gx) + warp[0]
    x = center[1] + scale[1] * (np.sin(angle) * gy + np.cos(angle) * gx) + warp[1]
    ny, nx = labels.shape
    grid = np.stack([2 * (x + 0.5) / nx - 1, 2 * (y + 0.5) / ny - 1], axis=-1).astype(np.float32)

    values = np.unique(labels)
    indicators = torch.from_numpy((labels[None] == values[:, None, None]).astype(np.float32))
    # All indicators are sampled in one call; the largest wins at each fine pixel.
    sampled = functional.grid_sample(
        indicators[None], torch.from_numpy(grid)[None], mode="bilinear", align_corners=False
    )[0]
    outside = sampled.sum(0) < 0.5
    structures = values[sampled.argmax(0).numpy()]
    structures[outside.numpy()] = 0
    tissues = _lookup()[np.clip(structures, 0, _NUM_LABELS - 1)]
    fat = smooth_field((size, size), 12, rng) + 0.6 * smooth_field((size, size), 30, rng)
    tissues[(structures == _SOFT_TISSUE) & (fat > rng.uniform(-0.5, 0.1))] = int(Tissue.FAT)
    # The label "skin" is several mm thick; all but its outermost part is subcutaneous fat.
    depth = distance_transform_edt(structures > 0) * voxel_mm
    subcutaneous = (structures == _SCALP) & (depth > rng.uniform(1.2, 2.2))
    tissues[subcutaneous] = int(Tissue.FAT)
    lesions = int((tissues == int(Tissue.WHITE_MATTER_LESION)).sum())
    return Anatomy(
        name="brain",
        labels=tissues,
        voxel_mm=voxel_mm,
        slice=round(position * (num_slices - 1)) if plane == "axial" else None,
        pathologies=("Nonspecific white matter lesion",) if lesions >= _MIN_LESION_PIXELS else (),
        structures=of_freesurfer(structures),
    )
