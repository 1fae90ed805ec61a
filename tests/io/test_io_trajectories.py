"""Radial, spiral and other ISMRMRD trajectories: units, sizes, coil maps, and what is refused."""

from __future__ import annotations

import logging
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run
from narrow import present
from test_io_ismrmrd import NOISE, header_xml, lines, phantom, write_raw

from ctxrecon import Measurement
from ctxrecon.coils.noise import estimate_noise_along
from ctxrecon.errors import InputError
from ctxrecon.fourier import ifft2c
from ctxrecon.io import read_scan, scan_info, scan_shape, write_scan
from ctxrecon.masks import radial_trajectory, spiral_trajectory
from ctxrecon.metrics import psnr
from ctxrecon.operators import NonCartesianSense, adjoint_error, density_compensation
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import BaselinePipeline
from ctxrecon.scan import Scan

pytest.importorskip("finufft")

N = 64
SQUARE = {"encoded": (2 * N, 2 * N, 1), "recon": (N, N, 1)}
"""A field of view of twice the image's, along both axes, and voxels of 2 mm."""


def along_lines(kspace: np.ndarray, unit: str = "cycles", **fields) -> list[dict]:
    """The readouts of a Cartesian scan, each with its places in k-space."""
    _, ny, nx = kspace.shape
    readouts = []
    for number, readout in enumerate(lines(kspace, range(nx), **fields)):
        places = np.stack([np.arange(ny) - ny // 2, np.full(ny, number - nx // 2)], axis=1)
        readouts.append({**readout, "traj": places / ((ny, nx) if unit == "cycles" else 1)})
    return readouts


def header(**settings) -> str:
    return header_xml(trajectory="other", **settings)


@pytest.mark.parametrize("unit", ["cycles", "points"])
def test_a_cartesian_scan_by_its_trajectory_is_the_cartesian_scan(tmp_path, caplog, unit):
    kspace = phantom()
    caplog.set_level(logging.INFO)
    scan = read_scan(write_raw(tmp_path / "a.h5", along_lines(kspace, unit), header()))
    assert unit in caplog.text
    assert scan.mask is None
    assert scan.kspace.shape == (1, 2, 8, 16)
    assert scan.image_shape == (8, 8)
    cartesian = read_scan(write_raw(tmp_path / "b.h5", lines(kspace)), crop_readout=True)
    full = read_scan(tmp_path / "a.h5", crop_readout=False)
    assert full.image_shape == (16, 8)
    places = present(full.trajectory).reshape(-1, 2)
    operator = NonCartesianSense(places, torch.ones(1, 1, 16, 8, dtype=torch.complex64))
    images = operator.adjoint(full.kspace.flatten(2).transpose(0, 1))
    # The readout lies along ny, and the middle of the image is where the Cartesian reader has it.
    expected = ifft2c(cartesian.kspace[0])
    torch.testing.assert_close(images[:, 4:12], expected, rtol=1e-4, atol=1e-4)
    assert scan.voxel_size == cartesian.voxel_size


def test_slices_repetitions_and_discarded_samples(tmp_path):
    readouts = []
    for number in (1, 4):
        for repetition in (0, 1):
            index: dict[str, Any] = {"slice": number, "repetition": repetition}
            readouts += along_lines(phantom(10 * number + repetition), **index)
    for readout in readouts:
        readout["data"] = np.pad(readout["data"], ((0, 0), (3, 2)), constant_values=99)
        readout["traj"] = np.pad(readout["traj"], ((3, 2), (0, 0)), constant_values=0.3)
        readout |= {"discard_pre": 3, "discard_post": 2}
    path = write_raw(tmp_path / "raw.h5", readouts, header())
    scan = read_scan(path)
    assert scan.kspace.shape == (2, 2, 8, 16)
    trajectory = present(scan.trajectory)
    assert trajectory.shape == (1, 8, 16, 2)  # the same of both slices
    assert [item.slice for item in scan.metadata] == [1, 4]
    other = read_scan(path, slices=1, repetition=1)
    np.testing.assert_array_equal(other.kspace[0].numpy(), phantom(41).transpose(0, 2, 1))
    assert scan_shape(path) == (2, 2, 16, 8)
    one = scan[1]
    assert torch.equal(one.kspace, scan.kspace[1:])
    assert present(one.trajectory).shape == trajectory.shape


def test_slices_along_trajectories_of_their_own_are_measured_one_by_one(tmp_path):
    readouts = along_lines(phantom(), slice=0)
    for readout in along_lines(phantom(1), slice=1):
        readouts.append({**readout, "traj": readout["traj"][:, ::-1] * (1, 1)})
    scan = read_scan(write_raw(tmp_path / "raw.h5", readouts, header()))
    trajectory = present(scan.trajectory)
    assert len(trajectory) == 2
    with pytest.raises(InputError, match="different trajectories"):
        Measurement.from_scan(scan)
    assert torch.equal(present(scan[1].trajectory), trajectory[1:])


def test_a_third_number_is_left_out_and_a_third_axis_refused(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    plain = along_lines(phantom())
    weighted = [
        {**r, "traj": np.pad(r["traj"], ((0, 0), (0, 1)), constant_values=2)} for r in plain
    ]
    scan = read_scan(write_raw(tmp_path / "a.h5", weighted, header()))
    assert "third number" in caplog.text
    same = read_scan(write_raw(tmp_path / "b.h5", plain, header()))
    assert torch.equal(present(scan.trajectory), present(same.trajectory))
    for readout in weighted:
        readout["traj"] = readout["traj"] * (1, 1, -0.1)
    with pytest.raises(InputError, match="2-D trajectory"):
        read_scan(write_raw(tmp_path / "c.h5", weighted, header()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"traj": 12 * r["traj"]}, "cycles per pixel .* scale it"),
        (lambda r: {"traj": 1e-3 * r["traj"]}, "cycles per pixel .* scale it"),
        (lambda r: {"traj": np.nan * r["traj"]}, "not finite"),
        (lambda r: {"traj": r["traj"][:, :1]}, r"2 or 3 coordinates per sample, got \[1\]"),
        (
            lambda r: {"discard_pre": r["kspace_encode_step_1"] % 2},
            r"readouts of \[15, 16\] samples",
        ),
        (lambda r: {"slice": r["kspace_encode_step_1"] // 3}, r"got \[2, 3\] readouts"),
    ],
)
def test_trajectories_that_cannot_be_read(tmp_path, change, message):
    readouts = [{**readout, **change(readout)} for readout in along_lines(phantom())]
    path = write_raw(tmp_path / "raw.h5", readouts, header())
    with pytest.raises(InputError, match=message) as refusal:
        read_scan(path)
    assert str(path) in str(refusal.value)


def test_a_trajectory_shorter_than_its_readout(tmp_path):
    readouts = along_lines(phantom())
    readouts[3]["traj"] = readouts[3]["traj"][:-1]
    with pytest.raises(InputError, match="readout 3 contains 30 numbers, expected 32"):
        read_scan(write_raw(tmp_path / "raw.h5", readouts, header()))


def test_a_scan_has_a_mask_or_a_trajectory_with_a_matrix(tmp_path):
    kspace, trajectory = torch.zeros(1, 2, 3, 4, dtype=torch.complex64), torch.zeros(1, 3, 4, 2)
    for given in ({"mask": None}, {"mask": None, "trajectory": trajectory}):
        with pytest.raises(InputError, match="a mask, or a trajectory"):
            Scan(kspace, **given)
    with pytest.raises(InputError, match="trajectory of shape"):
        Scan(kspace, None, trajectory=trajectory[:, :2], matrix=(8, 8))
    scan = Scan(kspace, None, trajectory=trajectory, matrix=(8, 8))
    with pytest.raises(InputError, match="Cartesian scan"):
        write_scan(tmp_path / "scan.npz", scan)


# Radial and spiral scans of a phantom


@pytest.fixture(scope="module")
def brain():
    generator = torch.Generator().manual_seed(1)
    return phantom_scan("brain", shape=(N, N), num_coils=6, snr=40, generator=generator)


def simulated(brain, trajectory: torch.Tensor, shots: int) -> tuple[list[dict], torch.Tensor]:
    """Readouts with noise, the first of nothing else, and all samples ``(1, coils, samples)``."""
    generator = torch.Generator().manual_seed(2)

    def noise(*shape: int) -> torch.Tensor:
        return brain.noise_std * torch.randn(shape, dtype=torch.complex64, generator=generator)

    y = NonCartesianSense(trajectory, brain.coil_maps)(brain.target)
    y = y + noise(*y.shape)
    samples = y[0].unflatten(1, (shots, -1)).numpy()
    places = (trajectory / (2 * math.pi)).unflatten(0, (shots, -1)).numpy()
    readouts = [{"data": noise(6, 1000).numpy(), "flags": NOISE}]
    readouts += [{"data": samples[:, s], "traj": places[s]} for s in range(shots)]
    return readouts, y


TRAJECTORIES = {
    "radial": (40, lambda: radial_trajectory(40, 2 * N)),
    "spiral": (12, lambda: spiral_trajectory(12, 500, 2.5, alpha=2.0)),
}


@pytest.fixture(scope="module", params=TRAJECTORIES)
def scanned(request, brain, tmp_path_factory):
    shots, make = TRAJECTORIES[request.param]
    trajectory = make()
    readouts, y = simulated(brain, trajectory, shots)
    path = tmp_path_factory.mktemp("raw") / f"{request.param}.h5"
    write_raw(path, readouts, header_xml(trajectory=request.param, **SQUARE))
    return path, trajectory, y


def quality(images: torch.Tensor, brain) -> float:
    return float(psnr(images.abs(), brain.target.abs()))


def test_the_file_serves_as_well_as_true_maps(brain, scanned):
    path, trajectory, y = scanned
    measurement = Measurement.from_scan(read_scan(path))
    assert adjoint_error(measurement.operator) < 2e-6
    weights = density_compensation(trajectory, (N, N))
    known = NonCartesianSense(trajectory, brain.coil_maps, weights)
    pipe = BaselinePipeline("cg_sense")
    found, by_hand = pipe(measurement).images, pipe(known.compensate(y), operator=known).images
    assert quality(found, brain) > quality(by_hand, brain) - 1
    assert quality(found, brain) > 20


def test_the_noise_level_is_known_and_can_be_told_from_the_samples(brain, scanned):
    path, _, _ = scanned
    scan = read_scan(path)
    assert scan.noise_std == pytest.approx(brain.noise_std, rel=0.03)
    measurement = Measurement.from_scan(scan)
    operator = measurement.operator
    assert isinstance(operator, NonCartesianSense)
    weights = present(operator.density_compensation)
    expected = brain.noise_std * float(weights.mean()) ** 0.5
    assert float(present(measurement.noise_std)) == pytest.approx(expected, rel=0.03)
    found = estimate_noise_along(operator, measurement.y)
    assert float(found) == pytest.approx(expected, rel=0.15)


def test_the_command_line_reconstructs_it(brain, scanned, tmp_path, capsys):
    path, _, _ = scanned
    assert run("reconstruct", path, "--out", tmp_path / "x.npy", "--method", "cg-sense") == 0
    assert re.search("6 coils, 64×64, acceleration .* relative to Nyquist", capsys.readouterr().out)
    images = torch.from_numpy(np.load(tmp_path / "x.npy"))
    assert quality(images, brain) > 20
    assert run("info", path) == 0
    printed = capsys.readouterr().out
    shots = TRAJECTORIES[path.stem][0]
    assert f"{path.stem}, {shots} shots of" in printed
    assert "Nyquist" in printed
    assert scan_info(path)["shots"] == shots


@pytest.mark.parametrize("scanned", ["radial"], indirect=True)
def test_the_prior_reconstructs_it(scanned, tmp_path, capsys):
    path, _, _ = scanned
    assert run("reconstruct", path, "--out", tmp_path / "x.npy", "--steps", 2) == 0
    assert np.isfinite(np.load(tmp_path / "x.npy")).all()


@pytest.mark.parametrize("scanned", ["radial"], indirect=True)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--undersample", "uniform1d"), "--undersample applies to Cartesian scans"),
        (("--mask", "mask.npy"), "--mask applies to Cartesian scans"),
        (("--method", "network"), "Cartesian k-space"),
        (("--start", "network"), "Cartesian k-space"),
    ],
)
def test_what_needs_a_grid_is_refused(scanned, tmp_path, capsys, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    np.save("mask.npy", np.ones(N, bool))
    assert run("reconstruct", scanned[0], "--out", "x.npy", *options) == 2
    assert message in capsys.readouterr().err


def test_a_thin_center_gives_no_coil_maps(brain, tmp_path):
    trajectory = radial_trajectory(3, 2 * N)
    readouts, _ = simulated(brain, trajectory, 3)
    path = write_raw(tmp_path / "raw.h5", readouts, header_xml(trajectory="radial", **SQUARE))
    with pytest.raises(InputError, match="pass coil_maps"):
        Measurement.from_scan(read_scan(path))
    np.save(tmp_path / "maps.npy", brain.coil_maps[0].numpy())
    scan = read_scan(path, coil_maps=tmp_path / "maps.npy", prewhiten=False)
    assert torch.equal(present(Measurement.from_scan(scan).coil_maps), brain.coil_maps)


def test_a_target_belongs_to_every_slice():
    kspace, mask = torch.ones(3, 1, 4, 4) + 0j, torch.ones(1, 1, 4, 4, dtype=torch.bool)
    with pytest.raises(InputError, match=r"target .*\(3, 4, 4\)$"):
        Scan(kspace, mask, target=torch.ones(1, 4, 4) + 0j)
