"""Siemens raw data ``.dat`` (twix), of the software VB, VD, VE and XA.

Each readout states its line, partition, slice, echo and so on; they are sorted into
``(slices, coils, ny, nx)`` with the readout along ``ny``. The samples are kept as they are stored,
by the convention of the scanner, whose image grows against the directions of its gradients; the
affine says so (as ``geometry.py`` of twixtools does).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ctxrecon.coils import whitening_matrix
from ctxrecon.errors import InputError
from ctxrecon.files import check_expansion
from ctxrecon.io._arrays import (
    SliceChoice,
    build_scan,
    pick_slices,
    remove_oversampling,
    slices_along_readout,
)
from ctxrecon.io._choice import Choice, nth
from ctxrecon.io._reader import Layout
from ctxrecon.io._siemens_protocol import (
    check_supported,
    is_pulseq,
    metadata_of,
    rotation,
    slice_affine,
    voxel_size_of,
)
from ctxrecon.io._twix import Measurement, read_measurements
from ctxrecon.scan import Scan

logger = logging.getLogger(__name__)

_FIRST = Choice()
_NOISE, _REFERENCE, _BOTH = "NOISEADJSCAN", "PATREFSCAN", "PATREFANDIMASCAN"
_NO_IMAGE = (
    _NOISE,
    "RTFEEDBACK",
    "HPFEEDBACK",
    "REFPHASESTABSCAN",
    "PHASESTABSCAN",
    "PHASCOR",
    "SLICE_ACCEL_REFSCAN",
    "SLICE_ACCEL_PHASCOR",
    "RETRO_DUMMYSCAN",
    "B1_CONTROLLOOP",
)
_IN_PLACE = 2  # the protocol's mode of reference lines that lie between those of the image


@dataclass(frozen=True)
class _Plan:
    """Which readouts make the slices, and where they lie.

    Attributes:
        rows: the chosen readouts.
        slices: number of the slice of each.
        lines: place along ``nx`` of each.
        partitions: place of each.
        starts: place along ``ny`` of the first sample of each, in the order of ``ny``.
        shape: (slices, coils, ny, nx, partitions).
        order: the slices' counters in the order of their places.
        contrasts: how many there are.
        repetitions: how many there are.
    """

    rows: np.ndarray
    slices: np.ndarray
    lines: np.ndarray
    partitions: np.ndarray
    starts: np.ndarray
    shape: tuple[int, int, int, int, int]
    order: list[int]
    contrasts: int
    repetitions: int


def siemens_shape(path: Path, *, crop_readout: bool = True, choice: Choice = _FIRST) -> Layout:
    """(slices, coils, ny, nx), dtype, and how many contrasts and repetitions there are.

    ``ny`` counts the readout oversampling; of a 3-D scan its slices do not, if it is cropped.
    """
    scan = read_measurements(path)[-1]
    plan = _plan(path, scan, choice)
    slices, coils, ny, nx, partitions = plan.shape
    layout = (slices, coils, ny, nx)
    if partitions > 1:
        layout = (_kept_readout(path, scan, plan, crop_readout), coils, nx, partitions)
    stated = {"contrasts": plan.contrasts, "repetitions": plan.repetitions}
    return layout, np.dtype(np.complex64), stated


def read_siemens(
    path: Path,
    slices: SliceChoice = None,
    *,
    crop_readout: bool = True,
    prewhiten: bool = True,
    choice: Choice = _FIRST,
) -> tuple[Scan, Tensor | None]:
    """Sort the readouts of the last measurement of a file into slices.

    Lines measured several times are averaged. The slices come in the order of their places. Of
    three-dimensional data the slices lie along the readout, which is fully sampled.

    Args:
        path: the ``.dat`` file.
        slices: which slices.
        crop_readout: crop the readout oversampling that the protocol states; left undone (and
            logged) for asymmetric echoes, whose missing samples would not stay zero.
        prewhiten: decorrelate the coils by the noise readouts.
        choice: which contrast, repetition and so on.

    Returns:
        The scan, and the matrix ``(coils, coils)`` that prewhitened its coils, if any.
    """
    measurements = read_measurements(path)
    scan = measurements[-1]
    if len(measurements) > 1:
        logger.info("%s: the last of %d measurements is read", path, len(measurements))
    plan = _plan(path, scan, choice)
    noise_std, whitening = _noise(path, measurements, plan.shape[1], prewhiten)
    volume = plan.shape[4] > 1
    kept = _kept_readout(path, scan, plan, crop_readout)
    chosen = pick_slices(path, slices, kept if volume else plan.shape[0])
    kspace, count = _sort(path, scan, plan, range(plan.shape[0]) if volume else chosen)
    if noise_std is not None:
        noise_std /= float(np.sqrt(np.median(count[count > 0])))
    if whitening is not None:
        kspace = np.einsum("dc,bcyxz->bdyxz", whitening.numpy(), kspace, optimize=True)
    _, _, ny, nx, _ = plan.shape
    metadata = metadata_of(path, scan, choice.contrast, chosen)
    if volume:
        kspace = slices_along_readout(path, kspace[0], kept, chosen)
        logger.info("%s: the slices of this 3-D scan lie along its readout, no affine", path)
        return build_scan(path, kspace, metadata=metadata, noise_std=noise_std), whitening
    kspace = kspace[..., 0]
    if kept < ny:
        kspace = remove_oversampling(path, kspace, kept)
    result = build_scan(
        path,
        kspace,
        metadata=metadata,
        noise_std=noise_std,
        voxel_size=voxel_size_of(scan, ny, nx),
    )
    affine = slice_affine(path, scan, _places(scan, plan, chosen), result)
    return (result if affine is None else replace(result, affine=affine)), whitening


def _plan(path: Path, scan: Measurement, choice: Choice) -> _Plan:
    check_supported(path, scan)
    table = scan.readouts
    rows = np.flatnonzero(_images(path, scan))
    if len(rows) == 0:
        raise InputError(
            f"{path}: none of its {len(table.flags)} readouts is of an image: it holds "
            "adjustments only, or is damaged"
        )
    counters = {name: values.copy() for name, values in table.counters.items()}
    columns = int(table.sizes[rows, 1].max())
    if is_pulseq(scan):
        _label_echoes(path, scan, counters, rows, columns)
    counts = {name: len(np.unique(counters[name][rows])) for name in ("contrast", "repetition")}
    for name in ("repetition", "contrast", "phase", "set", "average"):
        number = getattr(choice, name)
        if number is None:
            continue
        values = counters[name][rows]
        rows = rows[values == nth(path, values, number, name)]
        if (total := len(np.unique(values))) > 1:
            logger.info("%s: %s %d (of 0 to %d) is read", path, name, number, total - 1)
    coils = np.unique(table.sizes[rows, 0])
    if len(coils) != 1 or table.sizes[rows].min() < 1:
        raise InputError(
            f"{path}: expected readouts of the same coils with samples, got {coils.tolist()} coils "
            f"with {table.sizes[rows, 1].min()} samples or more"
        )
    ny, starts = _columns(scan, rows)
    nx, lines = _places_along(counters["line"][rows], table.centers[rows, 1])
    nz, partitions = _places_along(counters["partition"][rows], table.centers[rows, 2])
    order = _spatial_order(scan, rows)
    if min(ny, nx) < 2:
        raise InputError(f"{path}: expected 2-D k-space, got {nx} lines of {ny} samples")
    if nz > 1 and len(order) > 1:
        raise InputError(
            f"{path}: it holds {len(order)} slabs of a 3-D scan, and one is read: convert it with "
            "siemens_to_ismrmrd and cut the slabs apart"
        )
    return _Plan(
        rows,
        table.counters["slice"][rows],
        lines,
        partitions,
        starts,
        (len(order), int(coils[0]), ny, nx, nz),
        order,
        counts["contrast"],
        counts["repetition"],
    )


def _images(path: Path, scan: Measurement) -> np.ndarray:
    """Which readouts are of the image, ``(readouts,)`` bool."""
    table = scan.readouts
    images = ~table.having(*_NO_IMAGE)
    reference = table.having(_REFERENCE) & ~table.having(_BOTH)
    if scan.number("sPat.ucRefScanMode", "ucRefScanMode") == _IN_PLACE:
        return images
    if bool((images & reference).any()):
        logger.warning(
            "%s: %d separate calibration readouts are left out", path, (images & reference).sum()
        )
    if bool(table.having("PHASCOR").any()):
        logger.warning("%s: readouts of both directions are not corrected for each other", path)
    return images & ~reference


def _label_echoes(
    path: Path,
    scan: Measurement,
    counters: dict[str, np.ndarray],
    rows: np.ndarray,
    columns: int,
) -> None:
    """Tell the echoes of a Pulseq sequence apart that only counts its readouts.

    So many times as many readouts as a readout has samples, numbered one after the other and
    nothing else, are as many echoes; which readouts are of one echo follows from where the energy
    of k-space lies.
    """
    lines = counters["line"][rows]
    echoes, rest = divmod(len(rows), max(columns, 1))
    others = any(np.any(counters[name][rows]) for name in counters if name != "line")
    if others or rest or echoes < 2 or not np.array_equal(np.sort(lines), np.arange(len(rows))):
        return
    file = np.memmap(path, np.uint8, "r")
    energy = np.array([np.sum(np.abs(scan.readouts.samples(file, row)) ** 2) for row in rows])
    middle = max(columns // 16, 1)
    by_turns = np.abs(lines // echoes - columns // 2) <= middle
    in_blocks = np.abs(lines % columns - columns // 2) <= middle
    interleaved = energy[by_turns].sum() >= energy[in_blocks].sum()
    line, echo = np.divmod(lines, echoes) if interleaved else np.divmod(lines, columns)[::-1]
    counters["line"][rows], counters["contrast"][rows] = line, echo
    logger.warning(
        "%s: its Pulseq sequence counts %d readouts of %d samples and no echoes: they are taken as "
        "%d echoes %s",
        path,
        len(rows),
        columns,
        echoes,
        "by turns" if interleaved else "one after the other",
    )


def _places_along(counter: np.ndarray, center: np.ndarray) -> tuple[int, np.ndarray]:
    """The size of an axis with zero frequency at half of it, and the places of the readouts."""
    zero = int(center.max())
    last = int(counter.max())
    if zero == 0 or zero > last:  # not stated: the lines are those of a whole axis
        return last + 1, counter
    size = _size(zero, last + 1 - zero)
    return size, counter - zero + size // 2


def _columns(scan: Measurement, rows: np.ndarray) -> tuple[int, np.ndarray]:
    """The size of the readout with zero frequency at half of it, and where each readout starts."""
    table = scan.readouts
    samples = table.sizes[rows, 1]
    center = table.centers[rows, 0]
    center = np.where((center == 0) | (center >= samples), samples // 2, center)
    reflected = table.having("REFLECT")[rows]
    # Reversed, sample c of n is the (n - 1 - c)-th; one convention, n / 2, has it stay there.
    center = np.where(reflected & (center != samples // 2), samples - 1 - center, center)
    ny = _size(int(center.max()), int((samples - center).max()))
    return ny, ny // 2 - center


def _size(before: int, after: int) -> int:
    """Of an axis with so many samples before zero frequency, and from it on."""
    return before + after if after - before in {0, 1} else 2 * max(before, after)


def _spatial_order(scan: Measurement, rows: np.ndarray) -> list[int]:
    """The slices' counters in the order of their places along the normal."""
    table = scan.readouts
    numbers, first = np.unique(table.counters["slice"][rows], return_index=True)
    normal = rotation(table.quaternions[rows[0]])[:, 2]
    along = table.positions[rows[first]] @ normal
    return [int(numbers[i]) for i in np.argsort(along, kind="stable")]


