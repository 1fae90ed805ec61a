"""``ctxrecon reconstruct``: a scan file in, images and a figure out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxrecon.commands.joint import run_joint, write_sampling
from ctxrecon.commands.methods import (
    BASELINES,
    JOINT,
    NETWORK,
    PRIOR,
    TITLES,
    PriorRun,
    Result,
    check_method,
    check_prior_run,
    figure_images,
    first_sample,
    open_methods,
    run_baseline,
    run_network,
    run_prior,
)
from ctxrecon.commands.paths import Outputs, image_outputs
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ctxrecon.scan import Scan


_STARTS = BASELINES | {NETWORK: NETWORK}
"""Command-line name -> ``image`` of the diffusion prior."""


def reconstruct(
    file: Annotated[Path, typer.Argument(help="Scan: .npy, .npz, .h5 or .cfl.")],
    out: Annotated[
        Path,
        typer.Option(help="Image file (.npy .npz .cfl .nii.gz .png), or a folder."),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(help="Such as 'Knee, PDFS, TR: 3150, TE: 33'. (default: the file's metadata)"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(TITLES)}. (default: {PRIOR}, or what --model is)"),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Run all other methods too.")] = False,
    mask: Annotated[
        Path | None,
        typer.Option(help="Sampling mask .npy, (nx,) or (ny, nx). (default: from the file)"),
    ] = None,
    coil_maps: Annotated[
        Path | None,
        typer.Option(help="Coil maps .npy or .cfl. (default: the file's, or estimated)"),
    ] = None,
    slices: Annotated[
        str | None, typer.Option(help="Slices 'a:b' or one 'a', from 0. (default: all)")
    ] = None,
    undersample: Annotated[
        str | None,
        typer.Option(help="Undersample fully sampled data by this mask, such as uniform1d."),
    ] = None,
    acceleration: Annotated[
        float | None,
        typer.Option(help="Of --undersample (default: 4), or of the masks of a joint --model."),
    ] = None,
    center_fraction: Annotated[
        float | None, typer.Option(help="Of --undersample. (default: 0.32 / acceleration in 1-D)")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--prior",
            help="Folder or hub name of a prior, a network, or a network with masks of its own. "
            "(default: those that are shipped)",
        ),
    ] = None,
    subfolder: Annotated[
        str | None, typer.Option(help="Of the U-Net in --model, such as fastmri or skm-tea.")
    ] = None,
    guidance_scale: Annotated[
        float, typer.Option(help="Weight of the prompt; 0 leaves it out.")
    ] = 1.0,
    steps: Annotated[int, typer.Option(help="Diffusion steps.")] = 20,
    samples: Annotated[
        int, typer.Option(help="Posterior samples: their mean and standard deviation.")
    ] = 1,
    solver: Annotated[
        str | None,
        typer.Option(
            help="Diffusion solver, such as dds, diffpir or daps. (default: pnp_admm, and for "
            "several samples dds started from its image)"
        ),
    ] = None,
    data_weight: Annotated[
        float | None,
        typer.Option(help="Weight of the measurement in --solver dds. (default: 5)"),
    ] = None,
    noise_std: Annotated[
        str | None,
        typer.Option(help="Noise of a k-space sample, a number or auto, for solvers that ask."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help=f"Start from one of {', '.join(_STARTS)} in place of noise."),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="Of --start: the share of the diffusion that is left.")
    ] = 0.3,
    seed: Annotated[int, typer.Option(help="Of all randomness.")] = 0,
    dtype: Annotated[
        str, typer.Option(help="Of the network: float32, bfloat16 or float16.")
    ] = "float32",
    device: Annotated[
        str | None, typer.Option(help="Such as cpu or cuda:0. (default: cuda where there is one)")
    ] = None,
) -> None:
    """Reconstruct a scan; writes the image, a figure and, with a reference, metrics."""
    if method is not None:
        check_method(method)
    chosen = _slice_choice(slices)
    if undersample is not None and mask is not None:
        raise InputError("--undersample draws the mask itself: leave --mask out")
    if subfolder is not None and model is None:
        raise InputError("--subfolder chooses a U-Net of --model: give both")
    if prompt is not None and not prompt.strip():
        raise InputError(
            "the prompt is empty: describe the scan, or give --guidance-scale 0 to use none"
        )
    if start is not None and start not in _STARTS:
        raise InputError(f"unknown --start {start!r}: expected one of {', '.join(_STARTS)}")
    options = {} if data_weight is None else {"data_weight": data_weight}
    if options and solver is None:
        raise InputError("--data-weight is an option of a solver: give --solver dds too")
    outputs = image_outputs(out)

    from ctxrecon.evaluation.grid import is_fully_sampled, mvue_reference
    from ctxrecon.io import read_scan
    from ctxrecon.pipelines import prepare_measurement
    from ctxrecon.solvers import make_solver

    chosen_solver = None if solver is None else make_solver(solver, **options)
    scan = read_scan(file, slices=chosen, coil_maps=coil_maps)
    prompts, origin = _prompts(scan, prompt)
    call: dict[str, Any] = {"noise_std": _noise(noise_std)}
    if start is not None:
        call |= {"image": _STARTS[start], "strength": strength}
    diffusion = {"samples": samples, "solver": solver, "noise-std": noise_std, "start": start}
    run = PriorRun(prompts, guidance_scale, steps, samples, seed, chosen_solver, call)
    drawn = None
    if undersample is not None:
        drawn = _undersampling(
            scan, undersample, 4.0 if acceleration is None else acceleration, center_fraction, seed
        )
    method, pipes = open_methods(method, compare, model, device, subfolder, dtype)
    if PRIOR in pipes:
        check_prior_run(pipes[PRIOR], run, len(scan))
    elif asked := [name for name, value in diffusion.items() if value not in (None, 1)]:
        raise InputError(f"--{asked[0]} is of the diffusion prior, not of {method}: leave it out")
    reads = run.uses_prompt and any(
        name == PRIOR or pipe.reconstructor.text_width for name, pipe in pipes.items()
    )
    if reads or PRIOR in pipes:
        _say_prompt(run, origin)

    reference, reference_name = scan.target, "target"
    own_masks = JOINT in pipes and mask is None and is_fully_sampled(scan)
    if reference is None and (drawn is not None or own_masks):
        reference, reference_name = mvue_reference(scan), "MVUE"
    sampled = drawn if mask is None else _read_mask(mask)
    joint = None
    if JOINT in pipes:
        own = acceleration if drawn is None else None
        joint = run_joint(pipes[JOINT], scan, sampled, prompts if reads else None, own, seed)
        measurement = joint.measurement
    elif drawn is not None:
        measurement = prepare_measurement(scan.kspace * drawn, drawn, scan.coil_maps)
    else:
        sampled = scan.mask if sampled is None else sampled
        measurement = prepare_measurement(scan.kspace, sampled, scan.coil_maps)
    achieved = 1 / float(measurement.mask.float().mean())
    typer.echo(f"{file}: {_size(scan)}, acceleration {achieved:.2f}")

    from ctxrecon.commands.report import Table

    others = [name for name in (*BASELINES, *pipes) if name != method] if compare else []
    table = Table(reference)
    results: list[Result] = []
    for name in (*others, method):
        if name in BASELINES:
            found = [run_baseline(name, measurement)]
        elif name == JOINT:
            assert joint is not None
            found = [joint.result]
        elif name == NETWORK:
            found = [run_network(pipes[NETWORK], prompts if reads else None, measurement)]
        else:
            mean = run_prior(pipes[PRIOR], run, measurement)
            found = [first_sample(mean, measurement), mean] if mean.samples is not None else [mean]
        for result in found:
            table.add(result)
        results += found
    about = {
        "file": str(file),
        "reference": None if reference is None else reference_name,
        "acceleration": achieved,
        "prompts": run.prompts if reads else None,
    }
    _write(outputs, results, reference, reference_name, f"{file.name}, ×{achieved:.3g}")
    if joint is not None:
        typer.echo("masks: " + ", ".join(map(str, write_sampling(outputs, joint))))
    if reference is not None:
        table.write(outputs.metrics, **about)
        typer.echo(f"metrics: {outputs.metrics}")


def _write(
    outputs: Outputs,
    results: list[Result],
    reference: Tensor | None,
    reference_name: str,
    title: str,
) -> None:
    from ctxrecon.figures import comparison_figure
    from ctxrecon.io import write_image

    final = results[-1]
    written = [*write_image(outputs.image, final.images)]
    if final.std is not None:
        written += write_image(outputs.std, final.std)
    middle = len(final.images) // 2
    if len(final.images) > 1:
        title += f", slice {middle + 1} of {len(final.images)}"
    comparison_figure(
        outputs.figure,
        figure_images(results, middle),
        None if reference is None else reference[middle],
        std=None if final.std is None else final.std[middle],
        reference_name=reference_name,
        title=title,
    )
    listed = str(written[0]) if len(written) == 1 else ", ".join(map(str, written[:4]))
    typer.echo(f"images: {listed}{', …' if len(written) > 4 else ''}")
    typer.echo(f"figure: {outputs.figure}")


def _noise(text: str | None) -> float | str | None:
    """``None``, ``"auto"`` or a number."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f"expected --noise-std as a number or auto, got {text!r}") from None


