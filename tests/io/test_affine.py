"""The place of a scan's images in the scanner."""

import pytest
import torch

from ctxrecon.errors import InputError
from ctxrecon.scan import Scan

# Slices 6 mm apart along x, readout (y) 1.5 mm downwards, phase encoding (x) 2 mm backwards.
AFFINE = torch.tensor(
    [[0, 0, 6, -40], [0, -2, 0, 30], [-1.5, 0, 0, 70], [0, 0, 0, 1]], dtype=torch.float64
)


def scan(affine=AFFINE, **fields):
    kspace = torch.zeros(4, 1, 6, 8, dtype=torch.complex64)
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
