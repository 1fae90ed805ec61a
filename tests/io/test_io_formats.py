"""Scan and image files: round trips, slices, fastMRI's and BART's layouts, real files."""

from __future__ import annotations

import logging
import os
import resource
import tracemalloc
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from narrow import present
from test_io_ismrmrd import header_xml

from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.io import (
    overwrites,
    read_scan,
    scan_info,
    scan_shape,
    write_image,
    write_scan,
)
from ctxrecon.metadata import ScanMetadata, from_prompt
from ctxrecon.scan import Scan


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.complex64)


def full_scan(batch=3, coils=2, ny=24, nx=16, *, one_mask=False) -> Scan:
    """A scan that uses every field; its k-space has an exact zero inside the mask."""
    mask = torch.rand(batch, 1, ny, nx, generator=torch.Generator().manual_seed(2)) < 0.4
    mask[..., ny // 2 - 3 : ny // 2 + 3, nx // 2 - 3 : nx // 2 + 3] = True
    mask = mask[:1] if one_mask else mask
    kspace = noise(batch, coils, ny, nx) * mask
    kspace[..., ny // 2, nx // 2] = 0
    known = ScanMetadata(anatomy="knee", contrast="PDFS", pathologies=("Meniscus Tear",), te=33.5)
    items = [replace(known, slice=index) for index in range(batch - 1)]
    return Scan(
        kspace,
        mask,
        noise(batch, coils, ny, nx),
        (*items, ScanMetadata()),
        noise(batch, ny, nx),
        0.0123456789,
        (0.1, 1 / 3, 4.0),
        calibration=noise(batch, coils, 6, 5),
    )


def assert_same(first: Scan, second: Scan) -> None:
    for name in ("kspace", "mask", "coil_maps", "target", "calibration"):
        one, two = getattr(first, name), getattr(second, name)
        assert (one is None) == (two is None), name
        if one is not None:
            assert one.dtype == two.dtype
            assert torch.equal(one, two), name
    assert first.metadata == second.metadata
    assert first.noise_std == second.noise_std
    assert first.voxel_size == second.voxel_size


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
@pytest.mark.parametrize("one_mask", [True, False])
def test_scan_round_trip_is_lossless(tmp_path, suffix, one_mask):
    scan = full_scan(one_mask=one_mask)
    path = write_scan(tmp_path / f"scan{suffix}", scan)
    assert_same(read_scan(path), scan)
    assert_same(read_scan(path, slices=slice(1, 3)), scan[1:3])
    bare = Scan(noise(1, 1, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool))
    assert_same(read_scan(write_scan(path, bare)), bare)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_coils_are_not_mistaken_for_slices(tmp_path, suffix):
    scan = full_scan(batch=3, coils=3)
    assert scan.coil_maps is not None
    scan = replace(scan, coil_maps=scan.coil_maps[:1], calibration=present(scan.calibration)[:1])
    path = write_scan(tmp_path / f"scan{suffix}", scan)
    assert_same(read_scan(path, slices=[1]), scan[1])


@pytest.mark.parametrize("shape", [(12, 8), (3, 12, 8), (2, 3, 12, 8)])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128, ">c8"])
def test_npy_layouts(tmp_path, shape, dtype, caplog):
    kspace = noise(*shape).numpy()
    kspace[..., 1::2] = 0
    np.save(tmp_path / "k.npy", kspace.astype(dtype))
    with caplog.at_level(logging.INFO, "ctxrecon.io"):
        scan = read_scan(tmp_path / "k.npy")
    slices, coils = ((1, 1) + shape[:-2])[-2:]
    assert scan.kspace.shape == (slices, coils, 12, 8)
    assert scan.kspace.dtype == torch.complex64
    assert torch.equal(scan.cartesian_mask[0, 0, 0], torch.arange(8) % 2 == 0)
    assert "50.0 %" in caplog.text


def test_npz_with_prompts_and_line_mask(tmp_path, caplog):
    mask = np.arange(8) < 5
    prompts = ["knee, Slice 3, PD", "knee, Slice 4, PD"]
    np.savez(tmp_path / "k.npz", kspace=noise(2, 1, 6, 8).numpy(), mask=mask, prompts=prompts)
    with caplog.at_level(logging.INFO, "ctxrecon.io"):
        scan = read_scan(tmp_path / "k.npz")
    assert scan.cartesian_mask.shape == (1, 1, 6, 8)
    assert not scan.kspace[..., 5:].any()
    assert "outside the mask" in caplog.text
    assert scan.metadata == tuple(from_prompt(text) for text in prompts)


