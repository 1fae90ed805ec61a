"""Summary of one slice of a scan."""

from __future__ import annotations

from typing import Any

from ctxrecon.coils import find_calibration_region
from ctxrecon.errors import InputError
from ctxrecon.masks import nyquist_undersampling
from ctxrecon.scan import Scan

# The memory of the search for the region grows with the square of its length.
_LONGEST_REGION = 2048


def describe(scan: Scan) -> dict[str, Any]:
    """Return the entries of :func:`ctxrecon.io.scan_info` that can be computed from one slice."""
    item = scan.metadata[0] if scan.metadata else None
    separate = scan.calibration
    return {
        "coils": scan.kspace.shape[1],
        "shape": scan.image_shape,
        **_sampling(scan),
        "calibration_scan": None if separate is None else tuple(separate.shape[2:]),
        "metadata": item,
        "prompt": (item.to_prompt() or None) if item else None,
        "noise_std": scan.noise_std,
        "coil_maps": scan.coil_maps is not None,
        "target": scan.target is not None,
        "voxel_size": scan.voxel_size,
        "affine": scan.affine is not None,
    }


def _sampling(scan: Scan) -> dict[str, Any]:
    """Return the entries on sampling."""
    if scan.trajectory is not None:
        acceleration = nyquist_undersampling(scan.trajectory[0], scan.image_shape)
        shots, samples = scan.kspace.shape[2:]
        return {
            "sampled_fraction": None,
            "acceleration": acceleration,
            "calibration_region": None,
            "shots": shots,
            "samples": samples,
        }
    mask = scan.cartesian_mask
    longest = min(max(mask.shape), _LONGEST_REGION)
    fraction = mask.float().mean().item()
    try:
        region = find_calibration_region(mask, max_size=(longest, longest))
        calibration = tuple(part.stop - part.start for part in region)
    except InputError:  # too few central samples, which is a valid result here
        calibration = None
    return {
        "sampled_fraction": fraction,
        "acceleration": 1 / fraction,
        "calibration_region": calibration,
    }
