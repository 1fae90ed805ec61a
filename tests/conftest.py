"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctxrecon.pipelines import ContextMRIPipeline, build_pipeline


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data for development; tests that need it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real development data is not here")
    return folder


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
