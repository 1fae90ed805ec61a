"""ISMRMRD raw data: where the images lie in the patient."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from narrow import present
from simulated_scanner import OBLIQUE, Scanner
from test_io_ismrmrd import write_raw

from ctxrecon.fourier import ifft2c
from ctxrecon.io import read_scan

CENTER = np.array([12.0, -30.0, 55.0])
FLAT = Scanner(np.zeros((1, 3)), np.ones(1), (24, 16, 1), (96.0, 48.0, 5.0))


def marked(scanner: Scanner, *offsets: tuple[float, float, float]) -> Scanner:
    """With points at these mm from the center along the axes, the first the brightest."""
    points = CENTER + np.array(offsets) @ scanner.axes
    return replace(scanner, points=points, density=1 / np.arange(1, len(offsets) + 1))


def brightest(scan) -> torch.Tensor:
    """The place of the brightest pixel, in RAS+ mm."""
    images = ifft2c(scan.kspace)[:, 0].abs()
    s, y, x = np.unravel_index(int(images.argmax()), tuple(images.shape))
    return (present(scan.affine) @ torch.tensor([y, x, s, 1], dtype=torch.float64))[:3]


def to_ras(point: np.ndarray) -> list[float]:
    return [-point[0], -point[1], point[2]]


@pytest.mark.parametrize("axes", [OBLIQUE, -OBLIQUE[[1, 0, 2]], np.eye(3)])
@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize(("vendor", "sign"), [("", -1), ("GE", -1), ("SIEMENS", 1)])
def test_a_marker_is_found_where_it_was(tmp_path, axes, crop, vendor, sign):
    scanner = marked(
        replace(FLAT, axes=axes, sign=sign), (16.0, 12.0, 0.0), (-8.0, 6.0, 0.0), (-12.0, -9.0, 0.0)
    )
    path = tmp_path / "raw.h5"
    xml = scanner.header((48.0, 48.0, 5.0), vendor)
    write_raw(path, scanner.readouts(CENTER), xml)
    scan = read_scan(path, crop_readout=crop)
    assert scan.image_shape == ((12 if crop else 24), 16)
    assert scan.voxel_size == pytest.approx((4, 3, 5))
    assert brightest(scan).tolist() == pytest.approx(to_ras(scanner.points[0]), abs=1e-3)


def slices(scanner: Scanner, places: Mapping[int, float], **fields) -> list[dict]:
    """Readouts of slices with these numbers at these mm along the slice direction."""
    readouts = []
    for number, offset in places.items():
        center = CENTER + offset * scanner.axes[2]
        bright = replace(scanner, density=scanner.density * (20 + offset))
        readouts += bright.readouts(center, slice=number, **fields)
    return readouts


def test_slices_lie_as_far_apart_as_their_positions(tmp_path):
    path = write_raw(tmp_path / "raw.h5", slices(FLAT, {0: -7, 1: 0, 2: 7, 3: 14}), FLAT.header())
    scan = read_scan(path)
    assert scan.voxel_size == pytest.approx((4, 3, 7))
    affine = present(scan.affine)
    for chosen in ([1], [2, 3], [3, 1], [0, 1, 2, 3]):
        part = present(read_scan(path, slices=chosen).affine)
        for position, number in enumerate(chosen):
            place = torch.tensor([[5, 6, n, 1] for n in (position, number)], dtype=torch.float64)
            torch.testing.assert_close(part @ place[0], affine @ place[1])
    assert read_scan(path, slices=[0, 1, 3]).affine is None


def test_interleaved_slices_are_sorted_by_their_positions(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    order = {0: -14, 1: 0, 2: 14, 3: -7, 4: 7}
    path = write_raw(tmp_path / "raw.h5", slices(FLAT, order), FLAT.header())
    scan = read_scan(path)
    assert "sorted by position" in caplog.text
    strength = scan.kspace.abs().amax(dim=(1, 2, 3))
    assert (strength.diff() > 0).all()
    assert scan.voxel_size == pytest.approx((4, 3, 7))
    assert [item.slice for item in scan.metadata] == [0, 1, 2, 3, 4]
    backwards = {number: -offset for number, offset in enumerate((-7, 0, 7))}
    write_raw(path, slices(FLAT, backwards), FLAT.header())
    scan = read_scan(path)
    assert (scan.kspace.abs().amax(dim=(1, 2, 3)).diff() < 0).all()
    assert present(scan.affine)[2, 2] * OBLIQUE[2, 2] < 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: {"read_dir": np.zeros(3)}, "orthonormal"),
        (lambda r: {"phase_dir": r["read_dir"]}, "orthonormal"),
        (lambda r: {"position": np.full(3, np.nan)}, "finite"),
        (lambda r: {"position": r["position"] + r["kspace_encode_step_1"]}, "differ"),
        (lambda r: {"position": CENTER}, "equally spaced"),
        (lambda r: {"position": CENTER + r["slice"] ** 2}, "equally spaced"),
        (lambda r: {"slice_dir": -r["slice_dir"]} if r["slice"] else {}, "not parallel"),
    ],
)
def test_a_place_that_is_not_known(tmp_path, caplog, change, reason):
    caplog.set_level(logging.INFO)
    readouts = [{**r, **change(r)} for r in slices(FLAT, {0: -7, 1: 0, 2: 7})]
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts, FLAT.header()))
    assert scan.affine is None
    assert scan.voxel_size == pytest.approx((4, 3, 5))
    assert reason in caplog.text


DEEP = Scanner(np.zeros((1, 3)), np.ones(1), (16, 12, 8), (64.0, 36.0, 40.0))


@pytest.mark.parametrize("vendor", ["", "Siemens"])
@pytest.mark.parametrize("kept", ["all", "partition", "phase", "readout"])
def test_a_marker_in_a_volume_is_found_where_it_was(tmp_path, vendor, kept):
    scanner = marked(replace(DEEP, sign=1 if vendor else -1), (12.0, -9.0, 10.0), (-8.0, 6.0, 5.0))
    undersampled = {
        "all": lambda line, partition: True,
        "partition": lambda line, partition: line != 1,
        "phase": lambda line, partition: partition != 1,
        "readout": lambda line, partition: (line + partition) % 7 or line == 6,
    }[kept]
    _, ny, nz = DEEP.matrix
    places = [(n, p) for n in range(ny) for p in range(nz) if undersampled(n, p)]
    path = tmp_path / "raw.h5"
    write_raw(path, scanner.readouts(CENTER, places), scanner.header(vendor=vendor))
    scan = read_scan(path)
    shapes = {"phase": (12, 16, 8), "readout": (16, 8, 12)}
    assert (len(scan), *scan.image_shape) == shapes.get(kept, (8, 16, 12))
    assert brightest(scan).tolist() == pytest.approx(to_ras(scanner.points[0]), abs=1e-3)
    assert bool(scan.cartesian_mask.all()) == (kept == "all")
    for number in (0, 3):
        one = read_scan(path, slices=number)
        torch.testing.assert_close(one.kspace, scan.kspace[number : number + 1])
        torch.testing.assert_close(present(one.affine), present(scan[number].affine))


@pytest.mark.parametrize("vendor", ["", "Siemens"])
@pytest.mark.parametrize("step", [40.0, -40.0])
def test_slabs_that_adjoin_have_a_common_place(tmp_path, vendor, step):
    scanner = marked(replace(DEEP, sign=1 if vendor else -1), (12.0, -9.0, 10.0))
    faint = replace(scanner, density=scanner.density * 0.1)
    readouts = scanner.readouts(CENTER)
    readouts += faint.readouts(CENTER + step * OBLIQUE[2], slice=1)
    path = write_raw(tmp_path / "raw.h5", readouts, scanner.header(vendor=vendor))
    scan = read_scan(path)
    assert len(scan) == 16
    assert brightest(scan).tolist() == pytest.approx(to_ras(scanner.points[0]), abs=1e-3)
    part = read_scan(path, slices=[2, 3, 4])
    torch.testing.assert_close(part.kspace, scan.kspace[2:5])
    torch.testing.assert_close(present(part.affine), present(scan[2:5].affine))
