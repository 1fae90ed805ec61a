"""Slices that a stopped reconstruction left, damaged."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctxrecon.commands.partial import PartialFolder
from ctxrecon.commands.results import Part, Result
from ctxrecon.errors import InputError
from ctxrecon.files import read_json
from ctxrecon.training.checkpoints import is_whole
from ctxrecon.training.run_folder import read_stages

SHAPE = (1, 4, 6)


def kept(folder: Path) -> PartialFolder:
    partial = PartialFolder(folder, {"seed": 0}, overwrite=False)
    images = torch.ones(SHAPE, dtype=torch.complex64)
    results = [Result("TV", "tv", images, torch.zeros(1), 1.0)]
    partial.save(0, Part(results, images.clone()))
    return partial


def altered(**changes: object) -> dict[str, Any]:
    arrays = {
        "names": np.array([("TV", "tv")]),
        "seconds": np.array([1.0]),
        "images_0": np.ones(SHAPE, np.complex64),
        "residual_0": np.zeros(1, np.float32),
        "reference": np.ones(SHAPE, np.complex64),
    } | changes
    return {name: np.asarray(value) for name, value in arrays.items() if value is not None}


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    part = kept(tmp_path / "x").load(0, SHAPE)
    assert part is not None
    assert part.results[0].key == "tv"
    assert part.reference is not None
    assert kept(tmp_path / "x").load(1, SHAPE) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"names": None},
        {"names": [("TV", "tv", "x")]},
        {"names": 3},
        {"names": "TV"},
        {"seconds": [1.0, 2.0]},
        {"seconds": [None]},
        {"images_0": None},
        {"images_0": np.ones((1, 4, 5), np.complex64)},
        {"images_0": np.ones(SHAPE, ">c8")},
        {"residual_0": np.zeros((1, 1), np.float32)},
        {"reference": None},
        {"reference": np.ones(SHAPE, "U1")},
        {"std_0": np.ones((2, 4, 6), np.float32)},
    ],
    ids=str,
)
def test_slices_of_another_layout_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    partial = kept(tmp_path)
    with (tmp_path / "slice_00000.npz").open("wb") as file:
        np.savez(file, **altered(**changes))
    with pytest.raises(InputError, match="delete it"):
        partial.load(0, SHAPE)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-60:-20] = bytes(40)
    path.write_bytes(raw)


def _encrypted(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    entry = raw.find(b"PK\x01\x02")
    while entry >= 0:
        raw[entry + 8] |= 1
        entry = raw.find(b"PK\x01\x02", entry + 1)
    path.write_bytes(raw)


def _half_a_header(path: Path) -> None:
    header = b"{'descr': '<c8', 'fortran_order': False, 'shape': (1, 4, 6), '(".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("names.npy", b"\x93NUMPY\x01\x00" + b"\x76\x00" + header)


def _text(path: Path) -> None:
    path.write_text("no archive")


@pytest.mark.parametrize("damage", [_truncated, _flipped, _half_a_header, _text, _encrypted])
def test_damaged_slices_are_refused(tmp_path: Path, damage) -> None:
    partial = kept(tmp_path)
    damage(tmp_path / "slice_00000.npz")
    with pytest.raises(InputError, match="delete it"):
        partial.load(0, SHAPE)


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", '{"seed": ' + "9" * 5000 + "}"])
def test_damaged_settings_are_refused(tmp_path: Path, text: str) -> None:
    kept(tmp_path)
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(InputError, match="another --out") as caught:
        kept(tmp_path)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"[1]", "JSON object"),
        (b"\xff", "not valid JSON"),
        (None, "cannot be read"),
    ],
)
def test_json_from_outside_is_read_or_refused(tmp_path: Path, content, words: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_json(path, "the settings", "make it again")
    assert str(caught.value).endswith(": make it again")
    path.write_text('{"a": 1}')
    assert read_json(path, "the settings", "make it again") == {"a": 1}


def test_a_training_checkpoint_with_a_deep_state_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("[" * 100_000)
    assert not is_whole(tmp_path)


def test_options_of_a_run_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="nested too deeply"):
        read_stages(tmp_path / "config.json")
