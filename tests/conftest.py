"""Fixtures that several test files share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conventions import full_scan

from ctxrecon.phantom import AnatomyBank, knee_anatomy
from ctxrecon.phantom.build import build_bank
from ctxrecon.pipelines import ContextMRIPipeline, build_pipeline
from ctxrecon.plausibility import check_conventions
from ctxrecon.scan import Scan


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Undo what trainings that run in this process change in the package's loggers."""
    package, trainings = logging.getLogger("ctxrecon"), logging.getLogger("ctxrecon.training")
    level, handlers, of_trainings = package.level, package.handlers[:], trainings.level
    yield
    package.setLevel(level)
    package.handlers[:] = handlers
    trainings.setLevel(of_trainings)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data for development; tests that need it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real development data is not here")
    return folder


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of three knees of 64²."""
    path = tmp_path_factory.mktemp("bank") / "bank.npz"
    generator = torch.Generator().manual_seed(0)
    AnatomyBank.build([knee_anatomy(generator, size=64) for _ in range(3)]).save(path)
    return path


@pytest.fixture(scope="session")
def masses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank of three brains with masses and three knees, of 64²."""
    path = tmp_path_factory.mktemp("masses") / "bank.npz"
    build_bank(knees=3, brains=3, size=64, finding="Mass", progress=False).save(path)
    return path


@pytest.fixture(scope="module")
def pipe() -> ContextMRIPipeline:
    """A small prior with random weights and no progress bar; not to be changed."""
    pipeline = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16, seed=3)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def prior(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small prior of random weights; not to be changed."""
    folder = tmp_path_factory.mktemp("models") / "small"
    build_pipeline(block_out_channels=(8, 8, 16), sample_size=16).save_pretrained(folder)
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator, fresh for each test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def brain_scan() -> Scan:
    """A fully sampled brain of 96 × 80 with 4 coils; not to be changed."""
    return full_scan()


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Callable[..., str]:
    """Return the warnings about a measurement in one string."""

    def call(*measurement: torch.Tensor) -> str:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            check_conventions(*measurement)
        return "\n".join(record.getMessage() for record in caplog.records)

    return call
