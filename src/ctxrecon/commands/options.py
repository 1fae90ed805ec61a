"""Options shared by several commands, and checks against options that would have no effect."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ctxrecon.commands.methods import JOINT, PRIOR, PriorRun
from ctxrecon.commands.paths import DICOM, NIFTI
from ctxrecon.errors import InputError

SCAN_SUFFIXES = ".npy, .npz, .h5, .mat, .dat or .cfl"
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed.")]
"""Type of ``--seed``; the range is that of ``torch.Generator.manual_seed``."""
MaskFile = Annotated[
    Path | None,
    typer.Option(
        help="Sampling mask, .npy of shape (nx,) or (ny, nx) (default: the scan file's mask)."
    ),
]
CoilMapsFile = Annotated[
    Path | None,
    typer.Option(
        help="Coil sensitivity maps, .npy or .cfl (default: the scan file's maps if it has any, "
        "else estimated)."
    ),
]
Slices = Annotated[
    str | None,
    typer.Option(help="Slices to process, 'a:b' or a single 'a', counted from 0 (default: all)."),
]
Dtype = Annotated[
    str, typer.Option(help="Data type of the networks: float32, bfloat16 or float16.")
]
Device = Annotated[
    str | None,
    typer.Option(help="Device, such as cpu or cuda:0 (default: cuda if available, else cpu)."),
]
CropReadout = Annotated[
    bool | None,
    typer.Option(
        "--crop-readout/--keep-readout",
        help="Remove readout oversampling, or keep it (default: remove it for ISMRMRD and "
        "Siemens, keep it for fastMRI).",
    ),
]
ScanFile = Annotated[Path, typer.Argument(help=f"Scan file: {SCAN_SUFFIXES}.")]
Repetition = Annotated[
    int,
    typer.Option(min=0, help="Repetition to read from ISMRMRD, Siemens or BART files, from 0."),
]
Contrast = Annotated[
    int,
    typer.Option(
        min=0, help="Contrast (echo) to read from ISMRMRD, Siemens or BART files, from 0."
    ),
]
CardiacPhase = Annotated[
    int,
    typer.Option(
        "--cardiac-phase",
        min=0,
        help="Cardiac phase to read from ISMRMRD, Siemens, BART or MATLAB files, from 0.",
    ),
]
Set = Annotated[
    int,
    typer.Option(
        "--set",
        min=0,
        help="Set to read from ISMRMRD or Siemens files, such as a velocity encoding, from 0.",
    ),
]
Average = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Average to read from ISMRMRD, Siemens, BART or fastMRI files, from 0 (default: the "
        "mean of all).",
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        help="Measurement of an ISMRMRD file or variable of a MATLAB file, if it has several."
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(help="Separate calibration scan from which to estimate the coil maps."),
]

# Command-line option -> argument of ctxrecon.io.read_scan.
_READING = {
    **{name: name for name in ("crop_readout", "repetition", "contrast", "average", "group")},
    **{"cardiac_phase": "phase", "set_": "set", "calibration": "calibration"},
}


def reading(context: typer.Context) -> dict[str, Any]:
    """Return the arguments of :func:`ctxrecon.io.read_scan` that a command's options set."""
    return {
        argument: context.params[name]
        for name, argument in _READING.items()
        if name in context.params
    }


Users = dict[str, tuple[object, str]]
"""Option name -> whether this run uses it, and otherwise the reason and the remedy."""


def given(context: typer.Context, name: str) -> bool:
    """Return whether an option was given on the command line, even with its default value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_ignored(context: typer.Context, table: Mapping[str, tuple[object, str]]) -> None:
    """Raise an error for options that were given but would have no effect in this run.

    Args:
        context: Context of the command.
        table: Option names with their use, see :data:`Users`.

    Raises:
        InputError: If an unused option was given; the message is about the first one.
    """
    for name, (used, reason) in table.items():
        if not used and given(context, name):
            raise InputError(f"--{name.replace('_', '-')} {reason}")


OF_UNDERSAMPLE = "applies to --undersample, such as --undersample uniform1d: give both or neither"


def users(undersample: str | None, model: str | None, start: str | None, suffix: str) -> Users:
    """Return the ``ctxrecon reconstruct`` options that depend on another option."""
    return {
        "acceleration": (undersample or model, OF_UNDERSAMPLE),
        "center_fraction": (undersample, OF_UNDERSAMPLE),
        "strength": (start, "applies to --start: give both or neither"),
        "subfolder": (model, "selects a U-Net of --model: give both"),
        "reference": (
            model,
            "applies to a network that uses another contrast: give its folder with --model too",
        ),
        "phase": (
            suffix in (*NIFTI, DICOM),
            "applies to NIfTI and DICOM; .npy, .npz and .cfl hold complex values: leave it out",
        ),
        "single_frames": (suffix == DICOM, "applies to DICOM files: leave it out"),
    }


def users_of_models(
    method: str, pipes: Mapping[str, Any], undersample: str | None, run: PriorRun
) -> Users:
    """Return the ``ctxrecon reconstruct`` options that only some kinds of methods use."""
    prior, joint = PRIOR in pipes, JOINT in pipes
    together = joint or (prior and run.solver is not None and run.solver.couples_batch)
    reads = prior or any(pipe.reconstructor.text_width for pipe in pipes.values())
    of_prior = (prior, f"applies to the diffusion prior, not to {method}: leave it out")
    of_networks = (pipes, f"applies to networks, and {method} has none: leave it out")
    weighs = of_prior
    if prior and run.prompts is None and run.guidance_scale > 0:
        weighs = (False, "weights a prompt, and there is none: give --prompt too")
    return {
        **dict.fromkeys(("samples", "solver", "noise_std", "start", "steps"), of_prior),
        **dict.fromkeys(("dtype", "device"), of_networks),
        "batch_size": (
            pipes and not together,
            f"applies to networks that process slices separately, not to {method}: leave it out",
        ),
        "guidance_scale": weighs,
        "prompt": (reads, f"applies to methods that read prompts, not to {method}: leave it out"),
        "acceleration": (
            undersample or joint,
            f"applies to --undersample, and {method} does not choose its own masks: give "
            "--undersample too",
        ),
        "seed": (
            prior or undersample or joint,
            f"sets the random numbers, and {method} draws none: leave it out",
        ),
    }
