"""``ctxrecon benchmark``: compare methods on a folder of scans."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxrecon.commands.logs import say
from ctxrecon.commands.methods import (
    BASELINES,
    NETWORK,
    SHIPPED_PRIOR,
    method_of,
    model_name,
    open_model,
    open_prior,
)
from ctxrecon.commands.options import Dtype, Seed, Users, refuse_ignored
from ctxrecon.commands.paths import check_outputs, input_files
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from accelerate import PartialState

    from ctxrecon.evaluation import Method
    from ctxrecon.evaluation.operators import OperatorAcquisition

# Batches are no faster than single images on a CPU, but faster on a GPU.
_BATCH_SIZE = {"cpu": 1, "cuda": 8}


def benchmark(
    context: typer.Context,
    scans: Annotated[
        list[Path],
        typer.Argument(
            help="Fully sampled scan files, or folders that contain them.", metavar="SCANS"
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Results folder; give the same folder to resume a stopped run.")
    ],
    methods: Annotated[
        str,
        typer.Option(
            help="Solvers (dds, ddnm, …), with options such as dds:eta=0.5 or pipeline options "
            "(image, strength, timesteps, noise_std=auto), and baselines "
            f"({', '.join(BASELINES)}); the others are compared with the first."
        ),
    ] = "pnp_admm,dds,l1-wavelet,zero-filled",
    masks: Annotated[
        str | None,
        typer.Option(
            help="Sampling masks, such as uniform1d,poisson_disk2d (default: uniform1d, or none "
            "with --operators)."
        ),
    ] = None,
    accelerations: Annotated[str, typer.Option(help="Acceleration factors of every mask.")] = "4,8",
    operators: Annotated[
        str | None,
        typer.Option(
            help="Operators other than masks, with options: radial:spokes=64, "
            "spiral:interleaves=16:turns=4:alpha=2, inpainting:fraction=0.5, "
            "super-resolution:factor=2."
        ),
    ] = None,
    prompts: Annotated[
        str,
        typer.Option(help="Prompts for solvers: metadata (from the scan), none, or both."),
    ] = "metadata",
    guidance_scale: Annotated[float, typer.Option(help="Guidance scale of the prompt.")] = 1.0,
    steps: Annotated[str, typer.Option(help="Numbers of diffusion steps.")] = "30",
    samples: Annotated[
        int, typer.Option(help="Number of posterior samples; their mean is evaluated.")
    ] = 1,
    prior: Annotated[
        str | None,
        typer.Option(
            "--prior",
            "--model",
            help="Checkpoint folder or hub name of the prior (default: the shipped prior).",
        ),
    ] = None,
    networks: Annotated[
        str | None,
        typer.Option(help="Folders of direct reconstruction networks to evaluate as well."),
    ] = None,
    subfolder: Annotated[
        str | None,
        typer.Option(help="Subfolder of the U-Net in --prior, such as fastmri or skm-tea."),
    ] = None,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Slices reconstructed at once (default: 8 on CUDA, 1 on CPU)."),
    ] = None,
) -> None:
    """Evaluate methods × masks × accelerations × prompts × steps on every slice of the scans.

    Separate list items with commas: --masks uniform1d,poisson_disk2d --steps 20,50. Each slice is
    undersampled with its own mask and compared with the scan's target image, or else with the
    MVUE image of the fully sampled data. Radial and spiral operators sample the coil images of
    that reference; inpainting and super-resolution are applied to the reference itself. The
    results folder receives rows.csv, with one row per slice, and a summary with standard errors
    as Markdown, JSON and a figure of PSNR against time.

    Distribute over GPUs with "accelerate launch -m ctxrecon.cli benchmark …", or over CPU processes
    with "ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -m ctxrecon.cli benchmark …". Repeat
    the same command to resume a stopped run; further methods, masks, steps or scans extend it.
    """
    wanted = _words(methods, "methods")
    others = [] if operators is None else _words(operators, "operators")
    chosen_masks = [] if others and masks is None else _words(masks or "uniform1d", "masks")
    factors = _numbers(accelerations, "accelerations", float)
    counts = _numbers(steps, "steps", int)
    chosen_prompts = _words(prompts, "prompts")

    from ctxrecon.evaluation import (
        Grid,
        Undersampling,
        baseline_method,
        find_scans,
        fingerprint,
        network_method,
        operator_acquisition,
        run_grid,
        solver_and_call,
        solver_methods,
        write_report,
    )
    from ctxrecon.evaluation.methods import METADATA, check_prompts
    from ctxrecon.evaluation.operators import check_scans
    from ctxrecon.evaluation.report import FILES
    from ctxrecon.evaluation.runner import device_of
    from ctxrecon.evaluation.scans import check_fully_sampled, content_digest, slices_of

    solvers = {text: solver_and_call(text) for text in wanted if not _is_baseline(text)}
    refuse_ignored(context, _users(solvers, networks, prior, chosen_prompts, chosen_masks))
    acquisitions = [operator_acquisition(text) for text in others]
    _check_methods(acquisitions, solvers, networks)
    found = find_scans(scans)
    for acquisition in acquisitions:
        check_scans(acquisition, found)
    if chosen_masks:
        check_fully_sampled(found)
    check_outputs(
        [out / name for name in ("settings.json", "rows.csv", *FILES)],
        input_files(*(scan.path for scan in found), prior),
        overwrite=(out / "settings.json").is_file(),  # resumes or extends a benchmark
        folder=out,
        remedy=" but has no settings.json, so it cannot be resumed: give another --out",
    )
    state = _state()
    device = device_of(state)
    batch_size = batch_size or _BATCH_SIZE[device.type]
    settings: dict[str, object] = {"seed": seed}
    settings |= {f"scan {scan.path.name}": content_digest(scan.path) for scan in found}
    made: dict[str, list[Method]] = {}
    named = SHIPPED_PRIOR if prior is None else model_name(prior, subfolder)
    if solvers:
        pipe = open_prior(prior, str(device), subfolder, dtype)
        pipe.set_progress_bar_config(disable=True)
        for text, (solver, call) in solvers.items():
            made[text] = solver_methods(
                text,
                solver,
                pipe,
                prompts=chosen_prompts,
                guidance_scale=guidance_scale,
                steps=counts,
                samples=samples,
                batch_size=batch_size,
                call=call,
            )
        if METADATA in chosen_prompts:
            check_prompts(pipe, found)
        settings |= {
            "prior": fingerprint(pipe),
            "guidance_scale": guidance_scale,
            "samples": samples,
            "dtype": dtype,
        }
    for text in wanted:
        if text not in solvers:
            made[text] = [baseline_method(text, BASELINES[text])]
    for folder_name in [] if networks is None else _words(networks, "networks"):
        network = open_model(folder_name, str(device), None, dtype)
        if method_of(network) != NETWORK:
            raise InputError(f"{folder_name} holds a prior, not a network: pass it to --prior")
        network.set_progress_bar_config(disable=True)
        if network.reconstructor.text_width is not None:
            check_prompts(network, found)
        name = model_name(folder_name)
        if name in made:
            raise InputError(f"two methods are called {name}: rename the network's folder")
        made[name] = [network_method(name, network)]
        settings |= {f"network {name}": fingerprint(network), "dtype": dtype}
    names = dict.fromkeys([*wanted, *made])
    grid = Grid(
        slices=slices_of(found),
        acquisitions=(
            *(Undersampling(mask, r) for mask in chosen_masks for r in factors),
            *acquisitions,
        ),
        methods=tuple(method for name in names for method in made[name]),
        seed=seed,
        batch_size=batch_size,
    )
    with _quiet():
        rows = run_grid(grid, out, settings, state)
    if rows is not None:
        command = shlex.join(["ctxrecon", *sys.argv[1:]])
        written = write_report(
            out,
            rows,
            grid,
            command=command,
            processes=state.num_processes,
            prior=None if not solvers else named,
        )
        say(written[0].read_text(encoding="utf-8"))
        for path in (out / "rows.csv", *written):
            say(path)
    state.destroy_process_group()


def _check_methods(
    acquisitions: Sequence[OperatorAcquisition],
    solvers: Mapping[str, tuple[object, dict[str, Any]]],
    networks: str | None,
) -> None:
    """Check that the methods can reconstruct from the operators.

    Raises:
        InputError: If networks are combined with operators other than masks, or the noise level
            is to be estimated from an operator that does not measure k-space.
    """
    for acquisition in acquisitions:
        if networks is not None:
            raise InputError(
                f"networks accept Cartesian k-space, not {acquisition.mask}: evaluate them with "
                "--masks alone, in a separate run"
            )
        for text, (_, call) in solvers.items():
            if "noise_std" in call and not acquisition.operator.measures_kspace:
                raise InputError(
                    f"{text} estimates the noise from k-space, which {acquisition.mask} does not "
                    "measure: leave noise_std=auto out, or give a number"
                )


def _users(
    solvers: Mapping[str, object],
    networks: str | None,
    prior: str | None,
    prompts: list[str],
    masks: list[str],
) -> Users:
    """Return the options that only some methods use."""
    of_solvers = (solvers, "applies to diffusion solvers, and --methods names none: leave it out")
    guided = of_solvers
    if solvers and prompts == ["none"]:
        guided = ({}, "weights a prompt, and --prompts none disables it: leave out one of them")
    return {
        "accelerations": (masks, "applies to masks, and --operators has none: give --masks too"),
        "subfolder": (prior, "selects a U-Net of --prior: give both"),
        **dict.fromkeys(("steps", "samples", "prompts", "prior"), of_solvers),
        "guidance_scale": guided,
        "dtype": (solvers or networks, "applies to networks, and no method has one: leave it out"),
    }


def _state() -> PartialState:
    """Return this process's place among those that accelerate or torchrun started."""
    import torch
    from accelerate import PartialState

    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}
    return PartialState(cpu=on_cpu or not torch.cuda.is_available())


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages on center lines and calibration regions inferred for every slice."""
    logger = logging.getLogger("ctxrecon")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _words(text: str, option: str) -> list[str]:
    """Split a comma-separated option."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise InputError(f"expected --{option} as words separated by commas, got {text!r}")
    twice = [word for word in words if words.count(word) > 1]
    if twice:
        raise InputError(f"--{option} contains {twice[0]} twice: leave one out")
    return words


def _numbers(text: str, option: str, kind: type) -> list[Any]:
    try:
        numbers = [kind(word) for word in _words(text, option)]
    except ValueError:
        raise InputError(
            f"expected --{option} as numbers separated by commas, got {text!r}"
        ) from None
    if len(set(numbers)) < len(numbers):
        raise InputError(f"--{option} contains a number twice, {text!r}: leave one out")
    return numbers


def _is_baseline(text: str) -> bool:
    """Return whether a method is a baseline without a learned prior.

    Raises:
        InputError: If options are given for a baseline.
    """
    name, _, options = text.partition(":")
    if options and name in BASELINES:
        raise InputError(f"{name} uses its default weights: leave {options!r} out")
    return name in BASELINES