def test_arrays_of_unknown_name_are_left_out_with_a_warning(tmp_path, caplog):
    np.savez(tmp_path / "k.npz", kspace=noise(1, 6, 8).numpy(), prompt=["knee"], affine=np.eye(4))
    assert read_scan(tmp_path / "k.npz").metadata == ()
    (warning,) = (one.getMessage() for one in caplog.records if one.levelname == "WARNING")
    assert "'prompt'" in warning
    assert "affine" not in warning


def write_fastmri(path: Path, kspace: np.ndarray, *, xml: str | None = None, **arrays) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        file.attrs["acquisition"] = "CORPD_FBK"
        file["ismrmrd_header"] = xml or header_xml((16, 12, 1), (8, 8, 1), 5, 9)
        for name, value in arrays.items():
            file[name] = value
    return path


@pytest.mark.parametrize("coils", [None, 3])
def test_fastmri(tmp_path, coils, caplog):
    shape = (4, 16, 12) if coils is None else (4, coils, 16, 12)
    kspace = noise(*shape).numpy()
    path = write_fastmri(tmp_path / "f.h5", kspace, reconstruction_rss=np.ones((4, 8, 8)))
    with caplog.at_level(logging.INFO, "ctxrecon.io"):
        scan = read_scan(path)
    assert scan.kspace.shape == (4, coils or 1, 16, 12)
    assert scan.target is None
    assert "(8, 8)" in caplog.text
    assert [item.slice for item in scan.metadata] == [0, 1, 2, 3]
    assert scan.metadata[0].tr == 500
    one = read_scan(path, slices=-1)
    assert torch.equal(one.kspace, scan.kspace[3:])
    assert one.metadata == scan.metadata[3:]


def test_fastmri_test_split_mask_loses_the_zero_padding(tmp_path):
    kspace = noise(2, 3, 16, 12).numpy()
    kspace[..., [0, 11]] = 0  # lines 1 to 10 are encoded: centre 5 of 10 in 12
    mask = np.ones(12, np.float32)
    mask[4] = 0
    path = write_fastmri(tmp_path / "f.h5", kspace * mask, mask=mask)
    lines = read_scan(path).cartesian_mask[0, 0, 0]
    assert torch.nonzero(~lines).flatten().tolist() == [0, 4, 11]


def test_fastmri_crop_readout(tmp_path):
    image = torch.zeros(1, 2, 16, 12, dtype=torch.complex64)
    image[:, :, 4:12] = noise(1, 2, 8, 12)
    rss = image.abs().square().sum(1).sqrt()[:, 4:12]
    kspace = fft2c(image).numpy()
    path = write_fastmri(tmp_path / "f.h5", kspace, reconstruction_rss=rss)
    scan = read_scan(path, crop_readout=True)
    torch.testing.assert_close(ifft2c(scan.kspace), image[:, :, 4:12])
    torch.testing.assert_close(scan.target, rss.to(torch.complex64))
    assert scan.cartesian_mask.all()


def test_only_the_chosen_slices_are_read_and_the_file_is_closed(tmp_path):
    path = tmp_path / "big.h5"
    with h5py.File(path, "w") as file:  # 6 GiB claimed, one slice written
        dataset = file.create_dataset(
            "kspace", (1000, 8, 320, 320), np.complex64, chunks=(1, 8, 320, 320)
        )
        dataset[500] = noise(8, 320, 320).numpy()
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None
    with pytest.raises(InputError, match=r"6\.1 GiB"):
        read_scan(path)
    scan = read_scan(path, slices=500)
    assert scan.kspace.shape == (1, 8, 320, 320)
    if before is not None:
        assert len(os.listdir("/proc/self/fd")) == before
    os.replace(path, tmp_path / "moved.h5")


def test_metadata_override(tmp_path):
    np.save(tmp_path / "k.npy", noise(2, 1, 8, 8).numpy())
    item = ScanMetadata(anatomy="brain")
    assert read_scan(tmp_path / "k.npy", metadata=item).metadata == (item, item)
    with pytest.raises(InputError, match=r"2 slices.* 1"):
        read_scan(tmp_path / "k.npy", metadata=[item])


