"""NIfTI: images where the scanner measured them, and parts of complex ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from places import PLACES, SHAPE, assert_in_place, images

from ctxrecon.errors import InputError
from ctxrecon.io import write_image
from ctxrecon.io.volumes import read_volume

nibabel = pytest.importorskip("nibabel")

LETTERS = {
    "axial": "LPS",
    "sagittal": "PIR",
    "sagittal, from the right": "PIL",
    "coronal": "LIA",
    "oblique": "LPS",
    "oblique, from the head": "LPI",
}
"""Where the stored axes (x, y, slice) run to."""


@pytest.mark.parametrize("name", PLACES)
def test_images_lie_where_they_were_measured(tmp_path, name):
    affine = PLACES[name]
    (path,) = write_image(tmp_path / "a.nii.gz", images(affine), affine=torch.tensor(affine))
    loaded = nibabel.load(path)
    assert "".join(nibabel.aff2axcodes(loaded.affine)) == LETTERS[name]
    header = loaded.header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_zooms(), (2, 1.5, 6), rtol=1e-6)
    volume = loaded.get_fdata()
    assert volume.shape == SHAPE[::-1]
    assert_in_place(volume, header.get_sform())
    assert_in_place(volume, header.get_qform())


def test_slices_stacked_obliquely_have_an_sform_alone(tmp_path):
    affine = PLACES["axial"].copy()
    affine[1, 2] = 3.0  # each slice 3 mm further to the front
    (path,) = write_image(tmp_path / "a.nii", images(affine), affine=affine)
    loaded = nibabel.load(path)
    assert (int(loaded.header["qform_code"]), int(loaded.header["sform_code"])) == (0, 1)
    assert_in_place(loaded.get_fdata(), loaded.affine)


def test_parts_of_complex_images(tmp_path):
    values = torch.polar(torch.rand(2, 4, 3) + 1, 6 * torch.rand(2, 4, 3) - 3)
    found = {}
    for part in ("magnitude", "phase", "complex"):
        (path,) = write_image(tmp_path / f"{part}.nii", values, part=part)
        loaded = nibabel.load(path)
        assert loaded.get_data_dtype() == (np.complex64 if part == "complex" else np.float32)
        found[part] = np.asarray(loaded.dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(found["complex"], values.numpy())
    np.testing.assert_allclose(found["magnitude"], values.abs(), rtol=1e-6)
    np.testing.assert_allclose(found["phase"], values.angle(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.nii", {"part": "real"}, "phase or complex"),
        ("a.png", {"part": "phase"}, "only NIfTI"),
        ("a.npy", {"affine": np.eye(4)}, "only NIfTI"),
        ("a.nii", {"affine": np.zeros((4, 4))}, "affine"),
        ("a.nii", {"affine": np.eye(3)}, "affine"),
    ],
)
def test_what_no_image_has(tmp_path, name, options, words):
    with pytest.raises(InputError, match=words):
        write_image(tmp_path / name, np.ones((2, 4, 4)), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("unit", "in_mm"), [("meter", 1000.0), ("micron", 0.001), ("mm", 1.0)])
def test_sizes_in_other_units_than_mm(tmp_path, unit, in_mm):
    image = nibabel.Nifti1Image(np.ones((8, 8, 3), np.float32), np.diag([2, 2, 5, 1]) / in_mm)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    found = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(found.voxel_size, (2, 2, 5), rtol=1e-5)
