"""ISMRMRD raw data: sorting, flags, averages, oversampling, and a real file."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from narrow import present

from ctxrecon.baselines import cg_sense
from ctxrecon.errors import InputError
from ctxrecon.fourier import fft2c, ifft2c
from ctxrecon.io import read_scan, scan_info, scan_shape
from ctxrecon.operators import sense_operator

NOISE, CALIBRATION, REVERSED = 1 << 18, 1 << 19, 1 << 21
_IDX = ["kspace_encode_step_1", "kspace_encode_step_2", "average", "slice", "contrast", "phase"]
_IDX += ["repetition", "set", "segment"]
HEAD = np.dtype(
    [
        ("flags", "<u8"),
        ("number_of_samples", "<u2"),
        ("active_channels", "<u2"),
        ("center_sample", "<u2"),
        ("discard_pre", "<u2"),
        ("discard_post", "<u2"),
        ("encoding_space_ref", "<u2"),
        ("trajectory_dimensions", "<u2"),
        ("sample_time_us", "<f4"),
        ("position", "<f4", (3,)),
        ("read_dir", "<f4", (3,)),
        ("phase_dir", "<f4", (3,)),
        ("slice_dir", "<f4", (3,)),
        ("idx", [(name, "<u2") for name in _IDX]),
    ]
)


def header_xml(
    encoded=(16, 8, 1), recon=(8, 8, 1), center=4, maximum=7, trajectory="cartesian", extra=""
) -> str:
    def space(name: str, size: tuple) -> str:
        matrix = "".join(f"<{a}>{n}</{a}>" for a, n in zip("xyz", size, strict=True))
        fov = "".join(f"<{a}>{2 * n}</{a}>" for a, n in zip("xyz", size, strict=True))
        return (
            f"<{name}><matrixSize>{matrix}</matrixSize>"
            f"<fieldOfView_mm>{fov}</fieldOfView_mm></{name}>"
        )

    return (
        '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>'
        + space("encodedSpace", encoded)
        + space("reconSpace", recon)
        + "<encodingLimits><kspace_encoding_step_1><minimum>0</minimum>"
        f"<maximum>{maximum}</maximum><center>{center}</center></kspace_encoding_step_1>"
        f"</encodingLimits><trajectory>{trajectory}</trajectory>{extra}</encoding>"
        "<sequenceParameters><TR>500</TR><TE>12</TE><TE>24</TE><TE>36</TE></sequenceParameters></ismrmrdHeader>"
    )


def write_raw(path: Path, readouts: list[dict], xml: str | None = None) -> Path:
    """``readouts``: ``data`` (coils, samples), ``traj`` (samples, dimensions), head, index."""
    vlen = h5py.vlen_dtype(np.float32)
    table = np.zeros(len(readouts), np.dtype([("head", HEAD), ("traj", vlen), ("data", vlen)]))
    for row, readout in zip(table, readouts, strict=True):
        data = np.ascontiguousarray(readout["data"], np.complex64)
        head = row["head"]
        head["active_channels"], head["number_of_samples"] = data.shape
        head["center_sample"] = data.shape[1] // 2
        head["sample_time_us"] = 5
        for name, value in readout.items():
            if name in _IDX:
                head["idx"][name] = value
            elif name not in ("data", "traj"):
                head[name] = value
        places = np.asarray(readout.get("traj", np.zeros((0, 0))), np.float32)
        head["trajectory_dimensions"] = places.shape[1]
        row["traj"] = places.ravel()
        row["data"] = data.view(np.float32).ravel()
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        group.create_dataset("data", data=table, dtype=table.dtype)
        group["xml"] = np.array([header_xml() if xml is None else xml], dtype=object)
    return path


def phantom(seed=0, coils=2, ny=16, nx=8) -> np.ndarray:
    """K-space (coils, ny, nx) of an image that lies in the centre half of the readout."""
    random = np.random.default_rng(seed)
    image = np.zeros((coils, ny, nx), np.complex64)
    middle = slice(ny // 4, ny // 4 + ny // 2)
    image[:, middle] = random.normal(size=(coils, ny // 2, nx, 2)) @ np.array([1, 1j])
    return fft2c(torch.from_numpy(image)).numpy()


def lines(kspace: np.ndarray, which=range(8), **fields) -> list[dict]:
    return [{"data": kspace[:, :, n], "kspace_encode_step_1": n, **fields} for n in which]


def test_readouts_are_sorted_by_their_line_and_centered_by_the_limits(tmp_path):
    kspace = phantom()
    shifted = [{"data": kspace[:, :, n], "kspace_encode_step_1": n - 1} for n in (5, 1, 3, 2, 4, 7)]
    path = write_raw(tmp_path / "raw.h5", shifted, header_xml(center=3, maximum=6))
    scan = read_scan(path, crop_readout=False)
    assert scan.kspace.shape == (1, 2, 16, 8)
    assert scan.cartesian_mask[0, 0, 0].tolist() == [n in (5, 1, 3, 2, 4, 7) for n in range(8)]
    expected = kspace * scan.cartesian_mask[0].numpy()
    np.testing.assert_array_equal(scan.kspace[0].numpy(), expected)


def test_oversampling_is_cropped_to_the_image_by_default(tmp_path):
    kspace = phantom()
    scan = read_scan(write_raw(tmp_path / "raw.h5", lines(kspace, (0, 2, 3, 4, 5))))
    assert scan.kspace.shape == (1, 2, 8, 8)
    mask = scan.cartesian_mask
    assert mask[0, 0, 0].tolist() == [True, False, True, True, True, True, False, False]
    full = read_scan(tmp_path / "raw.h5", crop_readout=False)
    sampled = torch.from_numpy(kspace) * full.cartesian_mask[0]
    torch.testing.assert_close(ifft2c(scan.kspace)[0], ifft2c(sampled)[:, 4:12])


def test_averages_are_averaged(tmp_path):
    first, second = phantom(0), phantom(1)
    path = write_raw(tmp_path / "raw.h5", lines(first) + lines(second, average=1))
    scan = read_scan(path, crop_readout=False)
    np.testing.assert_allclose(scan.kspace[0].numpy(), (first + second) / 2, atol=1e-6)


def test_slices_repetitions_and_contrasts_are_chosen(tmp_path):
    readouts = []
    for number in (1, 4):
        for repetition in (0, 1):
            for contrast in (0, 2):
                kspace = phantom(100 * number + 10 * repetition + contrast)
                index = {"slice": number, "repetition": repetition, "contrast": contrast}
                readouts += lines(kspace, **index)
    path = write_raw(tmp_path / "raw.h5", readouts)
    scan = read_scan(path, crop_readout=False)
    assert [item.slice for item in scan.metadata] == [1, 4]
    np.testing.assert_array_equal(scan.kspace[1].numpy(), phantom(400))
    other = read_scan(path, crop_readout=False, slices=1, repetition=1, contrast=1)
    np.testing.assert_array_equal(other.kspace[0].numpy(), phantom(412))
    assert (scan.metadata[0].te, other.metadata[0].te) == (12, 36)
    info = scan_info(path)
    assert (info["slices"], info["repetitions"], info["contrasts"]) == (2, 2, 2)
    with pytest.raises(InputError, match="no repetition 2"):
        read_scan(path, repetition=2)


def test_noise_readouts_give_the_noise_level_and_stay_out_of_kspace(tmp_path):
    random = np.random.default_rng(0)
    noise = 0.3 * random.normal(size=(2, 4000, 2)) @ np.array([1, 1j]) / np.sqrt(2)
    kspace = phantom()
    readouts = [{"data": noise, "flags": NOISE, "sample_time_us": 10}, *lines(kspace)]
    path = write_raw(tmp_path / "raw.h5", readouts)
    scan = read_scan(path, crop_readout=False, prewhiten=False)
    np.testing.assert_array_equal(scan.kspace[0].numpy(), kspace)
    assert scan.noise_std == pytest.approx(0.3 * np.sqrt(2), rel=0.03)  # half the dwell time
    assert read_scan(path).noise_std == scan.noise_std


def correlated_noise(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise (2 coils, count) and its covariance."""
    mixing = np.array([[0.5, 0.0], [0.3 + 0.4j, 0.1]])
    random = np.random.default_rng(1)
    white = random.normal(size=(2, count, 2)) @ np.array([1, 1j]) / np.sqrt(2)
    return mixing @ white, mixing @ mixing.conj().T


