"""The network of ContextMRI's paper, which is counted without memory for its weights."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from scripts import TRAINING


def parameters(**changes: int) -> int:
    """How many parameters the network has on the meta device."""
    config = json.loads((TRAINING / "networks" / "contextmri.json").read_text())
    with torch.device("meta"):
        network = UNet2DConditionModel.from_config({**config, **changes})
    assert all(parameter.is_meta for parameter in network.parameters())
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_network_has_its_published_size() -> None:
    """The "about 400 M" of paper and DeepFloyd is that of IF-I-M, which reads T5 of width 4096.

    With CLIP's width of 768, that of the published weights, the attention pooling of the text and
    its projection are smaller, and 318 M remain.
    """
    assert parameters() == pytest.approx(317.9e6, rel=1e-3)
    assert parameters(encoder_hid_dim=4096) == pytest.approx(371.6e6, rel=1e-3)
