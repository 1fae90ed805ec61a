"""Notes on a scan's sampling: partial Fourier, partial echoes, reversed readouts, oversampling."""

from __future__ import annotations

import numpy as np

from ctxrecon.io._cartesian import AXES, Axis, Places
from ctxrecon.io._header import EncodingHeader
from ctxrecon.io._notes import Notes

_NAMES = ("readout", "phase encoding", "partition encoding")


def describe_sampling(places: Places, axis: Axis | None, notes: Notes) -> None:
    """Note partial echoes, partial Fourier and reversed readouts.

    Args:
        places: Positions of the readouts on the grid.
        axis: Axis along which the slices lie.
        notes: Notes to extend.
    """
    if places.turned.any():
        notes.add(f"{int(places.turned.sum())} readouts were measured in reverse and are flipped")
    stops = places.starts + places.lengths
    extents = [
        (int(places.starts.min()), int(stops.max()), 1),
        *((int(each.min()), int(each.max()) + 1, _gap(each)) for each in _encodings(places)),
    ]
    for number, (first, stop, gap) in enumerate(extents):
        size = places.matrix[number]
        before, after = size // 2 - first, stop - size // 2
        if size == 1 or number == AXES[axis][2] or abs(before - after) <= max(gap, 2):
            continue
        share = (before + after) / (2 * max(before, after))
        kind = "partial echo" if number == 0 else "partial Fourier"
        notes.add(
            f"{kind} along the {_NAMES[number]}, {share:.2f} of k-space ({before} samples before "
            f"the center, {after} from the center on): unmeasured samples count as undersampled, "
            "and phase_constrained (--method phase-constrained) compensates for them if the image "
            "phase is smooth"
        )


def _encodings(places: Places) -> tuple[np.ndarray, np.ndarray]:
    return places.lines, places.partitions


def _gap(indices: np.ndarray) -> int:
    """Return the largest distance of neighbors, a tolerance for the ends of sampled k-space."""
    steps = np.diff(np.unique(indices))
    return int(steps.max()) if len(steps) else 1


def describe_oversampling(header: EncodingHeader, axis: Axis | None, notes: Notes) -> None:
    """Note oversampling that remains in the images.

    Args:
        header: Encoding of the image.
        axis: Axis along which the slices lie.
        notes: Notes to extend.
    """
    if header.encoded_fov is None or header.recon_fov is None:
        return
    for number in AXES[axis][:2]:
        encoded, wanted = header.encoded_fov[number], header.recon_fov[number]
        if number != 0 and encoded > 1.01 * wanted:
            notes.add(
                f"oversampling along the {_NAMES[number]} remains in the images: their field of "
                f"view is {encoded:g} mm, of which the scanner keeps {wanted:g} mm"
            )
