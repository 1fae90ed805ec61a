"""``ctxrecon prepare``: volumes of each layout to shards, stopped, resumed and damaged."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from command_line import run
from safetensors import safe_open
from volumes import (
    SKMTEA_COLUMNS,
    coil_maps,
    images,
    write_fastmri,
    write_labels,
    write_skmtea,
)

from ctxrecon.datasets import (
    FastMRISource,
    LabelSource,
    ShardSlices,
    SKMTEASource,
    VolumeSource,
    prepare_shards,
)
from ctxrecon.datasets.skmtea import read_headers
from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata

SIZE = (48, 48)
MIDDLE = np.s_[24:72, 4:52]  # the centre of 96 × 56


def items(data: ShardSlices) -> list[dict[str, Any]]:
    return [data[index] for index in range(len(data))]


def contents(folder: Path) -> dict[str, bytes]:
    """The shards by name, without those being written (whose names begin with a dot)."""
    found = folder.glob("[!.]*.safetensors")
    return {path.name: path.read_bytes() for path in found}


def complex_image(item: dict) -> torch.Tensor:
    real, imaginary = item["image"]
    return torch.complex(real, imaginary)


def scaled(image: torch.Tensor) -> torch.Tensor:
    magnitude = image.abs().flatten()
    return image / magnitude.kthvalue(int(0.99 * (len(magnitude) - 1)) + 1).values


def relative_error(image: torch.Tensor, truth: torch.Tensor) -> float:
    return float((image - truth).norm() / truth.norm())


def test_fastmri(tmp_path, capsys):
    truth = images(4, (96, 56))
    truth[1] = 0  # a slice without signal, as at the ends of a volume
    path = write_fastmri(tmp_path / "file1000001.h5", truth)
    single = write_fastmri(tmp_path / "single.h5", truth[:1], coils=1)
    table = tmp_path / "knee.csv"
    table.write_text(
        "file,slice,study_level,x,y,width,height,label\n"
        "file1000001,2,No,1,1,2,2,Meniscus Tear\nfile1000001,2,No,1,1,2,2,Meniscus Tear\n"
        "file1000001,3,No,1,1,2,2,Joint Effusion\nother,0,No,1,1,2,2,Joint Effusion\n"
    )
    out = tmp_path / "set"
    arguments = ("prepare", "fastmri", path, single, "--out", out, "--size", *SIZE)
    assert run(*arguments, "--annotations", table, "--workers", 1) == 0
    assert "2 volumes with 4 slices" in capsys.readouterr().out

    data = ShardSlices(out)
    assert [item["metadata"].slice for item in items(data)] == [0, 2, 3, 0]
    assert data[1]["metadata"] == ScanMetadata(
        anatomy="knee",
        slice=2,
        contrast="PDFS",
        pathologies=("Meniscus Tear", "Meniscus Tear"),
        sequence="TurboSpinEcho",
        tr=3120,
        te=33,
        ti=100,
        flip_angle=140,
    )
    for item, number in zip(items(data), (0, 2, 3, 0), strict=True):
        image = complex_image(item)
        assert image.shape == SIZE
        assert scaled(image).allclose(image)  # the 99 % quantile is 1
        # The phase of estimated maps is a convention; lines beyond the encoded ones are missing.
        expected = scaled(truth[number][MIDDLE])
        assert relative_error(image.abs(), expected.abs()) < 0.02

    with safe_open(out / "file1000001.safetensors", "np") as file:
        notes = json.loads(file.metadata()["ctxrecon"])
    assert notes["prompts"][1] == (
        "knee, Slice 2, PDFS, Pathology: 2 Meniscus Tear, Sequence: TurboSpinEcho, TR: 3120, "
        "TE: 33, TI: 100, Flip angle: 140"
    )
    assert notes["empty_slices"] == 1
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["volumes"], summary["slices"], summary["empty_slices"]) == (2, 4, 1)

    # Again: nothing is left to do, and nothing changes.
    before = contents(out)
    assert run(*arguments, "--annotations", table) == 0
    assert contents(out) == before
    assert "already done: 2" in capsys.readouterr().out
    # Other annotations are other settings.
    table.write_text(table.read_text().replace("Tear", "tear"))
    assert run(*arguments, "--annotations", table) == 2
    assert "made with annotations_sha256" in capsys.readouterr().err


def test_skmtea(tmp_path, capsys):
    truth = images(40, (36, 20))  # (x, y, z)
    truth[:, :, 0] = 0
    maps = 2 * torch.stack([coil_maps((36, 20))[0]] * 40)
    inputs = [tmp_path / f"MTR_{number}.h5" for number in ("005", "006", "007", "008")]
    for path in inputs:
        write_skmtea(path, truth, maps)
    with h5py.File(inputs[2], "r+") as file:
        file["maps"][20, 4, 5] = np.nan
    with h5py.File(inputs[3], "r+") as file:
        del file["maps"]
    table = tmp_path / "all_metadata.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                SKMTEA_COLUMNS.split(","),
                ["MTR_005", "48", "F", "20.36", "6.428", "20", "3"],
                ["MTR_007", "", "M", "20.36", "6.428", "20", "3"],
                ["MTR_008", "", "", "20.36", "6.428", "20", "3"],
            ]
        )
    out = tmp_path / "set"
    status = run(
        *("prepare", "skmtea", *inputs, "--out", out),
        *("--headers", table, "--size", 32, 24, "--workers", 1),
    )
    assert status == 1
    shown = capsys.readouterr().err
    assert "no row with MTR_ID 'MTR_006'" in shown
    assert "MTR_007.h5: 'maps' contains values that are not finite" in shown
    assert "MTR_008.h5: expected 'maps' of SKM-TEA's raw-data track" in shown

    data = ShardSlices(out)
    assert data.prompt_form == "skm-tea"
    assert len(data) == 19
    item = data[6]
    assert item["metadata"].to_prompt("skm-tea") == (
        "Qdess, Knee, Slice 7, Age: 48, Sex: F, TR: 20.36, TE: 6.428, Flip Angle: 20, PD"
    )
    expected = scaled(truth[4:36, 6:30, 7])
    assert relative_error(complex_image(item), expected) < 1e-5
    with safe_open(out / "MTR_005.safetensors", "np") as file:
        assert "Slice 7, Age: 48" in json.loads(file.metadata()["ctxrecon"])["prompts"][6]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("MTR_ID,PatientSex\nMTR_005,F\n", "expected the column 'PatientAge'"),
        (f"{SKMTEA_COLUMNS}\nA,40,F,9,6,20,3\nA,40,F,9,6,20,3\n", "line 3: expected one row"),
        (None, "SKM-TEA"),
    ],
)
def test_skmtea_headers_are_checked(tmp_path, text, words):
    table = tmp_path / "table.csv"
    if text is not None:
        table.write_text(text)
    with pytest.raises(InputError, match=words):
        SKMTEASource(headers=table)


@pytest.mark.parametrize(
    ("row", "known", "words"),
    [
        ("old,F,20,6,20,3", {"tr": 20, "te": 6}, "line 2: expected age"),
        ("40,F,0,6,20,3", {"age": 40, "te": 6}, "line 2: expected TR"),
        ("40,F,20,60,20,3", {"age": 40}, "line 2: expected TE"),
    ],
)
def test_impossible_skmtea_headers_are_left_out(tmp_path, caplog, row, known, words):
    table = tmp_path / "table.csv"
    table.write_text(f"{SKMTEA_COLUMNS}\nMTR_005,{row}\n")
    assert read_headers(table)["MTR_005"] == ScanMetadata(
        "knee", sequence="Qdess", sex="F", flip_angle=20, **known
    )
    assert words in caplog.text


def test_labels(tmp_path):
    inputs = [write_labels(tmp_path / name) for name in ("a.nii", "b.nii.gz")]
    sets = {}
    for name, seed, order in (("1", 1, 1), ("2", 1, -1), ("3", 2, 1)):
        out = tmp_path / name
        out.mkdir()
        source = LabelSource(size=(40, 32), slices_per_volume=2, seed=seed)
        prepare_shards(source, inputs[::order], out, workers=1, progress=False)
        sets[name] = contents(out)
    assert sets["1"] == sets["2"]
    assert sets["1"]["a.safetensors"] != sets["3"]["a.safetensors"]
    data = ShardSlices(tmp_path / "1")
    assert len(data) == 4
    assert not torch.equal(data[0]["image"], data[2]["image"])  # one seed, another volume
    for item in items(data):
        assert item["image"].shape == (2, 40, 32)
        assert item["metadata"].anatomy == "brain"
        assert item["metadata"].tr is not None
        image = complex_image(item)
        assert scaled(image).allclose(image)
    assert data[0]["metadata"].slice < data[1]["metadata"].slice


def test_killed_in_the_middle_and_resumed(tmp_path):
    # The last is long, so that the kill comes before it is done.
    inputs = [
        write_fastmri(tmp_path / f"v{number:02}.h5", images(count, (64, 56), 3 * number))
        for number, count in enumerate([3] * 11 + [60])
    ]
    out, whole = tmp_path / "set", tmp_path / "whole"
    command = [sys.executable, "-c", "from ctxrecon.cli import main; main()", "prepare", "fastmri"]
    options = ["--out", out, "--size", *SIZE, "--workers", 2]
    process = subprocess.Popen(
        [str(part) for part in (*command, *inputs, *options)],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    while len(contents(out)) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    made = contents(out)
    assert 3 <= len(made) < 12
    assert not (out / "summary.json").exists()
    # What a kill in the middle of writing leaves.
    (out / ".0123456789abcdef-v11.safetensors").write_bytes(b"half")
    assert len(ShardSlices(out)) == 3 * len(made)

    source = FastMRISource(size=SIZE)
    resumed = prepare_shards(source, inputs, out, workers=1, progress=False)
    whole.mkdir()
    prepare_shards(source, inputs, whole, workers=1, progress=False)
    assert contents(out) == contents(whole)  # also those that two workers had made
    assert made.items() <= contents(whole).items()
    assert (resumed.volumes, resumed.resumed, resumed.slices) == (12, len(made), 93)
    kinds = {path.name for path in out.iterdir()} - set(contents(out))
    assert kinds == {".lock", "settings.json", "summary.json"}
    seen = [
        (item["metadata"].slice, item["image"].sum().item()) for item in items(ShardSlices(out))
    ]
    assert len(set(seen)) == 93


class DyingSource(VolumeSource):
    """Kills the process that reads a volume, as a system that runs out of memory does."""

    kind = "dying"
    suffixes = (".h5",)

    def settings(self) -> dict:
        return {}

    def slices(self, path: Path) -> Iterator[None]:
        os.kill(os.getpid(), signal.SIGKILL)
        yield None


def test_a_worker_that_dies_is_an_error_and_no_hang(tmp_path):
    inputs = [tmp_path / "a.h5", tmp_path / "b.h5"]
    for path in inputs:
        path.write_bytes(b"x")
    with pytest.raises(InputError, match="a worker process died"):
        prepare_shards(DyingSource(), inputs, tmp_path, workers=2, progress=False)
    assert not contents(tmp_path)


def test_interrupted_run_leaves_no_partial_files(tmp_path):
    class Interrupted(DyingSource):
        def slices(self, path: Path) -> Iterator[None]:
            (tmp_path / ".0123456789abcdef-a.safetensors").touch()
            raise KeyboardInterrupt
            yield None

    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(KeyboardInterrupt):
        prepare_shards(Interrupted(), [tmp_path / "a.h5"], tmp_path, workers=1, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == {"a.h5", ".lock", "settings.json"}
