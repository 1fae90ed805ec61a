"""Comparison of the outputs of every method before and after a change of the code.

    python -m benchmarks.same_numbers save FOLDER       # before the change
    python -m benchmarks.same_numbers compare FOLDER    # after the change

Methods are the shipped prior with each solver at three accelerations, for one slice and a batch of
two, one image and two samples; the shipped network; every baseline with one and two sets of coil
maps; and a two-contrast network with its sampler. ``save`` also writes the latter as a checkpoint,
so that ``compare`` loads a checkpoint of the old code. Outputs are float32 results of one machine
and must be compared on the same machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.common.arguments import study_parser
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.masks import uniform1d
from ctxrecon.masks.learned import PerContrastSampler
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import (
    BaselinePipeline,
    JointPipeline,
    load_joint,
    load_prior,
    load_reconstructor,
)
from ctxrecon.reconstructors import HRUNet
from ctxrecon.solvers import SOLVERS

SHAPE = (64, 64)
TOLERANCE = 1e-6
ACCELERATIONS = (2.0, 4.0, 8.0)
BASELINES = ("zero_filled", "cg_sense", "l1_wavelet", "total_variation")
PROMPT = "Brain, T2, TR: 4000, TE: 90"
STEPS = 5


def save_inputs(folder: Path) -> None:
    """Write two phantom slices, their coil maps, masks, and a two-contrast checkpoint."""
    generator = torch.Generator().manual_seed(0)
    slices = [
        phantom_scan(name, shape=SHAPE, num_coils=4, generator=generator)
        for name in ("brain", "knee")
    ]
    kspace = torch.cat([scan.kspace for scan in slices])
    maps = torch.cat([scan.coil_maps for scan in slices if scan.coil_maps is not None])
    other = simulate_coil_maps(4, SHAPE, generator=generator)
    other = other - maps * (maps.conj() * other).sum(dim=1, keepdim=True)
    other = other / other.abs().square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-6)
    masks = {
        f"mask{acceleration:g}": uniform1d(
            SHAPE, acceleration, 0.32 / acceleration, generator=generator
        )
        for acceleration in ACCELERATIONS
    }
    arrays = {"kspace": kspace, "maps": maps, "pair": torch.stack([maps, other], dim=1), **masks}
    folder.mkdir(parents=True, exist_ok=True)
    values: dict[str, Any] = {name: array.numpy() for name, array in arrays.items()}
    np.savez_compressed(folder / "inputs.npz", **values)
    torch.manual_seed(1)
    network = HRUNet(width=4, depth=2)
    with torch.no_grad():  # otherwise layers initialized to zero have no effect
        for weights in network.parameters():
            weights += 0.1 * torch.randn(weights.shape)
    sampler = PerContrastSampler(SHAPE, 2, 3.0, center_fraction=0.1)
    JointPipeline(network, sampler, contrasts=2).save_pretrained(folder / "joint")


def results(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield name and values of each case."""
    with np.load(folder / "inputs.npz") as file:
        inputs = {name: torch.from_numpy(file[name]) for name in file.files}
    kspace, maps, pair = inputs["kspace"], inputs["maps"], inputs["pair"]
    pipes: dict[str, Any] = {
        "prior": load_prior(),
        "network": load_reconstructor(),
        "joint": load_joint(folder / "joint"),
    }
    for pipe in pipes.values():
        pipe.set_progress_bar_config(disable=True)
    for acceleration in ACCELERATIONS:
        mask = inputs[f"mask{acceleration:g}"]
        y = kspace * mask
        for solver in SOLVERS:
            calls: dict[str, tuple[Tensor, Tensor, dict[str, Any]]] = {
                "single": (y[:1], maps[:1], {}),
                "batch": (y, maps, {}),
                "two samples": (y[:1], maps[:1], {"num_samples": 2}),
                "two sets": (y[:1], pair[:1], {}),
            }
            if solver == "dds3d" or solver in ("pnp_admm", "pnp_hqs", "red_diff"):
                del calls["two samples"]
            for name, (data, coil_maps, options) in calls.items():
                generator = torch.Generator().manual_seed(0)
                output = pipes["prior"](
                    data,
                    mask,
                    PROMPT,
                    coil_maps=coil_maps,
                    solver=solver,
                    num_inference_steps=STEPS,
                    generator=generator,
                    **options,
                )
                yield f"{solver} x{acceleration:g}, {name}", output.images
        output = pipes["prior"](y, mask, PROMPT, num_inference_steps=STEPS, guidance_scale=2.0)
        yield f"prior x{acceleration:g}, estimated maps, guidance 2", output.images
        yield f"network x{acceleration:g}", pipes["network"](y, mask, coil_maps=maps).images
        for method in BASELINES:
            baseline = BaselinePipeline(method)
            yield f"{method} x{acceleration:g}", baseline(y, mask, coil_maps=maps).images
            yield (
                f"{method} x{acceleration:g}, two sets",
                baseline(y, mask, coil_maps=pair).images,
            )
        generator = torch.Generator().manual_seed(0)
        joint = pipes["joint"](
            kspace[None], acceleration=acceleration, coil_maps=maps[:1], generator=generator
        )
        yield f"joint x{acceleration:g}", joint.images
        yield f"joint x{acceleration:g}, masks", joint.masks.float()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("same_numbers", __doc__)
    parser.add_argument("action", choices=("save", "compare"), help="What to do.")
    parser.add_argument("folder", type=Path, help="Folder of inputs and outputs.")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.action == "save":
        save_inputs(args.folder)
        found = tqdm(results(args.folder), unit="case")
        values: dict[str, Any] = {name: value.numpy() for name, value in found}
        np.savez_compressed(args.folder / "outputs.npz", **values)
        print(f"{len(values)} results saved")
        return
    with np.load(args.folder / "outputs.npz") as file:
        expected = {name: file[name] for name in file.files}
    errors = {}
    for name, value in tqdm(results(args.folder), total=len(expected), unit="case"):
        reference = expected.pop(name, None)
        if reference is None:  # method that the old code did not have
            continue
        difference = np.linalg.norm(value.numpy() - reference)
        errors[name] = float(difference / max(np.linalg.norm(reference), 1e-30))
    worst = max(errors, key=lambda name: errors[name])
    print(json.dumps({"cases": len(errors), "worst": worst, "relative": errors[worst]}))
    wrong = {name: error for name, error in errors.items() if not error <= TOLERANCE}
    if wrong or expected:
        sys.exit(f"above {TOLERANCE}: {wrong}; not computed: {sorted(expected)}")


if __name__ == "__main__":
    main()
