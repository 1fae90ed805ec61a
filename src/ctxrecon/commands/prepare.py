"""``ctxrecon prepare``: raw volumes into a training set of shards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctxrecon.commands.logs import say
from ctxrecon.commands.options import Seed
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from ctxrecon.datasets import People, Summary, VolumeSource

prepare = typer.Typer(
    help="Turn raw volumes into a training set, one shard of slices for each volume.",
    no_args_is_help=True,
)

_Out = Annotated[
    Path,
    typer.Option(
        help="Folder for the shards, made if missing; a stopped run goes on in it with the volumes "
        "that have none."
    ),
]
_Size = Annotated[tuple[int, int], typer.Option(help="Centre crop, ny and nx.")]
_LeaveOut = Annotated[
    Path | None,
    typer.Option("--leave-out", "--leave_out", help="List of people to leave out, one a line."),
]
_Only = Annotated[Path | None, typer.Option(help="List of people to take alone, one a line.")]
_Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes, one volume each. (default: all cores)")
]


@prepare.command()
def fastmri(
    inputs: Annotated[list[Path], typer.Argument(help="Fully sampled fastMRI .h5 files.")],
    out: _Out,
    size: _Size = (320, 320),
    annotations: Annotated[
        Path | None, typer.Option(help="fastMRI+ table of pathologies, such as knee.csv.")
    ] = None,
    workers: _Workers = None,
) -> None:
    """Slices of fastMRI volumes: ESPIRiT maps, MVUE image, metadata of the header."""
    from ctxrecon.datasets import FastMRISource

    _prepare(FastMRISource(size=size, annotations=annotations), inputs, out, workers)


@prepare.command()
def skmtea(
    inputs: Annotated[list[Path], typer.Argument(help="SKM-TEA files_recon_calib-24/*.h5.")],
    out: _Out,
    headers: Annotated[Path, typer.Option(help="all_metadata.csv of the data set.")],
    size: _Size = (512, 512),
    echo: Annotated[
        str, typer.Option(metavar="1|2|both", help="Echo of the qDESS: PD (1), T2 (2) or both.")
    ] = "1",
    annotations: Annotated[
        Path | None,
        typer.Option(help="Folder of the boxes of pathologies, such as annotations/v1.0.0."),
    ] = None,
    workers: _Workers = None,
) -> None:
    """Sagittal slices of SKM-TEA volumes, with the maps of the data set."""
    from ctxrecon.datasets import SKMTEASource

    source = SKMTEASource(headers=headers, size=size, echo=echo, annotations=annotations)
    _prepare(source, inputs, out, workers)


@prepare.command()
def labels(
    inputs: Annotated[list[Path], typer.Argument(help="NIfTI volumes of FreeSurfer labels.")],
    out: _Out,
    size: Annotated[tuple[int, int], typer.Option(help="Matrix size, ny and nx.")] = (256, 256),
    slices_per_volume: Annotated[
        int,
        typer.Option(
            "--slices-per-volume", "--slices_per_volume", help="Simulated slices of each volume."
        ),
    ] = 60,
    seed: Seed = 0,
    workers: _Workers = None,
) -> None:
    """Simulated brain slices of label volumes, each with its own protocol."""
    from ctxrecon.datasets import LabelSource

    source = LabelSource(size=size, slices_per_volume=slices_per_volume, seed=seed)
    _prepare(source, inputs, out, workers)


@prepare.command()
def images(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="NIfTI volumes, or folders of them, of DICOM series, or of slices.npz with "
            "slices.json."
        ),
    ],
    out: _Out,
    size: Annotated[
        tuple[int, int],
        typer.Option(
            help="Matrix size, ny and nx: cropped around what an image shows, or filled with "
            "zeros; where it does not fit, sampled anew by its k-space."
        ),
    ] = (256, 256),
    max_slices: Annotated[
        int,
        typer.Option(
            "--max-slices", "--max_slices", help="Slices of each volume at most, evenly spaced."
        ),
    ] = 60,
    anatomy: Annotated[
        str | None, typer.Option(help="Anatomy of the images that do not tell theirs.")
    ] = None,
    contrast: Annotated[
        str | None, typer.Option(help="Contrast of the images that do not tell theirs.")
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            help="Source and licence of the images that do not tell theirs, for the model card."
        ),
    ] = None,
    leave_out: _LeaveOut = None,
    only: _Only = None,
    workers: _Workers = None,
) -> None:
    """Magnitude slices of images, which get phase, shading and noise in training."""
    from ctxrecon.datasets import ImageSource

    people = _people(leave_out, only)
    source = ImageSource(
        size=size,
        max_slices=max_slices,
        anatomy=anatomy,
        contrast=contrast,
        origin=origin,
        people=people,
    )
    _prepare(source, inputs, out, workers, people)


@prepare.command()
def measured(
    inputs: Annotated[
        list[Path],
        typer.Argument(help=".npz files of k-space of one channel, each with its .json of notes."),
    ],
    out: _Out,
    size: Annotated[
        tuple[int, int], typer.Option(help="Matrix size, ny and nx: k-space is filled with zeros.")
    ] = (256, 256),
    leave_out: _LeaveOut = None,
    only: _Only = None,
    workers: _Workers = None,
) -> None:
    """Complex slices of fully sampled k-space, with the phase and the noise of the scanner."""
    from ctxrecon.datasets import MeasuredSource

    people = _people(leave_out, only)
    _prepare(MeasuredSource(size=size, people=people), inputs, out, workers, people)


def _people(leave_out: Path | None, only: Path | None) -> People:
    """Whose slices the lists ask for."""
    from ctxrecon.datasets import People, read_people

    return People(
        frozenset() if leave_out is None else read_people(leave_out),
        None if only is None else read_people(only),
    )


def _prepare(
    source: VolumeSource,
    inputs: list[Path],
    out: Path,
    workers: int | None,
    people: People | None = None,
) -> None:
    """Run, tell what became of volumes and people, and exit with status 1 when some are missing."""
    summary = _run(source, inputs, out, workers)
    if people is not None:
        _report_people(people, summary)
    _report_failures(summary, out)


def _report_people(people: People, summary: Summary) -> None:
    """Count those in the set, and name those of the lists whom no volume has."""
    say(f"people: {len(summary.subjects)} in the set, {len(summary.left_out)} others not asked for")
    if unmatched := people.unmatched({*summary.subjects, *summary.left_out}):
        say(
            f"{_counted(len(unmatched), 'name')} of the lists that nobody has: "
            f"{', '.join(unmatched)}",
            err=True,
        )


def _run(source: VolumeSource, inputs: list[Path], out: Path, workers: int | None) -> Summary:
    """Run, and tell what was made."""
    from ctxrecon.datasets import prepare_shards

    summary = prepare_shards(source, inputs, _made(out), workers=workers)
    say(
        f"{_counted(summary.volumes, 'volume')} with {_counted(summary.slices, 'slice')} in {out} "
        f"(there before: {summary.resumed}; empty slices left out: {summary.empty_slices})"
    )
    return summary


def _report_failures(summary: Summary, out: Path) -> None:
    """Name the volumes that are missing, and exit with status 1 when there are some."""
    if summary.failed:
        say(
            f"{len(summary.failed)} of {len(summary.failed) + summary.volumes} volumes failed, the "
            f"reasons are above and in {out / 'summary.json'}: {', '.join(summary.failed)}",
            err=True,
        )
        raise typer.Exit(1)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _made(out: Path) -> Path:
    """The folder, made with its parents where it is missing."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the folder {out} ({error.strerror}): give another --out"
        ) from error
    return out