def _sort(
    path: Path, scan: Measurement, plan: _Plan, chosen: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(slices, coils, ny, nx, partitions) of those slices, averaged, and how often each line was
    measured."""
    _, coils, ny, nx, nz = plan.shape
    shape = (len(chosen), coils, ny, nx, nz)
    check_expansion(path, 8 * prod(shape), path.stat().st_size, f"k-space of shape {shape}")
    kspace = np.zeros(shape, np.complex64)
    count = np.zeros((len(chosen), nx, nz), np.int64)
    table = scan.readouts
    reflected = table.having("REFLECT")
    file = np.memmap(path, np.uint8, "r")
    for position, number in enumerate(chosen):
        for index in np.flatnonzero(plan.slices == plan.order[number]):
            row = plan.rows[index]
            samples = table.samples(file, row)
            before, after = (int(cut) for cut in table.cuts[row])
            samples[:, :before] = 0
            samples[:, samples.shape[1] - after :] = 0
            if reflected[row]:
                samples = samples[:, ::-1]
            start, line, partition = plan.starts[index], plan.lines[index], plan.partitions[index]
            with np.errstate(invalid="ignore", over="ignore"):  # refused where it is not finite
                kspace[position, :, start : start + samples.shape[1], line, partition] += samples
            count[position, line, partition] += 1
    times = np.unique(count[count > 0])
    if len(times) > 1:
        logger.info("%s: lines were measured %d to %d times", path, times[0], times[-1])
    return kspace / np.maximum(count, 1)[:, None, None].astype(np.float32), count


def _kept_readout(path: Path, scan: Measurement, plan: _Plan, crop: bool) -> int:
    """The pixels of the readout, without its oversampling if it is cropped."""
    ny = plan.shape[2]
    kept = max(round(ny / max(scan.number("flReadoutOSFactor") or 1.0, 1.0)), 2)
    if not crop or kept >= ny:
        return ny
    table = scan.readouts
    if (table.sizes[plan.rows, 1] != ny).any() or table.cuts[plan.rows].any():
        logger.info("%s: readout oversampling is kept because echoes are asymmetric", path)
        return ny
    return kept


def _noise(
    path: Path, measurements: list[Measurement], coils: int, prewhiten: bool
) -> tuple[float | None, Tensor | None]:
    """Noise of a sample of the image by the noise readouts, and the matrix that whitens the coils.

    As of ISMRMRD files: the matrix keeps the units of k-space, and noise power goes with the
    bandwidth, 1 / dwell time. The level is unknown where the noise readouts are part of the scan,
    whose protocol does not state their dwell time.
    """
    samples, level = [], None
    file = np.memmap(path, np.uint8, "r")
    dwell = measurements[-1].number("sRXSPEC.alDwellTime[0]")
    for measurement in measurements:
        table = measurement.readouts
        rows = np.flatnonzero(table.having(_NOISE) & (table.sizes[:, 0] == coils))
        samples += [table.samples(file, row) for row in rows]
        theirs = measurement.number("sRXSPEC.alDwellTime[0]")
        if len(rows) and dwell and theirs and measurement is not measurements[-1]:
            level = theirs / dwell
    if not samples:
        return None, None
    noise = np.concatenate(samples, axis=1)
    power = float(np.mean(np.abs(noise.astype(np.complex128)) ** 2)) if noise.size else 0.0
    if not (np.isfinite(power) and power > 0):
        logger.warning("%s: its noise readouts are zero or not finite, and are left out", path)
        return None, None
    noise_std = None if level is None else float(np.sqrt(power * level))
    if not prewhiten:
        return noise_std, None
    try:
        matrix = power**0.5 * whitening_matrix(torch.from_numpy(noise))
    except InputError as error:
        logger.warning("%s: the coils are not prewhitened: %s", path, error)
        return noise_std, None
    logger.info("%s: coils prewhitened by %d noise samples", path, noise.shape[1])
    return noise_std, matrix.to(torch.complex64)


def _places(scan: Measurement, plan: _Plan, chosen: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions (slices, 3) and quaternions (slices, 4) of those slices."""
    rows = [plan.rows[np.argmax(plan.slices == plan.order[number])] for number in chosen]
    return scan.readouts.positions[rows], scan.readouts.quaternions[rows]