def _slice_choice(text: str | None) -> int | slice | None:
    """``None``, ``"3"`` or ``"3:8"``."""
    if text is None:
        return None
    try:
        bounds = [int(part) if part.strip() else None for part in text.split(":")]
        if len(bounds) == 1 and bounds[0] is not None:
            return bounds[0]
        first, last = bounds
    except ValueError:
        raise InputError(f"expected --slices as a:b or one number, got {text!r}") from None
    return slice(first, last)


def _prompts(scan: Scan, prompt: str | None) -> tuple[list[str] | None, str]:
    """One prompt a slice, and where it comes from."""
    if prompt is not None:
        return [prompt] * len(scan), "given"
    implied = [item.to_prompt() for item in scan.metadata]
    return (implied, "from the file") if any(implied) else (None, "none")


def _say_prompt(run: PriorRun, origin: str) -> None:
    from ctxrecon.metadata import canonical_prompt

    if run.prompts is None:
        typer.echo("prompt: none, the file says nothing about the scan: --prompt would describe it")
    elif not run.uses_prompt:
        typer.echo("prompt: not used at guidance scale 0")
    else:
        distinct = list(dict.fromkeys(canonical_prompt(text) for text in run.prompts))
        more = f" (and {len(distinct) - 1} more)" if len(distinct) > 1 else ""
        typer.echo(f"prompt ({origin}): {distinct[0]}{more}")


