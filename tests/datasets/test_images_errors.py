"""``ctxrecon prepare images``: damaged, oversized and non-magnitude files are rejected."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_images import BODY, discs, notes_of, write_collection, write_nifti
from test_prepare import contents, run

from ctxrecon.datasets import ImageSource, People, read_people
from ctxrecon.errors import InputError

nibabel = pytest.importorskip("nibabel")


def nan(path):
    data = BODY.copy()
    data[3, 4, 5] = np.nan
    write_nifti(path, data)


def header(path, offset, code, *values):
    """A volume with these values in its header."""
    write_nifti(path)
    raw = bytearray(path.read_bytes())
    struct.pack_into(code, raw, offset, *values)
    path.write_bytes(raw)


def affine(path, matrix):
    """A volume whose header has these three rows and columns."""
    rows = np.c_[np.array(matrix, float), np.zeros(3)]
    header(path, 280, "<12f", *rows.ravel())


VOLUMES = {
    "text": (lambda p: p.write_text("no volume"), "not a readable NIfTI"),
    "cut": (lambda p: (write_nifti(p), p.write_bytes(p.read_bytes()[:900])), "not a readable"),
    "huge": (lambda p: header(p, 42, "<3h", 32767, 32767, 32767), "states"),
    "nan": (nan, "not finite"),
    "phase": (lambda p: write_nifti(p, np.sin(7 * BODY)), "expected magnitudes"),
    "zeros": (lambda p: write_nifti(p, 0 * BODY), "is empty"),
    "complex": (lambda p: write_nifti(p, BODY.astype(np.complex64)), "real numbers"),
    "series": (lambda p: write_nifti(p, BODY) and header(p, 40, "<5h", 4, 11, 13, 12, 8), "axes"),
    "flat": (lambda p: affine(p, np.diag([1, 0, 1])), "affine is damaged"),
    "skewed": (lambda p: affine(p, np.eye(3)[[0, 0, 2]]), "affine is damaged"),
    "long": (lambda p: affine(p, np.diag([1, 30, 60])), "which is implausible"),
    "sidecar": (
        lambda p: (write_nifti(p), p.with_suffix(".json").write_text("[1")),
        "not valid JSON",
    ),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes_that_are_refused(tmp_path, name):
    make, words = VOLUMES[name]
    path = tmp_path / f"{name}.nii"
    make(path)
    with pytest.raises(InputError, match=words) as error:
        list(ImageSource(size=(32, 32)).slices(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("place", [-8, -4])
def test_compressed_volumes_of_another_checksum_or_length(tmp_path, place):
    path = tmp_path / "a.nii.gz"
    write_nifti(path)
    raw = bytearray(path.read_bytes())
    assert list(ImageSource(size=(32, 32)).slices(path))
    raw[place] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="not a readable NIfTI"):
        list(ImageSource(size=(32, 32)).slices(path))


def member(folder: Path, content: bytes) -> None:
    with zipfile.ZipFile(folder / "slices.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content)


def claims(folder: Path) -> None:
    """The header announces a terabyte."""
    text = repr({"descr": "|u1", "fortran_order": False, "shape": (2**24, 256, 256)})
    text = text + " " * (117 - len(text)) + "\n"
    member(folder, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())


def pickled(folder: Path) -> None:
    np.savez(folder / "slices.npz", images=np.array([{}, {}], object))


def text_of(folder: Path, text: str) -> None:
    (folder / "slices.json").write_text(text)


def changed(**values: object):
    """Notes, the second of them with other values."""
    notes = notes_of("ann", "bob")
    notes[1] |= values
    return lambda folder: text_of(folder, json.dumps(notes))


COLLECTIONS = {
    "cut": (lambda f: (f / "slices.npz").write_bytes(b"PK\x03\x04" + bytes(90)), "truncated"),
    "huge": (claims, "truncated or damaged"),
    "pickle": (pickled, "pickled Python objects"),
    "other name": (lambda f: np.savez(f / "slices.npz", x=discs(2)), "'images', found x"),
    "floats": (lambda f: np.savez(f / "slices.npz", images=discs(2) / 2.0), "of uint8"),
    "flat": (lambda f: np.savez(f / "slices.npz", images=discs(2)[0]), "of uint8"),
    "number": (lambda f: np.savez(f / "slices.npz", images=discs(3)), "3 slices"),
    "slice notes": (lambda f: (f / "slices.json").unlink(), "slices.json does not exist"),
    "object": (lambda f: text_of(f, "{}"), "list of notes"),
    "no JSON": (lambda f: text_of(f, "[{"), "not valid JSON"),
    "deep": (lambda f: text_of(f, "[" * 100_000), "not valid JSON"),
    "nobody": (changed(subject=" "), "note 1: expected an object with the person"),
    "numbers": (lambda f: text_of(f, "[1, 2]"), "note 0: expected an object"),
    "weight": (changed(weight=float("nan")), "note 1: expected 'weight' above 0"),
    "no weight": (changed(weight=0), "note 1: expected 'weight' above 0"),
    "much weight": (changed(weight=10**400), "at most 1e\\+06"),
    "weight in words": (changed(weight="1"), "'weight' as a number"),
    "source": (changed(source=3), "note 1: expected 'source' as text"),
    "metadata": (changed(metadata={"echo": 3}), "fields of ScanMetadata"),
}


@pytest.mark.parametrize("name", COLLECTIONS)
def test_collections_that_are_refused(tmp_path, name):
    make, words = COLLECTIONS[name]
    folder = write_collection(tmp_path / "c", discs(2), notes_of("ann", "bob"))
    make(folder)
    with pytest.raises(InputError, match=words):
        list(ImageSource(size=(32, 32)).slices(folder / "slices.npz"))


def test_the_others_are_made(tmp_path, capsys):
    good = write_nifti(tmp_path / "in" / "good.nii")
    write_nifti(tmp_path / "in" / "phase.nii", np.sin(7 * BODY))
    (tmp_path / "in" / ".hidden.nii").write_bytes(b"x")
    (tmp_path / "in" / "readme.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "set"
    inputs = (good.parent, tmp_path / "empty", tmp_path / "in" / "readme.txt")
    assert run("prepare", "images", *inputs, "--out", out, "--size", 32, 32) == 1
    shown = capsys.readouterr().err
    assert "3 of 4 volumes failed" in shown
    for words in ("contains no images", "readme.txt: expected .nii.gz", "in-phase skipped"):
        assert words in shown
    assert set(contents(out)) == {"in-good.safetensors"}


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no names"), (b" \n\n", "no names"), (b"\xff\xfe", "UTF-8"), (None, "read")],
)
def test_lists_of_people(tmp_path, content, words):
    path = tmp_path / "people.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_people(path)


def test_people_asked_for():
    people = People(frozenset({"ann"}), frozenset({"ann", "bob", "eve"}))
    assert [name in people for name in ("ann", "bob", "zoe")] == [False, True, False]
    assert people.unmatched({"ann", "zoe"}) == ["bob", "eve"]
    assert "zoe" in People()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": (8, 300)}, "size of at least"),
        ({"max_slices": 0}, "max_slices` of at least 1"),
        ({"anatomy": "knee, left"}, "without commas"),
    ],
)
def test_options(options, words):
    with pytest.raises(InputError, match=words):
        ImageSource(**options)


def test_folders_that_cannot_be_listed(tmp_path, monkeypatch):
    def walk(path, *, onerror):
        onerror(PermissionError(13, "Permission denied", str(tmp_path / "b")))
        return iter([])

    monkeypatch.setattr("ctxrecon.datasets.images.os.walk", walk)
    with pytest.raises(InputError, match="check its permissions"):
        ImageSource(size=(32, 32)).find(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "people.txt").write_bytes(b"\xef\xbb\xbfsub-01\r\nsub-02\r\n")
    assert read_people(tmp_path / "people.txt") == {"sub-01", "sub-02"}
