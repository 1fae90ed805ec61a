"""``ctxrecon benchmark``: methods side by side over a folder of scans."""

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

# A network sees one image after the other as fast on a CPU, and a GPU many at once faster.
_BATCH_SIZE = {"cpu": 1, "cuda": 8}


def benchmark(
    context: typer.Context,
    scans: Annotated[
        list[Path], typer.Argument(help="Fully sampled scans, or folders of them.", metavar="SCANS")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the rows; a stopped run goes on in it.")],
    methods: Annotated[
        str,
        typer.Option(
            help="Solvers (dds, ddnm, …), with options such as dds:eta=0.5 or those of the "
            "pipeline (image, strength, timesteps, noise_std=auto), and baselines "
            f"({', '.join(BASELINES)}); the first is what others are compared with."
        ),
    ] = "pnp_admm,dds,l1-wavelet,zero-filled",
    masks: Annotated[
        str | None,
        typer.Option(
            help="Such as uniform1d,poisson_disk2d. (default: uniform1d, none with --operators)"
        ),
    ] = None,
    accelerations: Annotated[str, typer.Option(help="Of every mask.")] = "4,8",
    operators: Annotated[
        str | None,
        typer.Option(
            help="Other operators than masks, with options: radial:spokes=64, "
            "spiral:interleaves=16:turns=4:alpha=2, inpainting:fraction=0.5, "
            "super-resolution:factor=2."
        ),
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="For solvers: metadata (those of the scan), none, or both.")
    ] = "metadata",
    guidance_scale: Annotated[float, typer.Option(help="Weight of the prompt.")] = 1.0,
    steps: Annotated[str, typer.Option(help="Diffusion steps.")] = "30",
    samples: Annotated[int, typer.Option(help="Posterior samples: their mean is measured.")] = 1,
    prior: Annotated[
        str | None,
        typer.Option(
            "--prior",
            "--model",
            help="Checkpoint folder or hub name. (default: the prior that is shipped)",
        ),
    ] = None,
    networks: Annotated[
        str | None,
        typer.Option(help="Folders of networks that reconstruct directly, measured as well."),
    ] = None,
    subfolder: Annotated[
        str | None, typer.Option(help="Of the U-Net in --prior, such as fastmri or skm-tea.")
    ] = None,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Slices reconstructed at once. (default: 8 on CUDA, 1 on CPU)"),
    ] = None,
) -> None:
    """Measure methods × masks × accelerations × prompts × steps on every slice of the scans.

    Lists are separated by commas: --masks uniform1d,poisson_disk2d --steps 20,50. Each slice is
    undersampled by a mask of its own and measured against the scan's target image, or the MVUE
    image of all its data. Radial and spiral operators sample its coil images, and inpainting and
    super-resolution are of that image. The folder gets rows.csv with a row for each slice, and a
    summary with standard errors as Markdown, JSON and a figure of PSNR against time.

    Split over GPUs by "accelerate launch -m ctxrecon.cli benchmark …", over processes on the CPU by
    "ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -m ctxrecon.cli benchmark …". The same
    command again goes on where a run was stopped; more methods, masks, steps or scans add to it.
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
    from ctxrecon.evaluation.grid import slices_of
    from ctxrecon.evaluation.methods import METADATA, check_prompts
    from ctxrecon.evaluation.operators import check_scans
    from ctxrecon.evaluation.report import FILES
    from ctxrecon.evaluation.runner import device_of

    solvers = {text: solver_and_call(text) for text in wanted if not _is_baseline(text)}
    refuse_ignored(context, _users(solvers, networks, prior, chosen_prompts, chosen_masks))
    acquisitions = [operator_acquisition(text) for text in others]
    _check_methods(acquisitions, solvers, networks)
    found = find_scans(scans)
    for acquisition in acquisitions:
        check_scans(acquisition, found)
    check_outputs(
        [out / name for name in ("settings.json", "rows.csv", *FILES)],
        input_files(*(scan.path for scan in found), prior),
        overwrite=(out / "settings.json").is_file(),  # a benchmark that goes on
        folder=out,
        remedy=" and has no settings.json beside it that says what it is of, name another --out",
    )
    state = _state()
    device = device_of(state)
    batch_size = batch_size or _BATCH_SIZE[device.type]
    settings: dict[str, object] = {"seed": seed}
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
            raise InputError(f"{folder_name} holds a prior, not a network: give it by --prior")
        network.set_progress_bar_config(disable=True)
        if network.reconstructor.text_width is not None:
            check_prompts(network, found)
        name = model_name(folder_name)
        if name in made:
            raise InputError(f"two methods are called {name}: rename the folder of the network")
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
    """Refuse methods that cannot reconstruct from an operator.

    Raises:
        InputError: networks, or a noise level to be estimated where there is no k-space.
    """
    for acquisition in acquisitions:
        if networks is not None:
            raise InputError(
                f"networks take Cartesian k-space, not {acquisition.mask}: measure them by --masks "
                "alone, in a run of their own"
            )
        for text, (_, call) in solvers.items():
            if "noise_std" in call and not acquisition.operator.measures_kspace:
                raise InputError(
                    f"{text} estimates the noise from k-space, and {acquisition.mask} measures "
                    "none: leave noise_std=auto out, or give a number"
                )


def _users(
    solvers: Mapping[str, object],
    networks: str | None,
    prior: str | None,
    prompts: list[str],
    masks: list[str],
) -> Users:
    """Options that some methods alone use."""
    of_solvers = (solvers, "is of diffusion solvers, and --methods names none: leave it out")
    guided = of_solvers
    if solvers and prompts == ["none"]:
        guided = ({}, "weighs a prompt, and --prompts none leaves it out: leave out one of them")
    return {
        "accelerations": (masks, "is of masks, and --operators has none: give --masks too"),
        "subfolder": (prior, "chooses a U-Net of --prior: give both"),
        **dict.fromkeys(("steps", "samples", "prompts", "prior"), of_solvers),
        "guidance_scale": guided,
        "dtype": (solvers or networks, "is of networks, and no method has one: leave it out"),
    }


def _state() -> PartialState:
    """This process among those that accelerate or torchrun started."""
    import torch
    from accelerate import PartialState

    on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}
    return PartialState(cpu=on_cpu or not torch.cuda.is_available())


@contextmanager
def _quiet() -> Iterator[None]:
    """Do not log for every slice what is inferred: its centre lines, its calibration region."""
    logger = logging.getLogger("ctxrecon")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _words(text: str, option: str) -> list[str]:
    """What stands between the commas."""
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise InputError(f"expected --{option} as words with a comma between, got {text!r}")
    twice = [word for word in words if words.count(word) > 1]
    if twice:
        raise InputError(f"--{option} names {twice[0]} twice: leave one out")
    return words


def _numbers(text: str, option: str, kind: type) -> list[Any]:
    try:
        numbers = [kind(word) for word in _words(text, option)]
    except ValueError:
        raise InputError(
            f"expected --{option} as numbers with a comma between, got {text!r}"
        ) from None
    if len(set(numbers)) < len(numbers):
        raise InputError(f"--{option} names a number twice, {text!r}: leave one out")
    return numbers


def _is_baseline(text: str) -> bool:
    """Whether a method is one without a learned prior.

    Raises:
        InputError: a baseline with options.
    """
    name, _, options = text.partition(":")
    if options and name in BASELINES:
        raise InputError(f"{name} runs with its default weights: leave {options!r} out")
    return name in BASELINES
