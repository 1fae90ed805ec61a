"""Selection of the ISMRMRD readouts for the image and for its coil maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctxrecon.io._choice import Choice, nth
from ctxrecon.io._notes import Notes
from ctxrecon.io._readouts import (
    CALIBRATION,
    CALIBRATION_AND_IMAGING,
    NO_IMAGING,
    NOISE,
    Raw,
    has_flag,
    index_of,
)

COUNTERS = ("repetition", "contrast", "phase", "set", "average")
"""Counters of repeated measurements, as :class:`~ctxrecon.io._choice.Choice` names them."""

SEPARATE = {"separate", "external"}
"""Calibration modes whose lines are not part of the image's k-space."""


def roles(raw: Raw) -> tuple[np.ndarray, np.ndarray]:
    """Return which readouts belong to the image, and which to a separate calibration scan.

    Lines that have only the calibration flag are part of the image's k-space if the header states
    "embedded" or "interleaved". If it states nothing, they are unless the image has lines at the
    same positions. Lines of another encoding space never are.
    """
    heads = raw.heads
    plain = ~has_flag(heads, NOISE | NO_IMAGING)
    here = heads["encoding_space_ref"] == raw.space
    alone = plain & has_flag(heads, CALIBRATION) & ~has_flag(heads, CALIBRATION_AND_IMAGING)
    imaging, alone_here = plain & here & ~alone, alone & here
    calibration = plain & ~here & has_flag(heads, CALIBRATION | CALIBRATION_AND_IMAGING)
    if not imaging.any():  # the file contains only calibration lines
        return alone_here, calibration
    if alone_here.any() and _are_separate(raw, alone_here, imaging):
        return imaging, calibration | alone_here
    if raw.header.calibration_mode in SEPARATE and not calibration.any():
        calibration = plain & ~here
    return imaging | alone_here, calibration


def select(path: Path, raw: Raw, choice: Choice, notes: Notes) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the image, and the rows of a separate calibration scan.

    Args:
        path: File name for messages.
        raw: Content of the file.
        choice: Selected measurement.
        notes: Notes to extend.

    Returns:
        Rows of the image, and rows of the calibration scan, empty if there is none.
    """
    imaging, calibration = roles(raw)
    left_out = int((~imaging & ~calibration).sum())
    if left_out:
        notes.add(
            f"{left_out} of {len(raw.heads)} readouts are noise, navigators or of another "
            "encoding, and are not part of the image"
        )
    chosen, lines = np.flatnonzero(imaging), np.flatnonzero(calibration)
    for name in COUNTERS:
        chosen, lines = _pick(path, raw, (chosen, lines), name, getattr(choice, name), notes)
    present, there = (
        len(np.unique(index_of(raw, rows, "slice"))) for rows in (chosen, np.flatnonzero(imaging))
    )
    if present < there:
        notes.add(f"the selected measurement has {present} of the {there} slices in the file")
    mode = raw.header.calibration_mode
    if len(lines):
        notes.add(f"{len(lines)} readouts of a separate calibration scan are used for coil maps")
    elif mode in SEPARATE:
        notes.add(
            f"the header states {mode} calibration, but the file has no such lines: give "
            "calibration or coil_maps unless the image itself has a fully sampled center"
        )
    return chosen, lines


def _are_separate(raw: Raw, alone: np.ndarray, imaging: np.ndarray) -> bool:
    """Return whether lines that have only the calibration flag are not part of the image."""
    mode = raw.header.calibration_mode
    if mode in SEPARATE:
        return True
    if mode in {"embedded", "interleaved"}:
        return False
    places = [
        np.stack(
            [
                index_of(raw, np.flatnonzero(rows), name)
                for name in ("slice", "kspace_encode_step_1", "kspace_encode_step_2")
            ],
            axis=1,
        )
        for rows in (alone, imaging)
    ]
    of_calibration, of_image = ({tuple(place) for place in each.tolist()} for each in places)
    return not of_calibration.isdisjoint(of_image)


def _pick(
    path: Path,
    raw: Raw,
    rows: tuple[np.ndarray, np.ndarray],
    name: str,
    number: int | None,
    notes: Notes,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of image and calibration scan with the selected value of a counter."""
    chosen, lines = rows
    values = index_of(raw, chosen, name)
    count = len(np.unique(values))
    if number is None:
        if count > 1:
            notes.add(f"the mean of {count} {name}s is read")
        return rows
    value = nth(path, values, number, name)
    if count > 1:
        notes.add(f"{name} {number} of 0 to {count - 1} is read")
    if len(lines):
        of_lines = index_of(raw, lines, name)
        lines = lines[of_lines == (value if value in of_lines else of_lines.min())]
    return chosen[values == value], lines
