"""Images and scans that cannot be written."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_io_ismrmrd import phantom

from ctxrecon.errors import InputError
from ctxrecon.io import DicomHeader, read_scan, write_image, write_scan
from ctxrecon.scan import Scan

K = phantom()
IMAGE = np.ones((2, 4, 4), np.complex64)


@pytest.mark.parametrize(
    ("name", "images", "options", "sentence"),
    [
        ("no/such/image.npy", IMAGE, {}, "folder .*no/such"),
        ("image.jpg", IMAGE, {}, r"\.png, got \.jpg"),
        ("image", IMAGE, {}, "got no extension"),
        ("folder.npy", IMAGE, {}, "a device"),
        ("image.npy", IMAGE[None], {}, r"got shape \(1, 2, 4, 4\)"),
        ("image.npy", np.array([[["a"]]]), {}, "images .*shape"),
        ("image.png", IMAGE * np.nan, {}, "not finite"),
        ("image.nii", IMAGE, {"voxel_size": (1, 0, 1)}, "three numbers"),
        ("image.png", IMAGE, {"voxel_size": (1, 1, 1)}, "NIfTI"),
        ("image.npy", IMAGE, {"montage": True}, "only PNG"),
        ("image.nii", IMAGE, {"montage": True}, "only PNG"),
        ("image.png", IMAGE, {"single_frames": True}, "only DICOM"),
        ("image.nii.gz", IMAGE, {"header": DicomHeader()}, "only DICOM"),
    ],
)
def test_images_that_cannot_be_written(tmp_path, name, images, options, sentence):
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(InputError, match=sentence):
        write_image(tmp_path / name, images, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npy"]


def test_scan_needs_a_format_that_holds_it_all(tmp_path):
    scan = Scan(torch.from_numpy(K)[None], torch.ones(1, 1, 16, 8, dtype=torch.bool))
    with pytest.raises(InputError, match=r"\.npz .* \.cfl"):
        write_scan(tmp_path / "scan.cfl", scan)


@pytest.mark.parametrize("name", ["scan.npz", "scan.h5"])
def test_a_scan_of_zeros_is_not_written_because_it_cannot_be_read(tmp_path, name):
    kspace = torch.zeros(1, 1, 16, 8, dtype=torch.complex64)
    with pytest.raises(InputError, match="only zeros"):
        write_scan(tmp_path / name, Scan(kspace, torch.ones(1, 1, 16, 8, dtype=torch.bool)))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1, 1, 40_000), (1, 40_000, 1), (40_000, 1, 1)])
def test_axes_that_nifti_cannot_hold(tmp_path, shape):
    pytest.importorskip("nibabel")
    with pytest.raises(InputError, match=r"at most 32,767 pixels .*40000.*: write \.npy"):
        write_image(tmp_path / "image.nii", np.ones(shape, np.float32))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["image.cfl", "image.nii", "image.png"])
def test_values_beyond_single_precision_are_not_written_as_infinite(tmp_path, name):
    if name.endswith(".nii"):
        pytest.importorskip("nibabel")
    with pytest.raises(InputError, match=r"4\.24e\+38"):
        write_image(tmp_path / name, np.full((2, 4, 4), 3e38 + 3e38j))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("size", [(1, 1), (1, 1, "a"), 2.0, (1, float("inf"), 1)])
def test_voxel_sizes_that_are_none(tmp_path, size):
    with pytest.raises(InputError, match="three numbers"):
        write_image(tmp_path / "image.nii", IMAGE, voxel_size=size)


def test_tensors_that_torch_has_not_resolved_yet(tmp_path):
    values = torch.randn(2, 4, 4, dtype=torch.complex64, requires_grad=True)
    write_image(tmp_path / "a.npy", values.conj())
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), values.detach().numpy().conj())
    write_image(tmp_path / "a.npy", values.conj().imag)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), -values.detach().imag.numpy())
    write_image(tmp_path / "a.npy", torch.ones(2, 4, 4, dtype=torch.bfloat16))
    assert np.load(tmp_path / "a.npy").dtype == np.float32


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_scans_of_tensors_that_torch_has_not_resolved_yet(tmp_path, name):
    kspace, maps = torch.randn(2, 1, 3, 16, 8, dtype=torch.complex64, requires_grad=True)
    mask = torch.ones(1, 1, 16, 8, dtype=torch.bool)
    write_scan(tmp_path / name, Scan(kspace.conj(), mask, coil_maps=maps.conj()))
    back = read_scan(tmp_path / name)
    assert back.coil_maps is not None
    torch.testing.assert_close(back.kspace, kspace.detach().conj().resolve_conj())
    torch.testing.assert_close(back.coil_maps, maps.detach().conj().resolve_conj())