def test_noise_readouts_prewhiten_coils_and_keep_their_units(tmp_path):
    noise, covariance = correlated_noise(20000)
    readouts = [{"data": noise, "flags": NOISE}, *lines(phantom())]
    path = write_raw(tmp_path / "raw.h5", readouts)
    as_measured = read_scan(path, crop_readout=False, prewhiten=False).kspace
    scan = read_scan(path, crop_readout=False)
    matrix = np.linalg.lstsq(
        as_measured[0].flatten(1).T.numpy(), scan.kspace[0].flatten(1).T.numpy(), rcond=None
    )[0].T
    level = np.trace(covariance).real / 2
    whitened = matrix @ covariance @ matrix.conj().T
    np.testing.assert_allclose(whitened, level * np.eye(2), atol=0.03 * level)
    assert scan.noise_std == pytest.approx(level**0.5, rel=0.02)

    maps = np.random.default_rng(2).normal(size=(2, 16, 8, 2)) @ np.array([1, 1j])
    np.save(tmp_path / "maps.npy", maps.astype(np.complex64))
    transformed = read_scan(path, crop_readout=False, coil_maps=tmp_path / "maps.npy").coil_maps
    expected = np.einsum("dc,cyx->dyx", matrix, maps)
    np.testing.assert_allclose(present(transformed)[0].numpy(), expected, atol=1e-3)


