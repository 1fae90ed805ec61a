"""Results on a GPU equal those on the CPU.

Skipped without a GPU. ``CTXRECON_TEST_DEVICE=cpu pytest tests/test_cuda.py`` runs the tests
themselves on a machine without one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from narrow import images_of
from scripts import forget_accelerate
from torch.utils.data import default_collate

from ctxrecon.baselines import BASELINES
from ctxrecon.coils import estimate_coil_maps
from ctxrecon.masks import uniform1d
from ctxrecon.phantom import AnatomyBank, PhantomSlices, brain_anatomy, phantom_scan
from ctxrecon.phantom.imaging import TissueRecipe
from ctxrecon.pipelines import (
    BaselinePipeline,
    Measurement,
    load_prior,
    load_reconstructor,
)
from ctxrecon.solvers import SOLVERS
from ctxrecon.training import prior as training

DEVICE = os.environ.get("CTXRECON_TEST_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"
)


@pytest.fixture(scope="module")
def measurement() -> Measurement:
    """Two slices of a brain, 64 × 48, 4 coils, every third line."""
    generator = torch.Generator().manual_seed(1)
    mask = uniform1d((64, 48), 3, 0.2, generator=generator)
    scans = [
        phantom_scan("brain", shape=(64, 48), num_coils=4, mask=mask, snr=100, generator=generator)
        for _ in range(2)
    ]
    maps = [scan.coil_maps for scan in scans if scan.coil_maps is not None]
    kspace = torch.cat([scan.kspace for scan in scans])
    return Measurement.from_arrays(kspace, mask, torch.cat(maps))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.device.type == DEVICE
    return float((found.cpu() - expected).norm() / expected.norm())


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver(measurement: Measurement, solver: str) -> None:
    images = []
    for device in ("cpu", DEVICE):
        pipe = load_prior(device=device)
        pipe.set_progress_bar_config(disable=True)
        output = pipe(
            measurement,
            prompt="Brain, T2",
            solver=solver,
            num_inference_steps=3,
            generator=[torch.Generator().manual_seed(seed) for seed in range(2)],
        )
        images.append(images_of(output))
    # Convolutions in TF32 or in another order: not to the last digit.
    assert relative(images[1], images[0]) < 2e-2


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline(measurement: Measurement, name: str) -> None:
    expected = images_of(BaselinePipeline(name)(measurement))
    found = images_of(BaselinePipeline(name)(measurement.to(DEVICE)))
    assert relative(found, expected) < 1e-3


def test_the_network(measurement: Measurement) -> None:
    expected, found = (
        images_of(load_reconstructor(device=device)(measurement)) for device in ("cpu", DEVICE)
    )
    assert relative(found, expected) < 2e-2


def test_coil_maps(measurement: Measurement) -> None:
    assert measurement.mask is not None
    expected = estimate_coil_maps(measurement.y, measurement.mask)
    found = estimate_coil_maps(measurement.y.to(DEVICE), measurement.mask.to(DEVICE))
    assert relative(found, expected) < 1e-2


def test_pixels_of_training_images() -> None:
    bank = AnatomyBank.build([brain_anatomy(torch.Generator().manual_seed(0), size=96)])
    data = PhantomSlices(bank, seed=2)
    batch: TissueRecipe = default_collate([data.recipe(n, 48, 1.0).recipe for n in range(4)])
    moved = torch.utils._pytree.tree_map(lambda value: value.to(DEVICE), batch)
    assert relative(moved.render((48, 48)), batch.render((48, 48))) < 1e-4


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_the_prior_trains_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    if DEVICE == "cpu":
        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    generator = torch.Generator().manual_seed(0)
    bank = tmp_path / "bank.npz"
    AnatomyBank.build([brain_anatomy(generator, size=64) for _ in range(4)]).save(bank)
    for steps in ("20", "40"):
        forget_accelerate()
        training.main(
            [
                *("--bank", str(bank), "--output_dir", str(tmp_path / "run")),
                *("--train_text_encoder", "--resolution", "32", "--train_batch_size", "8"),
                *("--mixed_precision", precision, "--max_train_steps", steps),
                *("--validation_scans", "0", "--report_to", "none"),
                *("--resume_from_checkpoint", "auto"),
            ]
        )
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "log.jsonl").open()]
    assert len(losses) == 2
    assert losses[1] < losses[0]
