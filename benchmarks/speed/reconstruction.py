"""Time of a reconstruction: profile, and comparison with the published loop and deepinv.

    python -m benchmarks.speed.reconstruction --output_dir benchmarks/results

One slice of 320² with 15 coils and given coil maps, so that only the reconstruction is timed.

- Profile: time of the network and of everything else, for the shipped network and for one of
  ContextMRI's size (``--large``, 400 M parameters, random weights), by mask and precision.
- DDS compared with a plain implementation of the published loop (``plain_loop.py``): same network,
  steps, noise and result; then with the network in half precision.
- The published loop with its 100 steps and guidance compared with the default, whose 30 steps, most
  of them at half of the pixels, yield a better image (``benchmarks.solvers.curves``).
- DiffPIR and DPS compared with deepinv's, if it is installed, at equal evaluations.

Everything that is compared runs in turn in one process.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from benchmarks.common.arguments import RESULTS, parse, study_parser
from benchmarks.common.record import Record, write_study
from benchmarks.common.timing import synchronize, timed
from benchmarks.speed.plain_loop import plain_dds
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.commands.methods import open_prior
from ctxrecon.evaluation import fingerprint, table
from ctxrecon.masks import make_mask
from ctxrecon.operators import CartesianSense
from ctxrecon.output import ReconstructionOutput
from ctxrecon.phantom import phantom_scan
from ctxrecon.pipelines import ContextMRIPipeline, prepare_measurement
from ctxrecon.priors import TextDenoiser, quadratic_timesteps
from ctxrecon.solvers import DDS, DPS, DiffPIR

MASKS = {"uniform1d": 4.0, "poisson_disk2d": 8.0}
_LARGE = Path(__file__).resolve().parents[2] / "training" / "networks" / "contextmri.json"
_FIRST_TIMESTEP = 900
_DEFAULT_STEPS = 30
_PROMPT = "Knee, Slice 20, PDFS, TR: 3150, TE: 33"


@dataclass(frozen=True)
class Slice:
    """One undersampled slice with its coil maps."""

    kspace: Tensor
    mask: Tensor
    maps: Tensor


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = study_parser("speed.reconstruction", __doc__)
    add = parser.add_argument
    add("--prior", help="Checkpoint (default: the shipped prior).")
    add("--output_dir", type=Path, default=RESULTS, help="Folder of the results.")
    add("--size", type=int, default=320, help="Matrix size.")
    add("--coils", type=int, default=15, help="Number of coils.")
    add("--steps", type=int, default=4, help="Steps of the comparisons.")
    add("--profile_steps", type=int, default=20, help="Steps of the profile.")
    add("--published_steps", type=int, default=100, help="Steps of the published setting.")
    add("--turns", type=int, default=3, help="Timed runs of each method.")
    add("--large", action="store_true", help="Also profile a network of 400 M parameters.")
    add("--device", help="Device (default: CUDA if available).")
    add("--seed", type=int, default=0, help="Random seed.")
    return parse(parser, argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    logging.basicConfig(level=logging.ERROR)
    pipe = open_prior(args.prior, args.device)
    pipe.set_progress_bar_config(disable=True)
    results: dict[str, Any] = {"prior": fingerprint(pipe), "device": str(pipe.device)}
    results |= {
        name: getattr(args, name) for name in ("size", "coils", "steps", "profile_steps", "turns")
    }
    slices = {name: make_slice(name, args, pipe.device) for name in MASKS}
    results["profile"] = profile(pipe, slices, args)
    results["plain"] = compare_with_plain(pipe, slices["uniform1d"], args)
    results["defaults"] = compare_defaults(pipe, slices["uniform1d"], args)
    others = compare_with_deepinv(pipe, slices["uniform1d"], args)
    if others is not None:
        results["deepinv"] = others
    write_study(args.output_dir / "reconstruction_speed.json", results, args, page)


def page(record: Record) -> str:
    """Return the page: a verdict and a table for each comparison."""
    found = record["results"]
    head = ["network", "mask", "precision", "network (ms per step)", "rest (ms per step)"]
    plain, default = (list(found[key]["times_faster"].values()) for key in ("plain", "defaults"))
    warm_up = found["defaults"].get("warm_up", False)  # absent in old records, which had none
    text = [
        "# Speed of a reconstruction\n",
        f"The default is {default[1]:.1f} times as fast as the published loop with its own "
        f"setting, and {default[-1]:.1f} times with the network in bfloat16. With the same solver "
        f"and steps, the factors are {plain[1]:.2f} and {plain[-1]:.2f}.\n",
        f"One slice, {found['size']}², {found['coils']} coils, given coil maps. Seconds are "
        f"medians of {found['turns']} runs after a warm-up, unless a table says otherwise; "
        "“speed-up” is relative to the first row of each table.\n",
        "## Profile (DDS, γ = 1)\n",
        "Means over the steps of one run.\n",
        table([*head, "share of the rest"], map(_profile_line, found["profile"])),
        "## DDS and the published loop (uniform1d ×4, γ = 2)\n",
        _ratios(found["plain"]),
        "## Published setting and default (uniform1d ×4)\n",
        f"Seconds of one run, {'after' if warm_up else 'without'} a warm-up.\n",
        _ratios(found["defaults"]),
    ]
    if "deepinv" in found:
        text.append("## Comparison with deepinv (uniform1d ×4, γ = 1)\n")
        text += map(_ratios, found["deepinv"].values())
    return "\n".join(text)


def make_slice(mask_name: str, args: argparse.Namespace, device: torch.device) -> Slice:
    """Simulate a phantom slice at the training scale."""
    generator = torch.Generator().manual_seed(args.seed)
    shape = (args.size, args.size)
    target = phantom_scan("knee", shape=shape, generator=generator).target
    assert target is not None
    maps = simulate_coil_maps(args.coils, shape, generator=generator)
    mask = make_mask(mask_name, shape, MASKS[mask_name], generator=generator)
    kspace = CartesianSense(mask, maps)(target)
    measurement = prepare_measurement(kspace, mask, maps)
    kspace = kspace / measurement.intensity_scale()[:, None, None, None]
    return Slice(kspace.to(device), mask.to(device), maps.to(device))


def reconstruct(
    pipe: ContextMRIPipeline, one: Slice, steps: int, gamma: float, **options: Any
) -> Tensor:
    """Reconstruct one slice by the pipeline."""
    output: ReconstructionOutput[Tensor] = pipe(
        one.kspace,
        one.mask,
        _PROMPT,
        coil_maps=one.maps,
        guidance_scale=gamma,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    return output.images


def profile(
    pipe: ContextMRIPipeline, slices: dict[str, Slice], args: argparse.Namespace
) -> list[dict[str, Any]]:
    """Measure the seconds per step of the network and of everything else."""
    own = pipe.unet
    networks = {"shipped": own}
    if args.large:
        networks["ContextMRI's size"] = large_network(own, pipe.device)
    found = []
    for network_name, network in networks.items():
        pipe.unet = network
        for dtype in (torch.float32, torch.bfloat16):
            network.to(dtype)
            for mask_name, one in slices.items():
                inside: list[float] = []
                handles = _watch(network, inside)
                steps = args.profile_steps if network is own else 1
                run = _as_entry(pipe, one, steps, 1.0, solver=DDS())
                total = timed({"all": run}, 1, warm_up=network is own)["all"]
                for handle in handles:
                    handle.remove()
                count = len(total) * steps
                seconds = sum(inside[-count:]) / count
                entry = {"network": network_name, "mask": mask_name, "dtype": str(dtype)[6:]}
                rest = sum(total) / count - seconds
                found.append(entry | {"network_seconds": seconds, "rest_seconds": rest})
        network.to(torch.float32)
    pipe.unet = own
    return found


def large_network(own: UNet2DConditionModel, device: torch.device) -> UNet2DConditionModel:
    """Return a random U-Net of ContextMRI's layout that accepts the shipped text states."""
    config = UNet2DConditionModel.load_config(_LARGE)
    width = own.config.encoder_hid_dim or own.config.cross_attention_dim
    config |= {"encoder_hid_dim": width, "addition_embed_type": None}
    network = UNet2DConditionModel.from_config(config).eval()
    return network.to(device, memory_format=torch.channels_last)


