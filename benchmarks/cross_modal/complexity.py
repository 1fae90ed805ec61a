"""Parameters and operations of the network at its published size."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ctxrecon.operators import CartesianSense
from ctxrecon.reconstructors import CROSS_MODAL, SpectralCritic

_SIZE = 320
PUBLISHED = {"OT-based, published": (27.86, 104.01), "SAN, published": (47.23, 174.71)}
"""Wang et al., Table VI: millions of parameters, 10⁹ multiply-accumulates."""


def complexity() -> dict[str, Any]:
    """Count parameters (10⁶) and multiply-accumulates (10⁹) of each part at 320².

    The published program runs every network once; so R runs once here, without a guide.
    """
    network, critic = CROSS_MODAL["paper"](guidance="none", passes=1), SpectralCritic()
    images = torch.randn(1, _SIZE, _SIZE, dtype=torch.complex64)
    operator = CartesianSense(torch.ones((1, 1, _SIZE, _SIZE), dtype=torch.bool))
    data = network.normalize(operator, operator(images), images)
    assert network.aligner is not None
    aligner = network.aligner
    parts: dict[str, tuple[nn.Module, Any]] = {
        "R": (network.reconstructor, lambda: network.reconstructor(data, data.zero_filled)),
        "OT_S": (aligner, lambda: aligner(images, images)),
        "OT_M": (network.synthesizer, lambda: network.synthesize(data, images)),
        "critic of OT_S": (critic, lambda: critic(critic.seen(images))),
        "critic of OT_M": (critic, lambda: critic(critic.seen(images))),
    }
    found = {}
    for name, (part, run) in parts.items():
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
        parameters = sum(value.numel() for value in part.parameters())
        found[name] = {"parameters": parameters / 1e6, "macs": counter.get_total_flops() / 2e9}
    found["together"] = {
        key: sum(one[key] for one in found.values()) for key in ("parameters", "macs")
    }
    for name, (millions, macs) in PUBLISHED.items():
        found[name] = {"parameters": millions, "macs": macs}
    return found