def test_coil_maps_from_another_file(tmp_path):
    np.save(tmp_path / "k.npy", noise(3, 2, 8, 8).numpy())
    maps = noise(3, 2, 8, 8).numpy()
    np.save(tmp_path / "maps.npy", maps)
    scan = read_scan(tmp_path / "k.npy", slices=[0, 2], coil_maps=tmp_path / "maps.npy")
    assert scan.coil_maps is not None
    np.testing.assert_array_equal(scan.coil_maps.numpy(), maps[[0, 2]])
    np.save(tmp_path / "maps.npy", noise(5, 8, 8).numpy())
    with pytest.raises(InputError, match=r"maps\.npy .*k\.npy"):
        read_scan(tmp_path / "k.npy", coil_maps=tmp_path / "maps.npy")


def test_info(tmp_path):
    scan = full_scan()
    info = scan_info(write_scan(tmp_path / "scan.h5", scan))
    assert info["format"] == "fastMRI"
    assert (info["slices"], info["coils"], info["shape"]) == (3, 2, (24, 16))
    assert info["sampled_fraction"] == pytest.approx(scan.cartesian_mask[1].float().mean().item())
    assert info["acceleration"] == pytest.approx(1 / info["sampled_fraction"])
    assert min(info["calibration_region"]) >= 6
    assert info["prompt"] == scan.metadata[1].to_prompt()
    assert info["size_on_disk"] == (tmp_path / "scan.h5").stat().st_size


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".cfl"])
def test_complex_images_round_trip(tmp_path, suffix):
    images = noise(3, 6, 4)
    written = write_image(tmp_path / f"image{suffix}", images)
    assert all(path.is_file() for path in written)
    assert sorted(tmp_path.iterdir()) == sorted(written)  # no temporary file is left
    if suffix == ".cfl":
        # As k-space the images are slices of one coil.
        loaded = read_scan(tmp_path / "image.cfl").kspace[:, 0].numpy()
    else:
        loaded = np.load(tmp_path / f"image{suffix}")
        loaded = loaded["images"] if suffix == ".npz" else loaded
    np.testing.assert_array_equal(loaded, images.numpy())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_round_trip(tmp_path, suffix):
    nibabel = pytest.importorskip("nibabel")
    images = noise(3, 6, 4)
    (path,) = write_image(tmp_path / f"image{suffix}", images, voxel_size=(0.5, 0.75, 4))
    loaded = nibabel.load(path)
    assert loaded.get_data_dtype() == np.float32
    assert loaded.header.get_zooms() == (0.75, 0.5, 4)
    header = loaded.header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (0, 0)  # place unknown
    volume = np.asarray(loaded.dataobj)
    np.testing.assert_allclose(volume.transpose(2, 1, 0), images.abs().numpy(), rtol=1e-6)


def test_png_slices_share_one_window(tmp_path):
    from PIL import Image

    images = torch.ones(3, 6, 4) * torch.tensor([0.25, 0.5, 1.0])[:, None, None]
    written = write_image(tmp_path / "image.png", images)
    assert [path.name for path in written] == ["image_000.png", "image_001.png", "image_002.png"]
    assert [int(np.asarray(Image.open(path))[0, 0]) for path in written] == [64, 128, 255]
    (path,) = write_image(tmp_path / "montage.png", images, montage=True)
    assert Image.open(path).size == (8, 12)
    assert write_image(tmp_path / "one.png", images[0]) == (tmp_path / "one.png",)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "image.npy"
    path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(InputError, match=r"image\.npy: No space"):
        write_image(path, noise(4, 4))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# ---------------------------------------------------------------- real files


def test_real_undersampled_brain(shared_data):
    path = shared_data / "brain_t1_8ch_undersampled" / "cartesian_ksp.npy"
    info = scan_info(path)
    assert (info["coils"], info["shape"]) == (8, (230, 180))
    assert info["sampled_fraction"] == pytest.approx(0.124, abs=0.001)
    assert info["calibration_region"] >= (24, 24)
    assert info["prompt"] is None


def test_real_coil_maps(shared_data, tmp_path):
    image = np.load(shared_data / "coil_maps_32ch" / "image.npy")
    maps = shared_data / "coil_maps_32ch" / "coil_maps.npy"
    kspace = fft2c(torch.from_numpy(image * np.load(maps)).to(torch.complex64))
    np.save(tmp_path / "k.npy", kspace.numpy())
    scan = read_scan(tmp_path / "k.npy", coil_maps=maps)
    assert scan.coil_maps is not None
    assert scan.coil_maps.shape == (1, 32, 128, 128)


