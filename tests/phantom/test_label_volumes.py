"""Label volumes that would give wrong anatomies are refused."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from ctxrecon.errors import InputError
from ctxrecon.phantom import load_label_volume

nibabel = pytest.importorskip("nibabel")
LABELS = np.random.default_rng(0).integers(0, 99, (12, 12, 12)).astype(np.int16)


@pytest.mark.parametrize("edges", [(0.5, 0.5, 0.5), (1, 1, 3)])
def test_voxels_of_another_size_than_1_mm(tmp_path, edges):
    nibabel.save(nibabel.Nifti1Image(LABELS, np.diag([*edges, 1])), tmp_path / "a.nii")
    with pytest.raises(InputError, match=r"voxels of 1 mm, a\.nii has .* resample"):
        load_label_volume(tmp_path / "a.nii")


def test_voxels_of_1_mm_in_another_unit(tmp_path):
    image = nibabel.Nifti1Image(LABELS, np.diag([1e-3, 1e-3, 1e-3, 1]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "a.nii")
    assert load_label_volume(tmp_path / "a.nii").shape == (12, 12, 12)


def test_a_wrong_checksum(tmp_path):
    packed = bytearray(gzip.compress(nibabel.Nifti1Image(LABELS, np.eye(4)).to_bytes()))
    packed[-8] ^= 1  # the checksum of the gzip stream
    (tmp_path / "a.nii.gz").write_bytes(packed)
    with pytest.raises(InputError, match="CRC"):
        load_label_volume(tmp_path / "a.nii.gz")


def test_labels_without_a_tissue_are_reported(tmp_path, caplog):
    labels = np.zeros((12, 12, 12), np.int16)
    labels[3:9, 3:9, 3:9] = 2
    labels[4, 4, 4:6] = 600
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "a.nii")
    load_label_volume(tmp_path / "a.nii")
    assert "a.nii has labels without a known tissue, which become air: 600 (2 " in caplog.text


@pytest.mark.parametrize("label", [27, 59, 77, 78, 79, 80, 81, 82])
def test_hypointensities_and_substantia_nigra_have_a_tissue(tmp_path, caplog, label):
    labels = np.full((12, 12, 12), 2, np.int16)
    labels[4:8, 4:8, 4:8] = label
    nibabel.save(nibabel.Nifti1Image(labels, np.eye(4)), tmp_path / "a.nii")
    load_label_volume(tmp_path / "a.nii")
    assert not caplog.text
