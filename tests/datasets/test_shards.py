"""Shards: what is written is read back, by several processes too, and damage is named."""

from __future__ import annotations

import json
import os
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch.utils.data import DataLoader

from ctxrecon.datasets import ShardSlices, check_complex_slices, read_shard_info, write_shard
from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.training.masks import data as masks
from ctxrecon.training.reconstructor import data as reconstructor

IMAGES = np.random.default_rng(0).standard_normal((5, 2, 18, 16)).astype(np.float32)
METADATA = [
    ScanMetadata(anatomy="knee", slice=index, te=33.5, pathologies=("Meniscus Tear",) * index)
    for index in range(5)
]
NOTES = {
    "metadata": [{}] * 2,
    "prompts": [""] * 2,
    "prompt_form": "fastmri",
    "source": "a.h5",
    "source_bytes": 1,
    "empty_slices": 0,
}


@pytest.fixture
def folder(tmp_path):
    """Two shards of 3 and 2 slices, and a file that was being written."""
    source = tmp_path / "a.h5"
    source.write_bytes(b"four")
    out = tmp_path / "set"
    out.mkdir()
    write_shard(out / "a.safetensors", IMAGES[:3], METADATA[:3], source=source, empty_slices=4)
    write_shard(out / "b.safetensors", IMAGES[3:], METADATA[3:], source=source)
    (out / ".0123456789abcdef-c.safetensors").write_bytes(b"half of it")
    return out


def test_round_trip(folder):
    data = ShardSlices(folder)
    assert len(data) == 5
    for index, item in enumerate(data[i] for i in range(len(data))):
        assert torch.equal(item["image"], torch.from_numpy(IMAGES[index]))
        assert item["metadata"] == METADATA[index]
    for index in (-1, 5):
        with pytest.raises(IndexError):
            data[index]
    info = read_shard_info(folder / "a.safetensors")
    assert info.shape == (3, 2, 18, 16)
    assert (info.source, info.source_bytes, info.empty_slices) == ("a.h5", 4, 4)
    assert info.prompts[2] == "knee, Slice 2, Pathology: 2 Meniscus Tear, TE: 33.5"


def test_what_is_done_to_an_item_does_not_reach_the_file(folder):
    data = ShardSlices(folder)
    data[1]["image"].zero_()
    assert torch.equal(data[1]["image"], torch.from_numpy(IMAGES[1]))


def test_other_processes_open_their_own(folder):
    data = ShardSlices(folder)
    assert data[4]["metadata"].slice == 4  # opened here before the workers are made
    loader = DataLoader(data, batch_size=None, num_workers=2)
    for index, item in enumerate(loader):
        assert torch.equal(item["image"], torch.from_numpy(IMAGES[index]))
    sent = pickle.loads(pickle.dumps(data))
    assert torch.equal(sent[4]["image"], torch.from_numpy(IMAGES[4]))


def test_prompts_of_two_forms_are_not_mixed(folder, tmp_path):
    path = folder / "c.safetensors"
    write_shard(path, IMAGES, METADATA, source=tmp_path / "a.h5", prompt_form="skm-tea")
    with pytest.raises(InputError, match="form skm-tea"):
        ShardSlices(folder)


def write(path, tensors, notes=NOTES):
    metadata = None if notes is None else {"ctxrecon": json.dumps(notes)}
    save_file(tensors, path, metadata=metadata)


def cut(path):
    write(path, {"images": IMAGES[:2]})
    os.truncate(path, path.stat().st_size - 40)