@pytest.mark.parametrize("acquisition", [np.array(["AXT2"], dtype=object), "AXT2", b"AXT2"])
def test_acquisition_as_text_or_an_array_of_one(tmp_path, acquisition):
    path = write_fastmri(tmp_path / "f.h5", noise(1, 2, 16, 12).numpy())
    with h5py.File(path, "r+") as file:
        file.attrs["acquisition"] = acquisition
    assert read_scan(path).metadata[0].contrast == "T2"


def test_fastmri_crops_by_the_field_of_view_and_refuses_other_trajectories(tmp_path):
    xml = header_xml((16, 12, 1), (8, 12, 1), 6, 11)
    path = write_fastmri(tmp_path / "f.h5", noise(1, 2, 16, 12).numpy(), xml=xml)
    scan = read_scan(path, crop_readout=True)
    assert scan.kspace.shape == (1, 2, 8, 12)
    assert scan.voxel_size == (2, 2, 2)
    spiral = header_xml(trajectory="spiral")
    write_fastmri(path, noise(1, 2, 16, 12).numpy(), xml=spiral)
    with pytest.raises(InputError, match="Cartesian trajectory, got 'spiral'"):
        read_scan(path)


def test_impossible_metadata_in_a_file_are_left_out(tmp_path, caplog):
    kspace = noise(1, 1, 6, 8).numpy()
    text = '[{"contrast": "T2", "tr": -5}]'
    np.savez(tmp_path / "k.npz", kspace=kspace, metadata=text)
    assert read_scan(tmp_path / "k.npz").metadata == (ScanMetadata(contrast="T2"),)
    np.savez(tmp_path / "k.npz", kspace=kspace, prompts=["knee, TR: -5, PD"])
    assert read_scan(tmp_path / "k.npz").metadata == (ScanMetadata(anatomy="knee", contrast="PD"),)
    assert "k.npz: expected TR" in caplog.text
    assert "'TR: -5' is dropped" in caplog.text


def test_a_file_is_the_same_by_another_name(tmp_path):
    scan = tmp_path / "scan.npy"
    np.save(scan, noise(4, 4).numpy())
    (tmp_path / "link.npy").symlink_to(scan)
    os.link(scan, tmp_path / "hard.npy")
    for name in ("scan.npy", "link.npy", "hard.npy", "../" + tmp_path.name + "/scan.npy"):
        assert overwrites(tmp_path / name, [tmp_path / "other.npy", scan]) == scan
    assert overwrites(tmp_path / "image.npy", [scan]) is None
    assert overwrites(tmp_path / "raw.hdr", [tmp_path / "raw.cfl"]) == tmp_path / "raw.cfl"


def test_chosen_slices_of_a_compressed_archive(tmp_path):
    scan = full_scan(batch=4)
    path = write_scan(tmp_path / "scan.npz", scan)
    chosen = read_scan(path, slices=[3, 1])
    for position, index in enumerate((3, 1)):
        assert_same(chosen[position], scan[index])
    assert scan_shape(path) == (4, 2, 24, 16)
    kspace = np.asfortranarray(scan.kspace.numpy())
    np.savez(tmp_path / "f.npz", kspace=kspace)
    assert torch.equal(read_scan(tmp_path / "f.npz", slices=2).kspace[0], scan.kspace[2])


@pytest.mark.parametrize("name", ["x.npz", "x.h5", "x.npy", "x.cfl", "x.nii", "x.png"])
def test_a_file_that_does_not_fit_on_the_disk(tmp_path, name, generator):
    """The process may write no file of more than 600 bytes, as on a disk that is nearly full."""
    if name.endswith(".nii"):
        pytest.importorskip("nibabel")
    image = torch.randn(1, 64, 64, dtype=torch.complex64, generator=generator)
    scan = Scan(image[:, None], torch.ones(1, 1, 64, 64, dtype=torch.bool))
    write_image(tmp_path / "imports_what_it_needs.png", image)
    is_scan = name.endswith((".npz", ".h5"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = sorted(tmp_path.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot write"):
            write_scan(tmp_path / name, scan) if is_scan else write_image(tmp_path / name, image)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_in_a_file_takes_no_memory_of_the_square_of_its_lines(tmp_path):
    np.save(tmp_path / "long.npy", np.ones((2, 40000, 8), np.complex64))
    tracemalloc.start()
    try:
        assert scan_info(tmp_path / "long.npy")["calibration_region"] == (2048, 8)
        assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    finally:
        tracemalloc.stop()