def _watch(network: torch.nn.Module, seconds: list[float]) -> list[Any]:
    """Register hooks that append the time of every evaluation to ``seconds``."""

    def before(*_: object) -> None:
        synchronize()
        seconds.append(-time.perf_counter())

    def after(*_: object) -> None:
        synchronize()
        seconds[-1] += time.perf_counter()

    return [
        network.register_forward_pre_hook(before),
        network.register_forward_hook(after),
    ]


def _as_entry(
    pipe: ContextMRIPipeline, one: Slice, steps: int, gamma: float, **options: Any
) -> Callable[[], Tensor]:
    return lambda: reconstruct(pipe, one, steps, gamma, **options)


def compare_with_plain(
    pipe: ContextMRIPipeline, one: Slice, args: argparse.Namespace
) -> dict[str, Any]:
    """Compare DDS by the pipeline and by the plain loop from the same noise."""
    shape = (1, 2, args.size, args.size)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(pipe.device)
    # For ᾱ near 0 the pipeline bounds the division by √ᾱ and would differ from the published loop.
    steps = quadratic_timesteps(args.steps, start=_FIRST_TIMESTEP)
    plain = plain_loop(pipe, one, steps, latents)
    call = {"timesteps": steps, "latents": latents, "solver": DDS(eta=0.0)}
    ours = _as_entry(pipe, one, args.steps, 2.0, **call)
    difference = float((ours() - plain()).norm() / plain().norm())
    entries = {
        "plain loop, float32": plain,
        "ctxrecon, float32": ours,
        "ctxrecon, bfloat16 network": in_half_precision(pipe, ours),
    }
    seconds = timed(entries, args.turns)
    return _compared(seconds, "plain loop, float32") | {"difference_of_results": difference}


