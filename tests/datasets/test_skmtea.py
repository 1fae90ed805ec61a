"""SKM-TEA: echoes, their contrasts, the boxes of findings, and what training makes of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from scripts import forget_accelerate
from volumes import SKMTEA_COLUMNS, coil_maps, images, write_skmtea

from ctxrecon.datasets import ShardSlices, SKMTEASource, prepare_shards
from ctxrecon.datasets.skmtea_boxes import read_boxes
from ctxrecon.datasets.source import Slice
from ctxrecon.errors import InputError
from ctxrecon.metadata import from_prompt
from ctxrecon.pipelines import build_pipeline, load_prior
from ctxrecon.training import prior as script

TEAR, LESION = "Meniscal Tear (Vertical/Longitudinal)", "Cartilage Lesion (2A)"
ANNOTATIONS: dict[str, Any] = {
    "info": {"version": "v1.0.0"},
    "categories": [
        {"supercategory": "Meniscal Tear", "supercategory_id": 1, "id": 4, "name": TEAR},
        {"supercategory": "Cartilage Lesion", "supercategory_id": 3, "id": 13, "name": LESION},
    ],
    "tissues": [{"id": 1, "name": "Meniscus"}],
    "images": [
        {"id": 1, "scan_id": "MTR_005", "matrix_shape": [40, 36, 20], "inspected": True},
        {"id": 2, "scan_id": "MTR_006", "matrix_shape": [40, 36, 20], "inspected": True},
    ],
    "annotations": [
        box
        for number, box in enumerate(
            [
                {"category_id": 4, "bbox": [10.0, 9.0, 3.0, 5.0, 5.0, 2.0], "confidence": 4.0},
                {"category_id": 13, "bbox": [20.0, 9.0, 4.0, 5.0, 5.0, 1.0], "confidence": 5.0},
                {"category_id": 13, "bbox": [25.0, 9.0, 4.0, 5.0, 5.0, 30.0], "confidence": 4.0},
                {"category_id": 13, "bbox": [10.0, 9.0, 9.0, 5.0, 5.0, 2.0], "confidence": 3.0},
                {"category_id": 4, "bbox": [0.0, 9.0, 9.0, 4.0, 5.0, 2.0], "confidence": 5.0},
            ]
        )
        if box.update(id=number, image_id=1, tissue_id=1) is None
    ],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two small scans of 40 × 36 × 20, their headers and annotations."""
    truth = images(40, (36, 20))
    maps = torch.stack([coil_maps((36, 20))[0]] * 40)
    for name in ("MTR_005", "MTR_006"):
        write_skmtea(tmp_path / f"{name}.h5", truth, maps)
    (tmp_path / "all_metadata.csv").write_text(
        f"{SKMTEA_COLUMNS}\nMTR_005,48,F,20.36,6.428,20,3\nMTR_006,31,M,,6.428,20,3\n"
    )
    (tmp_path / "v1.0.0").mkdir()
    (tmp_path / "v1.0.0" / "train.json").write_text(json.dumps(ANNOTATIONS))
    return tmp_path


def prepared(data: Path, *options: object) -> ShardSlices:
    out = data / "set"
    command = ("prepare", "skmtea", data / "MTR_005.h5", data / "MTR_006.h5", "--out", out)
    headers = ("--headers", data / "all_metadata.csv", "--workers", 1)
    assert run(*command, *headers, "--size", 32, 24, *options) == 0
    return ShardSlices(out)


def test_both_echoes_have_their_contrast_and_time(data: Path) -> None:
    slices = prepared(data, "--echo", "both")
    assert len(slices) == 80
    first, second = slices[7], slices[27]
    assert first["metadata"].to_prompt("skm-tea") == (
        "Qdess, Knee, Slice 7, Age: 48, Sex: F, TR: 20.36, TE: 6.428, Flip Angle: 20, PD"
    )
    # the second echo's signal is 0.3i of the first's in these files; each is scaled to 1
    assert second["metadata"].to_prompt("skm-tea") == (
        "Qdess, Knee, Slice 7, Age: 48, Sex: F, TR: 20.36, TE: 34.292, Flip Angle: 20, T2"
    )
    assert from_prompt(second["metadata"].to_prompt("skm-tea")) == second["metadata"]
    real, imaginary = first["image"]
    torch.testing.assert_close(second["image"], torch.stack([-imaginary, real]), atol=1e-4, rtol=0)
    assert slices[67]["metadata"].te is None  # its TR is not known
    assert {slices[k]["metadata"].contrast for k in range(80)} == {"PD", "T2"}


