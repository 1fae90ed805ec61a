"""What the places of readouts say about a scan: partial Fourier, partial echoes, oversampling."""

from __future__ import annotations

import numpy as np

from ctxrecon.io._cartesian import AXES, Axis, Places
from ctxrecon.io._header import EncodingHeader
from ctxrecon.io._notes import Notes

_NAMES = ("readout", "phase encoding", "partition encoding")


def describe_sampling(places: Places, axis: Axis | None, notes: Notes) -> None:
    """Note partial echoes, partial Fourier and reversed readouts.

    Args:
        places: of the readouts.
        axis: along which the slices lie.
        notes: of what is done.
    """
    if places.turned.any():
        notes.add(f"{int(places.turned.sum())} readouts measured in reverse are turned")
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
            f"the center, {after} from it on): what was not measured counts as undersampled, and "
            "phase_constrained (--method phase-constrained) makes up for it where the phase is "
            "smooth"
        )


def _encodings(places: Places) -> tuple[np.ndarray, np.ndarray]:
    return places.lines, places.partitions


def _gap(indices: np.ndarray) -> int:
    """The largest distance of neighbours, by which the ends of undersampled k-space may differ."""
    steps = np.diff(np.unique(indices))
    return int(steps.max()) if len(steps) else 1


def describe_oversampling(header: EncodingHeader, axis: Axis | None, notes: Notes) -> None:
    """Note oversampling that stays in the images.

    Args:
        header: the encoding of the image.
        axis: along which the slices lie.
        notes: of what is done.
    """
    if header.encoded_fov is None or header.recon_fov is None:
        return
    for number in AXES[axis][:2]:
        encoded, wanted = header.encoded_fov[number], header.recon_fov[number]
        if number != 0 and encoded > 1.01 * wanted:
            notes.add(
                f"oversampling along the {_NAMES[number]} stays in the images: their field of view "
                f"is {encoded:g} mm, of which the scanner keeps {wanted:g} mm"
            )