def plain_loop(
    pipe: ContextMRIPipeline, one: Slice, steps: list[int], latents: Tensor
) -> Callable[[], Tensor]:
    """Return the published loop at γ = 2 from this initial noise, without added noise (η = 0)."""
    scale = prepare_measurement(one.kspace, one.mask, one.maps).intensity_scale()[:, None, None]
    return lambda: (
        scale
        * plain_dds(
            pipe,
            one.kspace / scale[..., None],
            one.mask,
            one.maps,
            _PROMPT,
            timesteps=steps,
            guidance_scale=2.0,
            eta=0.0,
            data_weight=5.0,
            cg_iterations=5,
            latents=latents,
            draw=lambda: torch.zeros_like(latents),
        )
    )


def in_half_precision(
    pipe: ContextMRIPipeline, entry: Callable[[], Tensor]
) -> Callable[[], Tensor]:
    """Return the same call with the network in bfloat16."""
    full, half = pipe.unet, copy.deepcopy(pipe.unet).to(torch.bfloat16)

    def run() -> Tensor:
        pipe.unet = half
        image = entry()
        pipe.unet = full
        return image

    return run


def compare_defaults(
    pipe: ContextMRIPipeline, one: Slice, args: argparse.Namespace
) -> dict[str, Any]:
    """Compare the published loop with its 100 steps and the pipeline with its defaults."""
    latents = torch.zeros((1, 2, args.size, args.size), device=pipe.device)
    steps = quadratic_timesteps(args.published_steps, start=_FIRST_TIMESTEP)
    ours = _as_entry(pipe, one, _DEFAULT_STEPS, 1.0)
    name = f"plain loop, {args.published_steps} steps, γ = 2, float32"
    entries = {
        name: plain_loop(pipe, one, steps, latents),
        f"ctxrecon, ADMM, {_DEFAULT_STEPS} steps, γ = 1, float32": ours,
        f"ctxrecon, ADMM, {_DEFAULT_STEPS} steps, γ = 1, bfloat16": in_half_precision(pipe, ours),
    }
    return _compared(timed(entries, 1), name) | {"warm_up": True}


