"""``ctxrecon prepare measured``: complex images of measured k-space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_prepare import run

from ctxrecon.datasets import MeasuredSource, People, ShardSlices
from ctxrecon.datasets.source import LeftOut, Slice
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, fft2c

SIZE = (32, 32)


def image(number: int) -> torch.Tensor:
    """A complex image with something at one place of its own."""
    made = torch.zeros(16, 12, dtype=torch.complex64)
    made[3 + number, 2:5] = torch.tensor(1j)
    made[8, 6] = 2
    return made


def write(folder: Path, notes: list[dict], arrays: dict[str, Any]) -> Path:
    path = folder / "complex.npz"
    np.savez(path, **arrays)
    path.with_suffix(".json").write_text(json.dumps(notes))
    return path


def stored(count: int = 2) -> np.ndarray:
    kspace = torch.stack([fft2c(image(number)) for number in range(count)])
    return torch.view_as_real(kspace).numpy().astype(np.float16)


def note(**changes: object) -> dict:
    return {
        "array": "a",
        "index": 0,
        "subject": "p1",
        "metadata": {"anatomy": "brain", "contrast": "T1", "field_strength": 0.055},
        "source": "a set (CC0)",
    } | changes


def test_images_with_their_phase(tmp_path, capsys):
    path = write(
        tmp_path,
        [note(), note(index=1, subject="p2", flip="rot180"), note(subject="p3")],
        {"a": stored()},
    )
    (tmp_path / "out.txt").write_text("p3\n")
    status = run(
        "prepare", "measured", path, "--out", tmp_path / "set", "--size", *SIZE, "--leave-out",
        tmp_path / "out.txt", "--workers", 1,
    )  # fmt: skip
    assert status == 0
    assert "2 in the set, 1 others" in capsys.readouterr().out
    slices = ShardSlices(tmp_path / "set")
    assert slices.kind == "complex"
    assert list(slices.subjects) == ["p1", "p2"]
    assert slices[0]["metadata"].field_strength == 0.055
    found = channels_to_complex(slices[0]["image"])
    # The field of view stays: k-space is that of the small image, and zero around it.
    kspace = fft2c(found)
    want = fft2c(image(0))
    scale = kspace.abs().max() / want.abs().max()
    torch.testing.assert_close(kspace[8:24, 10:22], want * scale, atol=2e-2, rtol=0)
    rounding = 1e-5 * kspace.abs().max()
    assert kspace[:8].abs().max() < rounding
    assert kspace[:, :10].abs().max() < rounding
    # Pixel n // 2 is the center of the turn.
    turned = channels_to_complex(slices[1]["image"]).abs()
    assert np.unravel_index(int(turned.argmax()), SIZE) == (16, 16)
    path = write(tmp_path, [note(index=1)], {"a": stored()})
    [same] = MeasuredSource(size=SIZE).slices(path)
    assert isinstance(same, Slice)
    across = -torch.arange(32) % 32
    want = torch.from_numpy(np.abs(same.image))[across][:, across]
    torch.testing.assert_close(turned, want * (turned.max() / want.max()), atol=1e-3, rtol=0)


def test_people_and_empty_slices(tmp_path):
    arrays = {"a": np.concatenate([stored(1), np.zeros((1, 16, 12, 2), np.float16)])}
    path = write(tmp_path, [note(), note(index=1)], arrays)
    found = list(MeasuredSource(size=SIZE).slices(path))
    assert found[0] is not None
    assert found[1] is None
    left_out = list(MeasuredSource(size=SIZE, people=People(frozenset({"p1"}))).slices(path))
    assert left_out == [LeftOut("p1")] * 2


BAD_NOTES: dict[str, tuple[dict[str, object], str]] = {
    "no array": ({"array": None}, "'array' as a name"),
    "other array": ({"array": "b"}, "that does not exist"),
    "bool": ({"index": True}, "whole number"),
    "outside": ({"index": 2}, "which has 2"),
    "negative": ({"index": -1}, "which has 2"),
    "flip": ({"flip": "left"}, "'flip' as one of"),
    "nobody": ({"subject": ""}, "the person"),
}


@pytest.mark.parametrize("name", BAD_NOTES)
def test_bad_notes(tmp_path, name):
    changes, message = BAD_NOTES[name]
    path = write(tmp_path, [note(**changes)], {"a": stored()})
    with pytest.raises(InputError, match=message):
        list(MeasuredSource(size=SIZE).slices(path))


BAD_ARRAYS: dict[str, tuple[np.ndarray, str]] = {
    "complex": (np.zeros((1, 16, 12), np.complex64), "of real numbers"),
    "integer": (np.zeros((1, 16, 12, 2), np.int16), "of real numbers"),
    "nan": (np.full((1, 16, 12, 2), np.nan, np.float32), "not finite"),
    "large": (np.zeros((1, 40, 12, 2), np.float32), "larger --size"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays(tmp_path, name):
    array, message = BAD_ARRAYS[name]
    path = write(tmp_path, [note()], {"a": array})
    with pytest.raises(InputError, match=message):
        list(MeasuredSource(size=SIZE).slices(path))


def test_notes_are_needed(tmp_path):
    path = write(tmp_path, [note()], {"a": stored()})
    path.with_suffix(".json").unlink()
    with pytest.raises(InputError, match=r"complex\.json"):
        MeasuredSource(size=SIZE).files(path)