def test_prewhitening_with_given_maps_changes_no_image(tmp_path):
    random = np.random.default_rng(3)
    maps, image = (
        random.normal(size=(*shape, 2)) @ np.array([1, 1j]) for shape in ((2, 16, 8), (16, 8))
    )
    kspace = fft2c(torch.from_numpy(maps * image)).numpy().astype(np.complex64)
    path = write_raw(
        tmp_path / "raw.h5",
        [{"data": correlated_noise(4000)[0], "flags": NOISE}, *lines(kspace)],
    )
    np.save(tmp_path / "maps.npy", maps.astype(np.complex64))
    for prewhiten in (False, True):
        scan = read_scan(
            path, crop_readout=False, coil_maps=tmp_path / "maps.npy", prewhiten=prewhiten
        )
        operator = sense_operator(
            torch.ones(1, 1, 16, 8, dtype=torch.bool), present(scan.coil_maps)
        )
        found = cg_sense(operator, scan.kspace, regularization=0, num_iterations=100)
        np.testing.assert_allclose(found[0].numpy(), image, atol=2e-3)


@pytest.mark.parametrize(
    ("noise", "warning"),
    [
        (np.full((2, 40), 0.5 + 0j), "not prewhitened: .* linearly independent"),
        (np.full((2, 40), np.nan + 0j), "zero or not finite"),
        (np.ones((3, 40), complex), "other coils"),
    ],
)
def test_noise_readouts_that_cannot_whiten_leave_the_scan_as_it_is(
    tmp_path, caplog, noise, warning
):
    path = write_raw(tmp_path / "raw.h5", [{"data": noise, "flags": NOISE}, *lines(phantom())])
    scan = read_scan(path, crop_readout=False)
    np.testing.assert_array_equal(scan.kspace[0].numpy(), phantom())
    assert re.search(warning, caplog.text)


def fields_of_view(xml: str, encoded: tuple, recon: tuple) -> str:
    """The header with these in mm."""
    parts = re.split(r"(?<=<fieldOfView_mm>).*?(?=</fieldOfView_mm>)", xml)
    texts = [
        "".join(f"<{a}>{v}</{a}>" for a, v in zip("xyz", f, strict=True)) for f in (encoded, recon)
    ]
    return parts[0] + texts[0] + parts[1] + texts[1] + parts[2]


@pytest.mark.parametrize(
    ("recon", "encoded_fov", "shape", "voxel"),
    [
        ((16, 8, 1), (64, 32, 5), (8, 8), (4, 4, 5)),  # interpolated along the readout
        ((8, 16, 1), (64, 32, 5), (8, 8), (4, 4, 5)),  # interpolated along the phase
        ((16, 8, 1), (32, 48, 5), (16, 8), (2, 6, 5)),  # not oversampled; phase oversampling
    ],
)
def test_voxels_are_those_of_the_image_that_is_made(tmp_path, recon, encoded_fov, shape, voxel):
    xml = fields_of_view(header_xml((16, 8, 1), recon), encoded_fov, (32, 32, 5))
    path = write_raw(tmp_path / "raw.h5", lines(phantom()), xml)
    scan = read_scan(path)
    assert tuple(scan.kspace.shape[2:]) == shape
    assert scan.voxel_size == pytest.approx(voxel)
    info = scan_info(path)
    assert (info["shape"], info["voxel_size"]) == (shape, scan.voxel_size)
    assert scan_shape(path) == (1, 2, 16, 8)
    with_all = read_scan(path, crop_readout=False)
    assert with_all.voxel_size == scan.voxel_size


def test_a_header_with_impossible_values_or_without_namespace(tmp_path, caplog):
    xml = header_xml().replace("<TR>500", "<TR>-5").replace("<TE>12", "<TE>12,5")
    xml = xml.replace(' xmlns="http://www.ismrm.org/ISMRMRD"', "")
    scan = read_scan(write_raw(tmp_path / "raw.h5", lines(phantom()), xml))
    assert (scan.metadata[0].tr, scan.metadata[0].slice) == (None, 0)
    assert "expected TR" in caplog.text