def _read_mask(path: Path) -> np.ndarray:
    from ctxrecon.io._files import check_input
    from ctxrecon.io.numpy_format import read_array

    if path.suffix.lower() != ".npy":
        raise InputError(f"{path}: expected the mask as .npy, got {path.suffix or 'no extension'}")
    return read_array(check_input(path))


def _undersampling(
    scan: Scan, name: str, acceleration: float, center_fraction: float | None, seed: int
) -> Tensor:
    """A mask for retrospective undersampling, inside what was measured."""
    import torch

    from ctxrecon.evaluation.grid import is_fully_sampled
    from ctxrecon.sampling import make_mask

    if not is_fully_sampled(scan):
        sampled = float(scan.mask.float().mean())
        raise InputError(
            f"--undersample needs fully sampled k-space, and {100 * sampled:.0f} % of this file's "
            "is sampled: leave it out to reconstruct what was measured"
        )
    ny, nx = scan.kspace.shape[-2:]
    generator = torch.Generator().manual_seed(seed)
    drawn = make_mask(name, (ny, nx), acceleration, center_fraction, generator=generator)
    return drawn & scan.mask


def _size(scan: Scan) -> str:
    slices, coils, ny, nx = scan.kspace.shape
    return f"{slices} slice{'s' * (slices > 1)}, {coils} coil{'s' * (coils > 1)}, {ny}×{nx}"
