"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctxrecon.phantom import AnatomyBank, knee_anatomy
from ctxrecon.pipelines import ContextMRIPipeline, build_pipeline


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


@pytest.fixture(scope="module")
def pipe() -> ContextMRIPipeline:
    """A small prior of random weights that says nothing; not to be changed."""
    pipeline = build_pipeline(block_out_channels=(8, 8, 16), sample_size=16, seed=3)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator, fresh for each test."""
    return torch.Generator().manual_seed(0)