DAMAGED = {
    "truncated": (cut, "truncated"),
    "text": (lambda p: p.write_text("no shard"), "truncated"),
    "other name": (lambda p: write(p, {"x": IMAGES}), "one tensor 'images', got"),
    "doubles": (lambda p: write(p, {"images": IMAGES.astype("f8")}), "got F64 of shape"),
    "one channel": (lambda p: write(p, {"images": IMAGES[:, :1]}), r"shape \(5, 1, 18, 16\)"),
    "no header": (lambda p: write(p, {"images": IMAGES}, None), "not written by"),
    "too few": (lambda p: write(p, {"images": IMAGES}), "describes 2 slices by metadata"),
    "no list": (lambda p: write(p, {"images": IMAGES}, 3), "header"),
    "unknown field": (
        lambda p: write(p, {"images": IMAGES[:2]}, {**NOTES, "metadata": [{"x": 1}] * 2}),
        "fields of ScanMetadata",
    ),
    "endless": (
        lambda p: write(p, {"images": IMAGES[:2]}, {**NOTES, "empty_slices": float("inf")}),
        "header",
    ),
    "too few people": (
        lambda p: write(p, {"images": IMAGES[:2]}, {**NOTES, "subjects": ["one"]}),
        "describes 1 slices by subjects",
    ),
    "weight": (
        lambda p: write(p, {"images": IMAGES[:2]}, {**NOTES, "weights": [1.0, float("nan")]}),
        "weights that are not positive",
    ),
    "half complex": (
        lambda p: write(p, {"images": IMAGES[:2].astype("f2")}),
        "got F16 of shape",
    ),
    "unknown form": (
        lambda p: write(p, {"images": IMAGES[:2]}, {**NOTES, "prompt_form": "verse"}),
        "unknown prompt form 'verse'",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_shards(folder, name):
    make, words = DAMAGED[name]
    make(folder / "d.safetensors")
    with pytest.raises(InputError, match=words) as error:
        ShardSlices(folder)
    assert "d.safetensors" in str(error.value)


def test_folders_without_shards(tmp_path):
    with pytest.raises(InputError, match="found none at"):
        ShardSlices(tmp_path / "none")
    (tmp_path / ".0123456789abcdef-c.safetensors").write_bytes(b"half of it")
    with pytest.raises(InputError, match="found none"):
        ShardSlices(tmp_path)


def test_volumes_are_split(folder):
    whole = ShardSlices(folder)
    first, second = whole.split(0.5, seed=3)
    assert not set(first.files) & set(second.files)
    assert sorted([*first.files, *second.files]) == whole.files
    assert len(first) + len(second) == len(whole)
    with pytest.raises(InputError, match="volumes in two, got 0"):
        whole.split(0.0)


@pytest.fixture
def people(tmp_path):
    """Magnitudes of three people in two shards, one of them in both."""
    magnitudes = np.abs(IMAGES[:, :1]).astype(np.float16)
    for name, part, subjects in (
        ("a", slice(0, 3), ["ann", "bob", "ann"]),
        ("b", slice(3, 5), ["eve", "bob"]),
    ):
        write_shard(
            tmp_path / f"{name}.safetensors",
            magnitudes[part],
            METADATA[part],
            source=tmp_path / name,
            source_bytes=7,
            subjects=subjects,
            weights=[0.5 + number for number in range(len(subjects))],
            origins=["atlas (CC0)", f"collection {name}"],
            left_out=["zoe"],
        )
    return tmp_path


def test_magnitudes_with_their_people(people):
    data = ShardSlices(people)
    assert data.kind == "magnitude"
    assert data.subjects == ("ann", "bob", "ann", "eve", "bob")
    assert data.weights == (0.5, 1.5, 2.5, 0.5, 1.5)
    assert data.origins == ("atlas (CC0)", "collection a", "collection b")
    image = data[3]["image"]
    assert image.dtype == torch.float32
    expected = torch.from_numpy(np.abs(IMAGES[3, :1]))
    assert torch.allclose(image, expected, rtol=1e-3)
    image.zero_()
    assert data[3]["image"].any()
    assert read_shard_info(people / "b.safetensors").left_out == ("zoe",)


def test_slices_of_some_people(people):
    data = ShardSlices(people)
    bob = data.of_subjects(["bob", "nobody"])
    assert bob.subjects == ("bob", "bob")
    assert bob.weights == (1.5, 1.5)
    assert [item["metadata"].slice for item in iter(bob)] == [1, 4]
    eve = data.of_subjects({"eve", "bob"}).of_subjects({"eve"})
    assert [path.stem for path in eve.files] == ["b"]
    assert torch.equal(eve[0]["image"], data[3]["image"])
    with pytest.raises(InputError, match="check the names"):
        eve.of_subjects(["ann"])


def test_people_are_split(people):
    seen = set()
    for seed in range(8):
        parts = ShardSlices(people).split(1 / 3, seed=seed)
        first, second = (set(part.subjects) for part in parts)
        assert (len(first), first | second, first & second) == (1, {"ann", "bob", "eve"}, set())
        assert sum(map(len, parts)) == 5
        seen |= first
    assert seen == {"ann", "bob", "eve"}


def test_shards_that_name_nobody(folder):
    data = ShardSlices(folder)
    assert data.subjects == ("a", "a", "a", "b", "b")
    assert (data.weights, data.origins, data.kind) == ((1.0,) * 5, (), "complex")


def test_magnitudes_are_refused_where_phase_is_needed(folder, people):
    assert check_complex_slices(ShardSlices(folder), "a mask")
    with pytest.raises(InputError, match="a mask learns from complex"):
        check_complex_slices(ShardSlices(people), "a mask")
    chosen = {"bank": None, "anatomy": None, "contrasts": "one", "seed": 0, "labels": "all"}
    config: Any = SimpleNamespace(train_data_dir=people, **chosen)
    for source in (masks.source, reconstructor.sources):
        with pytest.raises(InputError, match="magnitude images, which have no phase"):
            source(config)


def test_both_kinds_in_one_folder_are_refused(folder, people):
    os.rename(people / "b.safetensors", folder / "c.safetensors")
    with pytest.raises(InputError, match="separate folders"):
        ShardSlices(folder)