def compare_with_deepinv(
    pipe: ContextMRIPipeline, one: Slice, args: argparse.Namespace
) -> dict[str, Any] | None:
    """Compare DiffPIR and DPS by the pipeline and by deepinv at equal evaluations."""
    try:
        import deepinv
    except ImportError:
        return None
    embeds = pipe.encode_prompt([_PROMPT])
    denoiser = TextDenoiser(pipe.unet, pipe.scheduler, embeds, None, 1.0)
    levels = ((1 - denoiser.alphas_cumprod) / denoiser.alphas_cumprod).sqrt()

    class Wrapped(deepinv.models.Denoiser):
        """The same network for deepinv; images in [0, 1] have half the noise level."""

        def __init__(self, unit: bool) -> None:
            super().__init__()
            self.unit = unit

        def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
            noise = float(torch.as_tensor(sigma).flatten()[0]) * (2 if self.unit else 1)
            t = min(int(torch.searchsorted(levels, noise)), len(levels) - 1)
            image = 2 * x - 1 if self.unit else x
            signal = math.sqrt(float(denoiser.alphas_cumprod[t]))
            clean = denoiser((signal * image).float(), t)[0]
            return clean / 2 + 0.5 if self.unit else clean

    physics = deepinv.physics.MultiCoilMRI(
        mask=one.mask.float(), coil_maps=one.maps, img_size=(args.size, args.size)
    )
    y = torch.view_as_real(one.kspace).movedim(-1, 1).contiguous()
    diffpir = deepinv.sampling.DiffPIR(
        Wrapped(True), deepinv.optim.data_fidelity.L2(), max_iter=args.steps, sigma=0.01
    )
    dps = deepinv.sampling.DPS(
        Wrapped(False),
        num_steps=args.steps + 1,
        weight=1.0,
        dtype=torch.float32,
        minus_one_one=False,
    )
    evaluations: list[int] = []
    handle = pipe.unet.register_forward_pre_hook(lambda *_: evaluations.append(1))
    pairs: dict[str, dict[str, Callable[[], object]]] = {
        "DiffPIR": {
            "deepinv DiffPIR": lambda: diffpir(y, physics),
            "ctxrecon DiffPIR": _as_entry(pipe, one, args.steps, 1.0, solver=DiffPIR()),
        },
        "DPS": {
            "deepinv DPS": lambda: dps(y, physics),
            "ctxrecon DPS": _as_entry(pipe, one, args.steps, 1.0, solver=DPS()),
        },
    }
    found: dict[str, Any] = {"version": deepinv.__version__}
    for name, entries in pairs.items():
        counts = {}
        for entry_name, entry in entries.items():
            evaluations.clear()
            entry()
            counts[entry_name] = len(evaluations)
        seconds = timed(entries, args.turns)
        found[name] = _compared(seconds, f"deepinv {name}") | {"evaluations": counts}
    handle.remove()
    return found


def _compared(seconds: dict[str, list[float]], first: str) -> dict[str, Any]:
    """Return median times and speed-ups relative to the first entry."""
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    faster = {name: medians[first] / value for name, value in medians.items()}
    return {"seconds": seconds, "median_seconds": medians, "times_faster": faster}


def _profile_line(entry: dict[str, Any]) -> list[str]:
    network, rest = entry["network_seconds"], entry["rest_seconds"]
    return [
        entry["network"],
        entry["mask"],
        entry["dtype"],
        f"{1e3 * network:.0f}",
        f"{1e3 * rest:.0f}",
        f"{rest / (network + rest):.0%}",
    ]


def _ratios(found: dict[str, Any] | str) -> str:
    if isinstance(found, str):
        return f"Version {found} of deepinv:\n"
    evaluations = found.get("evaluations", {})
    heads = ["method", "seconds", "speed-up", *["evaluations"] * bool(evaluations)]
    lines = []
    for name, value in found["median_seconds"].items():
        line = [name, f"{value:.2f}", f"{found['times_faster'][name]:.2f}"]
        lines.append([*line, str(evaluations[name])] if evaluations else line)
    return table(heads, lines)


if __name__ == "__main__":
    main()
