"""Options that several commands have; those that nothing would look at are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from ctxrecon.commands.methods import JOINT, PRIOR, PriorRun
from ctxrecon.commands.paths import DICOM, NIFTI
from ctxrecon.errors import InputError

SCAN_SUFFIXES = ".npy, .npz, .h5, .mat, .dat or .cfl"
Seed = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Of all randomness.")]
"""The type of ``--seed``: what every generator takes."""
MaskFile = Annotated[
    Path | None,
    typer.Option(help="Sampling mask .npy, (nx,) or (ny, nx). (default: from the file)"),
]
CoilMapsFile = Annotated[
    Path | None,
    typer.Option(help="Coil maps .npy or .cfl. (default: the file's, or estimated)"),
]
Slices = Annotated[str | None, typer.Option(help="Slices 'a:b' or one 'a', from 0. (default: all)")]
Dtype = Annotated[str, typer.Option(help="Of the networks: float32, bfloat16 or float16.")]
Device = Annotated[
    str | None, typer.Option(help="Such as cpu or cuda:0. (default: cuda where there is one)")
]
CropReadout = Annotated[
    bool | None,
    typer.Option(
        "--crop-readout/--keep-readout",
        help="Whether to crop the readout oversampling away. (default: for ISMRMRD and Siemens, "
        "not for fastMRI)",
    ),
]
ScanFile = Annotated[Path, typer.Argument(help=f"Scan: {SCAN_SUFFIXES}.")]
Repetition = Annotated[int, typer.Option(min=0, help="Of ISMRMRD, Siemens or BART, from 0.")]
Contrast = Annotated[
    int, typer.Option(min=0, help="Contrast (echo) of ISMRMRD, Siemens or BART, from 0.")
]
CardiacPhase = Annotated[
    int,
    typer.Option("--cardiac-phase", min=0, help="Of ISMRMRD, Siemens, BART or MATLAB, from 0."),
]
Set = Annotated[
    int,
    typer.Option("--set", min=0, help="Such as a velocity encoding, of ISMRMRD or Siemens."),
]
Average = Annotated[
    int | None,
    typer.Option(
        min=0, help="Of ISMRMRD, Siemens, BART or fastMRI, from 0. (default: the mean of all)"
    ),
]
Group = Annotated[
    str | None, typer.Option(help="Measurement of ISMRMRD or variable of MATLAB, of several.")
]
Calibration = Annotated[
    Path | None,
    typer.Option(help="Scan whose fully sampled center serves to estimate the coil maps."),
]

# Options -> arguments of ctxrecon.io.read_scan.
_READING = {
    **{name: name for name in ("crop_readout", "repetition", "contrast", "average", "group")},
    **{"cardiac_phase": "phase", "set_": "set", "calibration": "calibration"},
}


def reading(context: typer.Context) -> dict[str, Any]:
    """What the options of a command say of how its scan is read."""
    return {
        argument: context.params[name]
        for name, argument in _READING.items()
        if name in context.params
    }


Users = dict[str, tuple[object, str]]
"""Name of an option -> whether something uses it; and if not, why and what to do."""


def given(context: typer.Context, name: str) -> bool:
    """Whether an option stands on the command line, even with the value of its default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def refuse_ignored(context: typer.Context, table: Mapping[str, tuple[object, str]]) -> None:
    """Refuse options that are given and that nothing uses in this run.

    Args:
        context: of the command.
        table: see :data:`Users`.

    Raises:
        InputError: for the first of them.
    """
    for name, (used, reason) in table.items():
        if not used and given(context, name):
            raise InputError(f"--{name.replace('_', '-')} {reason}")


OF_UNDERSAMPLE = "is of --undersample, such as --undersample uniform1d: give both, or leave it out"


def users(undersample: str | None, model: str | None, start: str | None, suffix: str) -> Users:
    """Options of ``ctxrecon reconstruct`` that others bring into use."""
    return {
        "acceleration": (undersample or model, OF_UNDERSAMPLE),
        "center_fraction": (undersample, OF_UNDERSAMPLE),
        "strength": (start, "is of --start: give both, or leave it out"),
        "subfolder": (model, "chooses a U-Net of --model: give both"),
        "reference": (model, "is of a network that it helps: give its folder by --model too"),
        "phase": (
            suffix in (*NIFTI, DICOM),
            "is of NIfTI and DICOM files; .npy, .npz and .cfl hold complex values: leave it out",
        ),
        "single_frames": (suffix == DICOM, "is of DICOM files: leave it out"),
    }


def users_of_models(
    method: str, pipes: Mapping[str, Any], undersample: str | None, run: PriorRun
) -> Users:
    """Options of ``ctxrecon reconstruct`` that some kinds of methods alone use."""
    prior, joint = PRIOR in pipes, JOINT in pipes
    together = joint or (prior and run.solver is not None and run.solver.couples_batch)
    reads = prior or any(pipe.reconstructor.text_width for pipe in pipes.values())
    of_prior = (prior, f"is of the diffusion prior, not of {method}: leave it out")
    of_networks = (pipes, f"is of networks, and {method} has none: leave it out")
    weighs = of_prior
    if prior and run.prompts is None and run.guidance_scale > 0:
        weighs = (False, "weighs a prompt, and there is none: give --prompt too")
    return {
        **dict.fromkeys(("samples", "solver", "noise_std", "start", "steps"), of_prior),
        **dict.fromkeys(("dtype", "device"), of_networks),
        "batch_size": (
            pipes and not together,
            f"is of networks that take slices apart, not of {method}: leave it out",
        ),
        "guidance_scale": weighs,
        "prompt": (reads, f"is of methods that read prompts, not of {method}: leave it out"),
        "acceleration": (
            undersample or joint,
            f"is of --undersample, and {method} has no masks of its own: give --undersample too",
        ),
        "seed": (
            prior or undersample or joint,
            f"is of randomness, and {method} draws nothing: leave it out",
        ),
    }
