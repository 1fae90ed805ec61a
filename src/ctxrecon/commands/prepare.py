"""``ctxrecon prepare``: convert raw volumes into a training set of shards."""

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
    help="Convert raw volumes into a training set, with one shard of slices per volume.",
    no_args_is_help=True,
)

_Out = Annotated[
    Path,
    typer.Option(
        help="Folder for the shards, created if missing; give the same folder to resume a stopped "
        "run."
    ),
]
_Size = Annotated[tuple[int, int], typer.Option(help="Size of the center crop, ny and nx.")]
_LeaveOut = Annotated[
    Path | None,
    typer.Option(
        "--leave-out", "--leave_out", help="File that lists the people to leave out, one per line."
    ),
]
_Only = Annotated[
    Path | None,
    typer.Option(help="File that lists the only people to include, one per line."),
]
_Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Number of processes, one volume each (default: all cores)."),
]


@prepare.command()
def fastmri(
    inputs: Annotated[list[Path], typer.Argument(help="Fully sampled fastMRI .h5 files.")],
    out: _Out,
    size: _Size = (320, 320),
    annotations: Annotated[
        Path | None,
        typer.Option(help="fastMRI+ table of pathology annotations, such as knee.csv."),
    ] = None,
    workers: _Workers = None,
) -> None:
    """Prepare fastMRI slices with ESPIRiT maps, MVUE images and metadata from the headers."""
    from ctxrecon.datasets import FastMRISource

    _prepare(FastMRISource(size=size, annotations=annotations), inputs, out, workers)


@prepare.command()
def skmtea(
    inputs: Annotated[list[Path], typer.Argument(help="SKM-TEA files_recon_calib-24/*.h5.")],
    out: _Out,
    headers: Annotated[Path, typer.Option(help="The data set's all_metadata.csv.")],
    size: _Size = (512, 512),
    echo: Annotated[
        str,
        typer.Option(metavar="1|2|both", help="qDESS echo to include: PD (1), T2 (2) or both."),
    ] = "1",
    annotations: Annotated[
        Path | None,
        typer.Option(help="Folder with bounding boxes of pathologies, such as annotations/v1.0.0."),
    ] = None,
    workers: _Workers = None,
) -> None:
    """Prepare sagittal slices of SKM-TEA volumes with the data set's coil maps."""
    from ctxrecon.datasets import SKMTEASource

    source = SKMTEASource(headers=headers, size=size, echo=echo, annotations=annotations)
    _prepare(source, inputs, out, workers)


@prepare.command()
def labels(
    inputs: Annotated[list[Path], typer.Argument(help="NIfTI volumes of FreeSurfer label maps.")],
    out: _Out,
    size: Annotated[tuple[int, int], typer.Option(help="Matrix size, ny and nx.")] = (256, 256),
    slices_per_volume: Annotated[
        int,
        typer.Option(
            "--slices-per-volume",
            "--slices_per_volume",
            help="Number of simulated slices per volume.",
        ),
    ] = 60,
    seed: Seed = 0,
    workers: _Workers = None,
) -> None:
    """Simulate brain slices from label volumes, each with its own protocol."""
    from ctxrecon.datasets import LabelSource

    source = LabelSource(size=size, slices_per_volume=slices_per_volume, seed=seed)
    _prepare(source, inputs, out, workers)


@prepare.command()
def images(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            help="NIfTI volumes, or folders with NIfTI volumes, DICOM series, or slices.npz and "
            "slices.json."
        ),
    ],
    out: _Out,
    size: Annotated[
        tuple[int, int],
        typer.Option(
            help="Matrix size, ny and nx. Images are cropped around the object or zero-padded; "
            "where the object does not fit, they are resampled in k-space."
        ),
    ] = (256, 256),
    max_slices: Annotated[
        int,
        typer.Option(
            "--max-slices",
            "--max_slices",
            help="Maximum number of slices per volume, evenly spaced.",
        ),
    ] = 60,
    anatomy: Annotated[
        str | None, typer.Option(help="Anatomy of images whose files do not state it.")
    ] = None,
    contrast: Annotated[
        str | None, typer.Option(help="Contrast of images whose files do not state it.")
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            help="Source and license of images whose files do not state them, for the model card."
        ),
    ] = None,
    leave_out: _LeaveOut = None,
    only: _Only = None,
    workers: _Workers = None,
) -> None:
    """Prepare magnitude image slices, which receive phase, shading and noise during training."""
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
        typer.Argument(
            help="Single-channel k-space .npz files, each with a .json file of metadata."
        ),
    ],
    out: _Out,
    size: Annotated[
        tuple[int, int],
        typer.Option(help="Matrix size, ny and nx; k-space is zero-padded to it."),
    ] = (256, 256),
    leave_out: _LeaveOut = None,
    only: _Only = None,
    workers: _Workers = None,
) -> None:
    """Prepare complex slices of fully sampled k-space, with the scanner's phase and noise."""
    from ctxrecon.datasets import MeasuredSource

    people = _people(leave_out, only)
    _prepare(MeasuredSource(size=size, people=people), inputs, out, workers, people)


def _people(leave_out: Path | None, only: Path | None) -> People:
    """Return the selection of people that the two lists define."""
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
    """Convert volumes, report on volumes and people, and exit with status 1 if any failed."""
    summary = _run(source, inputs, out, workers)
    if people is not None:
        _report_people(people, summary)
    _report_failures(summary, out)


def _report_people(people: People, summary: Summary) -> None:
    """Report how many people are in the set, and which listed names match no volume."""
    say(f"people: {len(summary.subjects)} in the set, {len(summary.left_out)} others left out")
    if unmatched := people.unmatched({*summary.subjects, *summary.left_out}):
        say(
            f"{_counted(len(unmatched), 'name')} in the lists that match no volume: "
            f"{', '.join(unmatched)}",
            err=True,
        )


def _run(source: VolumeSource, inputs: list[Path], out: Path, workers: int | None) -> Summary:
    """Convert volumes and report what was written."""
    from ctxrecon.datasets import prepare_shards

    summary = prepare_shards(source, inputs, _made(out), workers=workers)
    say(
        f"{_counted(summary.volumes, 'volume')} with {_counted(summary.slices, 'slice')} in {out} "
        f"(already done: {summary.resumed}; empty slices left out: {summary.empty_slices})"
    )
    return summary


def _report_failures(summary: Summary, out: Path) -> None:
    """Report the volumes that failed, and exit with status 1 if there are any."""
    if summary.failed:
        say(
            f"{len(summary.failed)} of {len(summary.failed) + summary.volumes} volumes failed; the "
            f"reasons are above and in {out / 'summary.json'}: {', '.join(summary.failed)}",
            err=True,
        )
        raise typer.Exit(1)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _made(out: Path) -> Path:
    """Return the folder, created with its parents if missing."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot create the folder {out} ({error.strerror}): give another --out"
        ) from error
    return out
