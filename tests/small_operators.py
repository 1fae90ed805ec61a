"""Small operators of every kind but the Cartesian one."""

from __future__ import annotations

import torch

from ctxrecon.masks.trajectories import radial_trajectory, spiral_trajectory
from ctxrecon.operators import (
    CartesianSense,
    Crop,
    Inpainting,
    MultiEcho,
    NonCartesianSense,
    SuperResolution,
)

NY, NX = 12, 10


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def draw_mask(batch=1, seed=0):
    mask = torch.rand(batch, 1, NY, NX, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[..., NY // 2, NX // 2] = True
    return mask


def draw_maps(batch=1, coils=3, shape=(NY, NX), seed=1):
    maps = draw(batch, coils, *shape, seed=seed)
    return maps / maps.abs().square().sum(1, keepdim=True).sqrt()


def radial_weights(trajectory):
    weights = trajectory.norm(dim=1)
    return weights * NY * NX / weights.sum()


def radial(**settings):
    return NonCartesianSense(radial_trajectory(14, 20), draw_maps(**settings))


def weighted():
    trajectory = radial_trajectory(14, 20)
    return NonCartesianSense(trajectory, draw_maps(), radial_weights(trajectory))


OPERATORS = {
    "inpainting": lambda: Inpainting(draw_mask()),
    "inpainting-batch": lambda: Inpainting(draw_mask(batch=3)),
    "super-resolution": lambda: SuperResolution((1, NY, NX), 2),
    "super-resolution-batch": lambda: SuperResolution((2, 9, 15), 3),
    "radial": radial,
    "radial-batch": lambda: radial(batch=3),
    "radial-odd": lambda: NonCartesianSense(radial_trajectory(9, 15), draw_maps(shape=(9, 7))),
    "radial-weighted": weighted,
    "spiral": lambda: NonCartesianSense(spiral_trajectory(4, 60, 2.0), draw_maps()),
    "multi-echo": lambda: MultiEcho([CartesianSense(draw_mask(seed=e)) for e in range(4)]),
    "multi-echo-radial": lambda: MultiEcho([radial(batch=2), radial()]),
    "folded": lambda: MultiEcho([CartesianSense(draw_mask(seed=e)) for e in range(2)]).folded(3),
    "inpainting-crop": lambda: Inpainting(draw_mask()) @ Crop((1, 16, 16), (NY, NX)),
    "super-resolution-crop": lambda: SuperResolution((1, NY, NX), 2) @ Crop((1, 16, 16), (NY, NX)),
    "radial-crop": lambda: radial() @ Crop((1, 16, 16), (NY, NX)),
    "folded-crop": lambda: (
        MultiEcho([Inpainting(draw_mask(seed=e)) for e in range(2)]).folded()
        @ Crop((2, 16, 16), (NY, NX))
    ),
}
