"""Slices of zeros in scan files, such as those beyond the ends of a body."""

from __future__ import annotations

import numpy as np
import pytest
from test_io_ismrmrd import write_raw

from ctxrecon.errors import InputError
from ctxrecon.io import read_scan, scan_info


def test_a_slice_of_zeros_is_read_and_a_file_of_zeros_is_not(tmp_path):
    volume = np.zeros((2, 4, 12, 10), np.complex64)
    volume[0] = 1
    np.save(tmp_path / "a.npy", volume)
    scan = read_scan(tmp_path / "a.npy", slices=1)
    assert not scan.kspace.any()
    assert scan.cartesian_mask.all()
    readouts = [
        {"data": factor * np.ones((2, 16)), "kspace_encode_step_1": line, "slice": factor}
        for factor in (0, 1)
        for line in range(8)
    ]
    path = write_raw(tmp_path / "raw.h5", readouts)
    assert not read_scan(path, slices=0).kspace.any()
    assert scan_info(write_raw(path, readouts[8:] + readouts[:8]))["acceleration"] == 1
    for slices in (None, 0):
        with pytest.raises(InputError, match="only zeros"):
            read_scan(write_raw(path, readouts[:8]), slices=slices)


def test_a_calibration_scan_of_zeros(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((1, 4, 12, 10), np.complex64))
    np.save(tmp_path / "zeros.npy", np.zeros((1, 4, 12, 10), np.complex64))
    with pytest.raises(InputError, match=r"zeros\.npy: .*calibration"):
        read_scan(tmp_path / "a.npy", calibration=tmp_path / "zeros.npy")


def test_a_slice_of_zeros_in_real_and_imaginary_parts(tmp_path):
    volume = np.random.default_rng(0).standard_normal((3, 3, 8, 8, 2)).astype(np.float32)
    volume[0] = 0
    np.save(tmp_path / "pairs.npy", volume)
    assert not read_scan(tmp_path / "pairs.npy", slices=0).kspace.any()
    np.save(tmp_path / "pairs.npy", np.abs(volume))
    with pytest.raises(InputError, match="no negative values"):
        read_scan(tmp_path / "pairs.npy", slices=1)
