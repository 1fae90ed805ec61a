"""ISMRMRD raw data: selection among repeated measurements, and its log messages."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest
from command_line import run
from test_io_ismrmrd import REVERSED, header_xml, lines, phantom, write_raw

from ctxrecon.errors import InputError
from ctxrecon.io import read_scan, scan_info, scan_shape


def notes(path, **options) -> str:
    return " | ".join(scan_info(path, **options)["notes"])


@pytest.mark.parametrize("name", ["repetition", "contrast", "phase", "set", "average"])
def test_one_of_several_is_chosen(tmp_path, name):
    readouts = [line for n in (0, 3) for line in lines(phantom(n), **{name: n})]
    path = write_raw(tmp_path / "raw.h5", readouts)
    for number, value in enumerate((0, 3)):
        choice: dict[str, Any] = {name: number}
        scan = read_scan(path, crop_readout=False, **choice)
        np.testing.assert_array_equal(scan.kspace[0].numpy(), phantom(value))
        assert f"{name} {number} of 0 to 1" in notes(path, **choice)
    assert scan_info(path)[name + "s"] == 2
    for wrong in (2, -1, True, 0.0):
        choice = {name: wrong}
        with pytest.raises(InputError, match=name):
            read_scan(path, **choice)


def test_a_repetition_of_some_slices_is_noted(tmp_path):
    readouts = [r for n in (0, 1) for r in lines(phantom(n), slice=n)]
    path = write_raw(tmp_path / "raw.h5", readouts + lines(phantom(2), slice=1, repetition=1))
    assert len(read_scan(path)) == 2
    assert "slices in the file" not in notes(path)
    assert len(read_scan(path, repetition=1)) == 1
    assert "1 of the 2 slices in the file" in notes(path, repetition=1)


def test_other_formats_have_no_choice(tmp_path):
    np.save(tmp_path / "a.npy", phantom())
    for options in ({"repetition": 1}, {"average": 0}, {"group": "dataset"}):
        with pytest.raises(InputError, match=r"have no (repetition|average|group)s"):
            read_scan(tmp_path / "a.npy", **options)


def test_each_sample_is_the_mean_of_its_measurements(tmp_path):
    first, second = phantom(0), phantom(1)
    again = [
        {"data": second[:, 4:, n], "kspace_encode_step_1": n, "average": 1, "center_sample": 4}
        for n in (3, 4)
    ]
    path = write_raw(tmp_path / "raw.h5", lines(first) + again)
    scan = read_scan(path, crop_readout=False)
    expected = first.copy()
    expected[:, 4:, 3:5] = (first + second)[:, 4:, 3:5] / 2
    np.testing.assert_allclose(scan.kspace[0].numpy(), expected, atol=1e-6)
    assert "mean of 2 averages" in notes(path)


def test_several_measurements_in_a_file(tmp_path):
    path = write_raw(tmp_path / "raw.h5", lines(phantom(0)))
    other = write_raw(tmp_path / "other.h5", lines(phantom(1), (2, 3, 4, 5)))
    with h5py.File(path, "r+") as file, h5py.File(other) as source:
        source.copy("dataset", file, "dataset_2")
        file.create_group("images")
    with pytest.raises(InputError, match=r"'dataset' \(8 readouts\), 'dataset_2' \(4 readouts\)"):
        read_scan(path)
    with pytest.raises(InputError, match="choose one with group"):
        scan_shape(path, group="images")
    for name, number in (("dataset", 0), ("dataset_2", 1)):
        scan = read_scan(path, group=name, crop_readout=False)
        np.testing.assert_array_equal(scan.kspace[0, :, :, 3].numpy(), phantom(number)[:, :, 3])
    info = scan_info(path, group="dataset_2")
    assert (info["groups"], info["sampled_fraction"]) == (("dataset", "dataset_2"), 0.5)


@pytest.mark.parametrize("size", [16, 12])
@pytest.mark.parametrize("convention", ["stored", "turned"])
def test_the_center_of_reversed_readouts_in_both_conventions(tmp_path, size, convention):
    """``size`` 12: asymmetric echoes of which the first four samples were not measured."""
    kspace = phantom()
    readouts, center = [], size - 8
    for n in range(8):
        data = kspace[:, 16 - size :, n]
        if n % 2:
            place = size - 1 - center if convention == "stored" else center
            head = {"flags": REVERSED, "center_sample": place}
            readouts.append({"data": data[:, ::-1], "kspace_encode_step_1": n, **head})
        else:
            readouts.append({"data": data, "kspace_encode_step_1": n, "center_sample": center})
    path = write_raw(tmp_path / "raw.h5", readouts)
    scan = read_scan(path, crop_readout=False)
    expected = kspace.copy()
    expected[:, : 16 - size] = 0
    np.testing.assert_array_equal(scan.kspace[0].numpy(), expected)
    assert "4 readouts were measured in reverse" in notes(path)
    assert ("partial echo" in notes(path)) == (size < 16)


def test_partial_fourier_and_phase_oversampling_are_named(tmp_path):
    kspace = phantom(0, 2, 16, 32)
    xml = header_xml((16, 32, 1), (8, 24, 1), 16, 31)
    path = write_raw(tmp_path / "raw.h5", lines(kspace, range(12, 32)), xml)
    assert "partial Fourier along the phase encoding, 0.62 of k-space" in notes(path)
    assert "64 mm, of which the scanner keeps 48 mm" in notes(path)
    assert "8 of 16 pixels" in notes(path)
    both_ends = write_raw(tmp_path / "raw.h5", lines(kspace, range(1, 32, 3)), xml)
    assert "partial Fourier" not in notes(both_ends)


@pytest.mark.parametrize(
    "around", ["\ufeff{}", "\0\0{}", "  \r\n{}\n\0\0\0", "\ufeff \n{}\0", "{}"]
)
def test_what_lies_around_the_header(tmp_path, around):
    xml = around.format(header_xml(extra="<userParameters/>")).encode()
    path = write_raw(tmp_path / "raw.h5", lines(phantom()))
    with h5py.File(path, "r+") as file:
        del file["dataset/xml"]
        kind = h5py.string_dtype("utf-8", len(xml))
        file["dataset"].create_dataset("xml", data=np.array([xml], kind), dtype=kind)
    assert read_scan(path).metadata[0].tr == 500


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"discard_pre": 9, "discard_post": 9}, "discards all"),
        ({"number_of_samples": 12, "center_sample": 6}, "the file is damaged"),
        ({"active_channels": 5}, "the file is damaged"),
        ({"center_sample": 60000}, "outside the encoded matrix"),
        ({"kspace_encode_step_1": 999}, "outside the encoded matrix"),
        ({"kspace_encode_step_2": 7}, "partition 7.* outside the encoded matrix"),
        ({"encoding_space_ref": 3}, "encoding space 3"),
        ({"flags": 1 << 22}, "none of its 8"),
    ],
)
def test_readouts_whose_sizes_and_places_cannot_be(tmp_path, fields, message):
    path = write_raw(tmp_path / "raw.h5", lines(phantom(), **fields))
    with pytest.raises(InputError, match=message):
        read_scan(path)


def test_a_volume_with_partial_echoes_undersampled_in_both_directions(tmp_path):
    readouts = [
        {
            "data": phantom()[:, 4:, line],
            "center_sample": 4,
            "kspace_encode_step_1": line,
            "kspace_encode_step_2": partition,
        }
        for line, partition in [(0, 0), (1, 1), (4, 2), (4, 1), (5, 3)]
    ]
    path = write_raw(tmp_path / "raw.h5", readouts, header_xml((16, 8, 4), (8, 8, 4)))
    with pytest.raises(InputError, match="fully sampled along one axis"):
        read_scan(path)


def test_the_command_line_says_what_is_done(tmp_path, capsys):
    readouts = lines(phantom()) + lines(phantom(1), average=1)
    path = write_raw(tmp_path / "raw.h5", readouts)
    assert run("info", path) == 0
    printed = capsys.readouterr().out
    assert "mean of 2 averages" in printed
    assert "8 of 16 pixels" in printed
    assert run("info", path, "--repetition", 1) == 2
    assert "there is no repetition 1" in capsys.readouterr().err
