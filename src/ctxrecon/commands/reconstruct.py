"""``ctxrecon reconstruct``: reconstruct a scan file into images, a figure and metrics."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxrecon.commands.images import ImageWriter, check_place, result_files, write_results
from ctxrecon.commands.inputs import (
    check_prompt,
    check_trajectory,
    draw_masks,
    parse_noise,
    prompts_of,
    read_mask,
    read_other_contrast,
    say_prompt,
    say_scan,
)
from ctxrecon.commands.joint import write_sampling
from ctxrecon.commands.logs import say
from ctxrecon.commands.methods import (
    ALIASES,
    BASELINES,
    COMPARED,
    JOINT,
    METHODS,
    NETWORK,
    PRIOR,
    PriorRun,
    check_method,
    check_prior_run,
    open_methods,
    open_network,
    spelled,
)
from ctxrecon.commands.options import (
    Average,
    Calibration,
    CardiacPhase,
    CoilMapsFile,
    Contrast,
    CropReadout,
    Device,
    Dtype,
    Group,
    MaskFile,
    Repetition,
    ScanFile,
    Seed,
    Set,
    Slices,
    reading,
    refuse_ignored,
    users,
    users_of_models,
)
from ctxrecon.commands.paths import (
    OVERWRITE,
    check_outputs,
    image_outputs,
    input_files,
)
from ctxrecon.commands.results import Result
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ctxrecon.commands.volume import Volume


_STARTS = BASELINES | {NETWORK: NETWORK}
"""Command-line name -> ``image`` argument of the diffusion prior."""


def reconstruct(
    context: typer.Context,
    file: ScanFile,
    out: Annotated[
        Path,
        typer.Option(help="Output image (.npy .npz .cfl .nii.gz .dcm .png), or a folder."),
    ],
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Text prompt, such as 'Knee, PDFS, TR: 3150, TE: 33' (default: the scan file's "
            "metadata)."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help=f"Method, one of {', '.join((*ALIASES, *METHODS[1:]))} (default: the method of "
            "--model, else prior)."
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also run all other methods for comparison.")
    ] = False,
    mask: MaskFile = None,
    coil_maps: CoilMapsFile = None,
    slices: Slices = None,
    undersample: Annotated[
        str | None,
        typer.Option(
            help="Retrospectively undersample fully sampled data with this mask, such as uniform1d."
        ),
    ] = None,
    acceleration: Annotated[
        float | None,
        typer.Option(
            help="Acceleration factor for --undersample (default: 4), or for a joint model's own "
            "masks."
        ),
    ] = None,
    center_fraction: Annotated[
        float | None,
        typer.Option(
            help="Fully sampled fraction for --undersample (default: 0.32 / acceleration in 1-D)."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--prior",
            help="Folder or hub name of a prior, a network, or a joint model with its own masks "
            "(default: the models shipped with ctxrecon).",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="NIfTI volume of another contrast, of any matrix and orientation, for a --model "
            "that uses one."
        ),
    ] = None,
    subfolder: Annotated[
        str | None,
        typer.Option(help="Subfolder of the U-Net in --model, such as fastmri or skm-tea."),
    ] = None,
    guidance_scale: Annotated[
        float, typer.Option(help="Guidance scale of the prompt; 0 ignores the prompt.")
    ] = 1.0,
    steps: Annotated[int, typer.Option(help="Number of diffusion steps.")] = 30,
    samples: Annotated[
        int,
        typer.Option(
            help="Number of posterior samples; their mean and standard deviation are written."
        ),
    ] = 1,
    solver: Annotated[
        str | None,
        typer.Option(
            help="Diffusion solver with options, such as daps or dds:data_weight=50 (default: "
            "pnp_admm; for several samples, dds started from the pnp_admm image)."
        ),
    ] = None,
    noise_std: Annotated[
        str | None,
        typer.Option(
            help="Noise standard deviation of the k-space samples, for solvers that use it: a "
            "number, or auto to estimate it and to weight the prior by how well it predicts "
            "held-out samples."
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help=f"Start from the image of {', '.join(_STARTS)} instead of from noise."),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="Fraction of the diffusion to run after --start, from 0 to 1.")
    ] = 0.3,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    device: Device = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Slices and samples that networks process at once (default: 1 on a CPU, else as "
            "many as need about 2.5 GB).",
        ),
    ] = None,
    phase: Annotated[
        bool, typer.Option("--phase", help="Also write the phase, for NIfTI and DICOM.")
    ] = False,
    single_frames: Annotated[
        bool,
        typer.Option("--single-frames", help="Write one DICOM file per slice."),
    ] = False,
    crop_readout: CropReadout = None,
    repetition: Repetition = 0,
    contrast: Contrast = 0,
    cardiac_phase: CardiacPhase = 0,
    set_: Set = 0,
    average: Average = None,
    group: Group = None,
    calibration: Calibration = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Reconstruct a scan and write the image, a figure and the metrics.

    Volumes are reconstructed slice by slice. Finished slices are kept in OUT.partial until the
    whole volume is done: to resume a stopped run, repeat the same command.
    """
    method = None if method is None else check_method(method)
    if undersample is not None and mask is not None:
        raise InputError("--undersample draws its own mask: leave --mask out")
    if prompt is not None:
        check_prompt(prompt)
    if start is not None:
        start = spelled(start, _STARTS, "--start")
    outputs = image_outputs(out)
    refuse_ignored(context, users(undersample, model, start, outputs.suffix.lower()))
    noise = parse_noise(noise_std)

    from ctxrecon.commands.partial import PartialFolder
    from ctxrecon.commands.report import Table
    from ctxrecon.commands.slices import Work, reconstruct_slices
    from ctxrecon.commands.volume import Volume
    from ctxrecon.solvers import parse_solver

    chosen_solver = None if solver is None else parse_solver(solver)
    volume = Volume(file, slices, coil_maps, mask_given=mask is not None, **reading(context))
    check_place(outputs, volume)
    prompts, origin = prompts_of(volume, prompt)
    masks: Tensor | None = volume.masks
    if undersample is not None:
        factor = 4.0 if acceleration is None else acceleration
        masks = draw_masks(volume, undersample, factor, center_fraction, seed)
    elif mask is not None:
        masks = read_mask(mask, volume)
    call: dict[str, Any] = {"noise_std": noise}
    if start is not None:
        call |= {"image": _STARTS[start], "strength": strength}
    method, pipes, names = open_methods(
        method, compare, model, device, subfolder, dtype, reference=reference is not None
    )
    pipes = check_trajectory(volume, method, pipes, start)
    run = PriorRun(
        prompts,
        guidance_scale,
        steps,
        samples,
        seed,
        chosen_solver,
        call,
        names[PRIOR],
        batch_size,
    )
    reads = run.uses_prompt and any(
        name == PRIOR or pipe.reconstructor.text_width for name, pipe in pipes.items()
    )
    refuse_ignored(context, users_of_models(method, pipes, undersample, run))
    if PRIOR in pipes:
        check_prior_run(pipes[PRIOR], run, len(volume))
        if start == NETWORK:
            run = replace(run, network=open_network(device))
    others = tuple(name for name in (*COMPARED, *pipes) if name != method) if compare else ()

    def settings() -> dict[str, Any]:
        return _settings(context, pipes, inputs)

    inputs = (file, mask, coil_maps, calibration, reference)
    check_outputs(
        result_files(outputs, len(volume), method, others, samples, phase, single_frames),
        input_files(*inputs, model),
        overwrite=overwrite or PartialFolder.was_writing(outputs.partial, settings),
        folder=outputs.folder,
    )
    if reads or PRIOR in pipes:
        say_prompt(run, origin)
    other_contrast = None if reference is None else read_other_contrast(reference, volume)
    own_masks = JOINT in pipes and undersample is None and mask is None
    work = Work(
        volume=volume,
        masks=None if own_masks else masks,
        undersampled=undersample is not None,
        methods=(*others, method),
        pipes=pipes,
        names=names,
        run=run,
        prompts=prompts if reads else None,
        acceleration=acceleration if undersample is None else None,
        other_contrast=other_contrast,
    )
    chunks = work.chunks()
    kept = None
    if len(chunks) > 1:
        kept = PartialFolder(outputs.partial, settings(), overwrite=overwrite)
    if not own_masks:
        achieved = _acceleration(masks, volume)
        say_scan(volume, achieved)
    tables: list[Table] = []

    def show(result: Result, reference: Tensor | None) -> None:
        if not tables:
            tables.append(Table(reference))
        tables[0].add(result)

    try:
        results, truth, joint = reconstruct_slices(work, chunks, kept, show)
    except KeyboardInterrupt:
        if kept is not None:
            say(
                f"stopped: {len(kept)} of {len(chunks)} slices are kept in {outputs.partial}; "
                "repeat the same command to resume",
                err=True,
            )
        raise
    if joint is not None:
        achieved = _acceleration(joint.measurement.mask, volume)
        if own_masks:
            say_scan(volume, achieved)
    reference_name = "target" if volume.has_target else "MVUE"
    if kept is not None:
        kept.begin_writing()
    writer = ImageWriter(outputs, volume, achieved, single_frames)
    write_results(writer, results, truth, reference_name, phase=phase, keep_all=compare)
    if joint is not None:
        say("masks: " + ", ".join(map(str, write_sampling(outputs, joint, writer))))
    tables[0].write(
        outputs.metrics,
        file=str(file),
        slices=list(volume.numbers),
        reference=None if truth is None else reference_name,
        acceleration=achieved,
        prompts=run.prompts if reads else None,
    )
    say(f"metrics: {outputs.metrics}")
    if kept is not None:
        kept.remove()


def _acceleration(masks: Tensor | None, volume: Volume) -> float:
    return volume.acceleration if masks is None else 1 / float(masks.float().mean())


def _settings(
    context: typer.Context, pipes: dict[str, Any], inputs: tuple[Path | None, ...]
) -> dict[str, Any]:
    """Return everything that the slices of a run depend on, as JSON types."""
    import ctxrecon
    from ctxrecon.evaluation import fingerprint

    settings: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in context.params.items()
        if name not in ("out", "overwrite", "phase", "single_frames")
    }
    for path in input_files(*inputs):
        status = path.stat()
        settings[f"content of {path}"] = [status.st_size, status.st_mtime_ns]
    settings |= {f"weights of the {name}": fingerprint(pipe) for name, pipe in pipes.items()}
    return {**settings, "version": ctxrecon.__version__}
