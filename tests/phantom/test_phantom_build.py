"""Banks of anatomies: the same for a seed, upright in every plane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from narrow import present

from ctxrecon.errors import InputError
from ctxrecon.phantom import AnatomyBank, knee_anatomy
from ctxrecon.phantom.build import build_bank
from ctxrecon.phantom.labels import PLANES, anatomy_from_labels
from ctxrecon.phantom.tissues import Tissue
from ctxrecon.training import bank as script
from ctxrecon.training.config import UsageError


def head() -> np.ndarray:
    """A head of skin with brain in the upper half and an eye in front, ``(I, P, L)`` axes."""
    volume = np.full((60, 60, 60), 511, np.int16)
    volume[10:35, 15:50, 15:45] = 2
    volume[40:50, 2:12, 15:45] = 506
    return np.pad(volume, 2)


@pytest.fixture(scope="module")
def volume_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("labels") / "head.nii.gz"
    affine = np.zeros((4, 4))
    affine[2, 0] = affine[1, 1] = affine[0, 2] = -1  # axes to inferior, posterior, left
    affine[3, 3] = 1
    nibabel.save(nibabel.Nifti1Image(head(), affine), path)
    return path


def test_a_bank_is_the_same_however_many_processes_draw_it(volume_file: Path) -> None:
    settings: dict[str, Any] = dict(
        knees=2, brains=1, label_volumes=[volume_file], label_slices=5, size=48, seed=3
    )
    one = build_bank(**settings, progress=False)
    two = build_bank(**settings, workers=2, progress=False)
    np.testing.assert_array_equal(one.labels, two.labels)
    assert (one.names, one.pathologies) == (two.names, two.pathologies)
    assert present(one.subjects).tolist() == [0, 1, 2, 3, 3, 3, 3, 3]
    other = build_bank(**{**settings, "seed": 4}, progress=False)
    assert not np.array_equal(one.labels[0], other.labels[0])


@pytest.mark.parametrize("plane", PLANES)
def test_slices_of_every_plane_are_upright(plane: str) -> None:
    rng = np.random.default_rng(1)
    anatomy = anatomy_from_labels(head(), 0.5, rng, size=64, voxel_mm=1.2, plane=plane)
    assert (anatomy.slice is None) == (plane != "axial")
    rows, columns = np.nonzero(anatomy.labels == int(Tissue.WHITE_MATTER))
    if plane == "axial":
        return
    assert rows.mean() < 30  # the brain is in the upper half
    if plane == "sagittal":
        eye_rows, eye_columns = np.nonzero(anatomy.labels == int(Tissue.VITREOUS))
        assert eye_columns.mean() < columns.mean() - 10  # the face looks to the left
        assert eye_rows.mean() > rows.mean()


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to draw"):
        build_bank()


def test_arguments_without_effect_are_refused(volume_file: Path) -> None:
    for match, given in (
        ("brains", {"knees": 1, "finding": "Mass"}),
        ("Flu", {"knees": 1, "finding": "Flu"}),
        ("label_volumes", {"knees": 1, "label_slices": 50}),
        ("label_slices", {"knees": 1, "label_volumes": [volume_file]}),
    ):
        options: dict[str, Any] = given
        with pytest.raises(InputError, match=match):
            build_bank(**options, size=32, progress=False)


def test_options_without_effect_are_refused(tmp_path: Path, volume_file: Path) -> None:
    few = ["--output", str(tmp_path / "bank.npz"), "--knees", "1", "--brains", "0"]
    few += ["--size", "32", "--workers", "1"]
    for match, options in (
        ("Flu", ["--finding", "Flu"]),
        ("brains", ["--finding", "Mass"]),
        ("label_volumes", ["--label_slices", "50"]),
        ("label_slices", ["--label_volumes", str(volume_file), "--label_slices", "0"]),
    ):
        with pytest.raises((InputError, UsageError), match=match):
            script.main([*few, *options])
    assert not list(tmp_path.iterdir())


def test_label_volumes_have_a_default_number_of_slices(
    tmp_path: Path, volume_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def build(**options: Any) -> AnatomyBank:
        asked.append(options["label_slices"])
        return AnatomyBank.build([knee_anatomy(torch.Generator(), size=32)])

    monkeypatch.setattr(script, "build_bank", build)
    output = ["--output", str(tmp_path / "bank.npz"), "--overwrite"]
    script.main(output)
    script.main([*output, "--label_volumes", str(volume_file)])
    script.main([*output, "--label_volumes", str(volume_file), "--label_slices", "7"])
    assert asked == [0, 3000, 7]


def test_an_existing_bank_is_replaced_only_on_request(tmp_path: Path) -> None:
    bank = tmp_path / "bank.npz"
    few = ["--output", str(bank), "--brains", "0", "--size", "32", "--workers", "1", "--knees"]
    script.main([*few, "1"])
    with pytest.raises(InputError, match=r"already exists.*--overwrite"):
        script.main([*few, "2"])
    assert len(AnatomyBank.load(bank)) == 1
    script.main([*few, "2", "--overwrite"])
    assert len(AnatomyBank.load(bank)) == 2


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_label_volume_is_never_replaced(
    tmp_path: Path, volume_file: Path, options: list[str]
) -> None:
    own = tmp_path / "head.npz"  # the name that a bank needs, for a link to the volume
    own.symlink_to(volume_file)
    before = volume_file.read_bytes()
    for output in (own, volume_file):
        with pytest.raises(InputError, match="one of the label volumes"):
            script.main(["--output", str(output), "--label_volumes", str(volume_file), *options])
    assert volume_file.read_bytes() == before