def test_the_second_echo_alone(data: Path) -> None:
    slices = prepared(data, "--echo", "2")
    assert len(slices) == 40
    assert {slices[k]["metadata"].contrast for k in range(40)} == {"T2"}


def test_slices_tell_the_boxes_that_reach_into_them(data: Path) -> None:
    slices = prepared(data, "--annotations", data / "v1.0.0")
    found = [slices[k]["metadata"].pathologies for k in range(40)]
    expected = {3: (TEAR,), 4: (TEAR, LESION, LESION)}
    # A box may reach beyond the last slice; one of confidence 3 and one beyond the crop are missing
    expected |= dict.fromkeys(range(5, 20), (LESION,))
    assert {k: words for k, words in enumerate(found) if words} == expected
    assert "Pathology: 1 Meniscal Tear (Vertical/Longitudinal), 2 Cartilage Lesion (2A)" in (
        slices[4]["metadata"].to_prompt("skm-tea")
    )
    assert from_prompt(slices[4]["metadata"].to_prompt("skm-tea")) == slices[4]["metadata"]


def test_another_echo_or_other_boxes_are_another_set(data: Path) -> None:
    prepared(data, "--annotations", data / "v1.0.0")
    headers, out = data / "all_metadata.csv", data / "set"
    scan = [data / "MTR_005.h5"]
    for echo in "12":
        source = SKMTEASource(headers=headers, size=(32, 24), echo=echo)
        with pytest.raises(InputError, match="made with"):
            prepare_shards(source, scan, out, workers=1, progress=False)
    with pytest.raises(InputError, match="echo"):
        SKMTEASource(headers=headers, echo="3")


def test_a_scan_that_the_annotations_lack_is_told(data: Path, caplog: Any) -> None:
    content = copy.deepcopy(ANNOTATIONS)
    content["images"] = content["images"][:1]
    (data / "v1.0.0" / "train.json").write_text(json.dumps(content))
    source = SKMTEASource(
        headers=data / "all_metadata.csv", size=(16, 16), annotations=data / "v1.0.0"
    )
    drawn = [one for one in source.slices(data / "MTR_006.h5") if isinstance(one, Slice)]
    assert len(drawn) == 20
    assert not any(one.metadata.pathologies for one in drawn)
    assert "no scan 'MTR_006'" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("categories"),
        lambda content: content["annotations"][0].update(bbox=[1, 2, 3]),
        lambda content: content["annotations"][0].update(category_id=99),
        lambda content: content["annotations"][0].update(confidence="sure"),
        lambda content: content.update(images=5),
        lambda content: content.update(images=["MTR_005"]),
    ],
)
def test_damaged_annotations_are_refused(tmp_path: Path, damage: Any) -> None:
    content = copy.deepcopy(ANNOTATIONS)
    damage(content)
    (tmp_path / "val.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"val\.json .*layout.*annotations/v1"):
        read_boxes(tmp_path)


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v1.0.0").mkdir()
    with pytest.raises(InputError, match=r"train\.json"):
        read_boxes(tmp_path)


def test_a_prior_is_fine_tuned_on_it_at_two_sizes(data: Path, monkeypatch: Any) -> None:
    prepared(data, "--echo", "both", "--annotations", data / "v1.0.0")
    pipe = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16)
    pipe.save_pretrained(data / "before")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    forget_accelerate()
    script.main(
        [
            *("--pretrained_model_name_or_path", str(data / "before")),
            *("--train_data_dir", str(data / "set"), "--resolution", "16", "24"),
            *("--output_dir", str(data / "run"), "--train_batch_size", "4"),
            *("--max_train_steps", "4", "--learning_rate", "1e-4", "--lr_warmup_steps", "1"),
            *("--prediction_type", "epsilon", "--validation_scans", "0", "--report_to", "none"),
        ]
    )
    after = load_prior(data / "run" / "pipeline")
    pairs = zip(after.unet.parameters(), pipe.unet.parameters(), strict=True)
    moved = max((new - old).detach().abs().max().item() for new, old in pairs)
    assert 0 < moved < 0.02