def test_a_header_in_latin_1(tmp_path):
    xml = header_xml(extra="<!-- Kopf, Körper -->")
    path = write_raw(tmp_path / "raw.h5", lines(phantom()))
    with h5py.File(path, "r+") as file:
        del file["dataset/xml"]
        file["dataset/xml"] = np.array([xml.encode("latin-1")])
    assert read_scan(path).metadata[0].tr == 500


def test_noise_level_falls_with_averages(tmp_path):
    noise = {"data": np.full((2, 16), 0.5 + 0j), "flags": NOISE}
    readouts = [noise, *lines(phantom()), *lines(phantom(), average=1)]
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts))
    assert scan.noise_std == pytest.approx(0.5 / np.sqrt(2))


def test_the_noise_level_does_not_depend_on_the_slices_read(tmp_path):
    """Nor does a slice of zeros prevent it."""
    noise = {"data": np.full((2, 16), 0.5 + 0j), "flags": NOISE}
    readouts = [noise, *lines(phantom()), *lines(0 * phantom(), slice=1)]
    readouts += [one for repeat in range(3) for one in lines(phantom(), slice=2, average=repeat)]
    path = write_raw(tmp_path / "raw.h5", readouts)
    together = read_scan(path)
    assert together.noise_std == pytest.approx(0.5)
    assert not together.kspace[1].any()
    assert {read_scan(path, slices=number).noise_std for number in range(3)} == {together.noise_std}


@pytest.mark.parametrize(("mode", "kept"), [("embedded", True), ("separate", False)])
def test_calibration_lines_are_used_only_when_embedded(tmp_path, mode, kept):
    extra = f"<parallelImaging><calibrationMode>{mode}</calibrationMode></parallelImaging>"
    readouts = lines(phantom(), (0, 2, 4, 6)) + lines(phantom(), (3, 5), flags=CALIBRATION)
    path = write_raw(tmp_path / "raw.h5", readouts, header_xml(extra=extra))
    mask = read_scan(path).cartesian_mask[0, 0, 0]
    assert mask[[0, 2, 4, 6]].all()
    assert mask[[3, 5]].tolist() == [kept, kept]


def test_reversed_readouts_are_turned(tmp_path):
    kspace = phantom()
    readouts = lines(kspace, (0, 2, 4, 6))
    for n in (1, 3, 5, 7):
        reverse = {"flags": REVERSED, "center_sample": 7}
        readouts.append(
            {"data": kspace[:, ::-1, n], "kspace_encode_step_1": n, **reverse},
        )
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts), crop_readout=False)
    np.testing.assert_array_equal(scan.kspace[0].numpy(), kspace)


def test_asymmetric_echo_is_placed_by_its_center_and_keeps_its_oversampling(tmp_path):
    kspace = phantom()
    readouts = [
        {"data": kspace[:, 4:, n], "kspace_encode_step_1": n, "center_sample": 4} for n in range(8)
    ]
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts))
    assert scan.kspace.shape == (1, 2, 16, 8)
    assert not scan.cartesian_mask[:, :, :4].any()
    np.testing.assert_array_equal(scan.kspace[0, :, 4:].numpy(), kspace[:, 4:])


def test_discarded_samples_are_left_out(tmp_path):
    kspace = phantom()
    padded = np.pad(kspace, ((0, 0), (3, 2), (0, 0)), constant_values=99)
    fields = {"discard_pre": 3, "discard_post": 2, "center_sample": 11}
    scan = read_scan(write_raw(tmp_path / "raw.h5", lines(padded, **fields)), crop_readout=False)
    np.testing.assert_array_equal(scan.kspace[0].numpy(), kspace)


def test_real_phantom(shared_data):
    path = next((shared_data / "ismrmrd_phantom_14ch").glob("*.h5"))
    scan = read_scan(path)
    assert scan.kspace.shape == (1, 14, 192, 144)
    mask = scan.cartesian_mask
    assert mask[0, 0].all(dim=0).sum() == mask[0, 0].any(dim=0).sum() == 68
    assert scan.metadata[0].tr == pytest.approx(219.64)
    info = scan_info(path)
    assert info["calibration_region"][1] >= 46
    assert info["voxel_size"] == pytest.approx((280 / 192, 210 / 144, 8))
    rss = ifft2c(scan.kspace)[0].abs().square().sum(0).sqrt()
    # Two round bottles in the middle of the field of view, air in the corners whose noise is what
    # the noise readout promises for this fraction of samples.
    assert rss[40:80, 40:80].mean() > 20 * rss[:20, :20].mean()
    corner = ifft2c(scan.kspace)[0, :, :20, :20].abs().square().mean().sqrt()
    expected = present(scan.noise_std) * mask.float().mean().sqrt()
    assert corner.item() == pytest.approx(expected.item(), rel=0.2)
