"""The place of a scan's images in the scanner."""

import h5py
import numpy as np
import pytest
import torch
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.io import read_scan, write_scan
from ctxrecon.scan import Scan, joined_affine

# Slices 6 mm apart along x, readout (y) 1.5 mm downwards, phase encoding (x) 2 mm backwards.
AFFINE = torch.tensor(
    [[0, 0, 6, -40], [0, -2, 0, 30], [-1.5, 0, 0, 70], [0, 0, 0, 1]], dtype=torch.float64
)


def scan(affine=AFFINE, **fields):
    kspace = torch.ones(4, 1, 6, 8, dtype=torch.complex64)
    return Scan(kspace, torch.ones(1, 1, 6, 8, dtype=torch.bool), affine=affine, **fields)


def test_the_voxel_size_follows_from_it():
    assert scan().voxel_size == (1.5, 2, 6)
    assert scan(voxel_size=(1.0, 1.0, 1.0)).voxel_size == (1.5, 2, 6)
    assert scan(None, voxel_size=(1.0, 1.0, 1.0)).voxel_size == (1, 1, 1)


@pytest.mark.parametrize("index", [0, 2, -1, slice(1, None), slice(None, None, 2)])
def test_chosen_slices_stay_where_they_are(index):
    chosen = scan()[index]
    whole = torch.arange(4)[index].reshape(-1)
    for new, old in enumerate(whole.tolist()):
        place = torch.tensor([3.0, 5.0, new, 1.0], dtype=torch.float64)
        before = torch.tensor([3.0, 5.0, old, 1.0], dtype=torch.float64)
        assert torch.equal(chosen.affine @ place, AFFINE @ before)


@pytest.mark.parametrize(
    "affine",
    [
        AFFINE.float(),
        AFFINE[:3],
        torch.full((4, 4), torch.nan, dtype=torch.float64),
        torch.zeros(4, 4, dtype=torch.float64),
        AFFINE[:, [0, 0, 2, 3]],
        AFFINE + 1,
    ],
)
def test_what_is_no_affine(affine):
    with pytest.raises(InputError, match="affine"):
        scan(affine)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_scan_files_keep_it(tmp_path, suffix):
    path = write_scan(tmp_path / f"scan{suffix}", scan())
    assert torch.equal(present(read_scan(path).affine), AFFINE)
    assert read_scan(path).voxel_size == (1.5, 2, 6)
    for index in (2, slice(1, None), slice(None, None, 2)):
        chosen = present(read_scan(path, slices=index).affine)
        assert torch.equal(chosen, present(scan()[index].affine))
    backwards = present(read_scan(path, slices=[3, 1]).affine)
    assert torch.equal(backwards[:, 2], -2 * AFFINE[:, 2])
    uneven = read_scan(path, slices=[0, 1, 3])
    assert uneven.affine is None
    assert uneven.voxel_size == (1.5, 2, 6)


def test_slices_read_one_by_one_give_that_of_the_volume():
    parts = [present(scan()[index].affine) for index in range(4)]
    assert torch.equal(present(joined_affine(parts)), AFFINE)
    assert torch.equal(present(joined_affine(parts[1:3])), present(scan()[1:3].affine))
    assert torch.equal(present(joined_affine(parts[:1])), AFFINE)
    assert joined_affine([*parts, None]) is None
    assert joined_affine([]) is None
    assert joined_affine(parts[:2] + parts[3:]) is None
    assert joined_affine([parts[0], parts[0]]) is None
    turned = parts[1].clone()
    turned[:, :2] = turned[:, [1, 0]]
    assert joined_affine([parts[0], turned]) is None


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("slices", [1, 4])
def test_scan_files_keep_calibration_lines(tmp_path, suffix, slices):
    lines = torch.randn(slices, 1, 4, 5, dtype=torch.complex64)
    path = write_scan(tmp_path / f"scan{suffix}", scan(calibration=lines))
    assert torch.equal(present(read_scan(path).calibration), lines)
    one = present(read_scan(path, slices=2).calibration)
    assert torch.equal(one, lines if slices == 1 else lines[2:3])


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_an_affine_that_cannot_be_is_refused(tmp_path, suffix):
    path = write_scan(tmp_path / f"scan{suffix}", scan())
    if suffix == ".h5":
        with h5py.File(path, "a") as file:
            file.attrs["ctxrecon_affine"] = np.ones((3, 3))
    else:
        np.savez(path, kspace=np.ones((4, 1, 6, 8), np.complex64), affine=np.zeros((4, 4)))
    with pytest.raises(InputError, match="affine"):
        read_scan(path)
