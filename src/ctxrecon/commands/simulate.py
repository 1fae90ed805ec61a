"""``ctxrecon simulate``: simulate a scan of the digital phantom or of an image volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxrecon.commands.logs import say
from ctxrecon.commands.options import OF_UNDERSAMPLE, Seed, given, refuse_ignored
from ctxrecon.commands.paths import OVERWRITE, check_outputs, input_files
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    import torch

    from ctxrecon.metadata import ScanMetadata
    from ctxrecon.phantom import Anatomy
    from ctxrecon.scan import Scan


# Larger matrices do not occur in practice and would take hours to simulate.
_LARGEST_MATRIX, _MOST_COILS = 2048, 256
_OF_PHANTOM = "applies to the phantom, not to an image volume: leave it out"


def simulate(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Scan file to write, .npz or .h5.")],
    volume: Annotated[
        Path | None,
        typer.Argument(help="NIfTI image volume to simulate a scan of (default: the phantom)."),
    ] = None,
    anatomy: Annotated[str, typer.Option(help="Anatomy, brain or knee.")] = "brain",
    contrast: Annotated[
        str | None,
        typer.Option(help="Contrast, such as T2, FLAIR or PDFS (default: drawn at random)."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="NIfTI volume of FreeSurfer labels from which to take a brain slice."),
    ] = None,
    position: Annotated[
        float,
        typer.Option(
            help="Position of the slice in --labels, from 0 (lowest with brain) to 1 (vertex)."
        ),
    ] = 0.5,
    shape: Annotated[tuple[int, int], typer.Option(help="Matrix size, ny and nx.")] = (128, 128),
    coils: Annotated[int, typer.Option(help="Number of receiver coils.")] = 8,
    snr: Annotated[
        float, typer.Option(help="Ratio of the bright signal to the noise of one coil.")
    ] = 50.0,
    undersample: Annotated[
        str | None,
        typer.Option(help="Sampling mask, such as uniform1d (default: fully sampled)."),
    ] = None,
    acceleration: Annotated[
        float, typer.Option(help="Acceleration factor for --undersample.")
    ] = 4.0,
    center_fraction: Annotated[
        float | None,
        typer.Option(
            help="Fully sampled fraction for --undersample (default: 0.32 / acceleration in 1-D)."
        ),
    ] = None,
    tr: Annotated[
        float | None, typer.Option(help="Repetition time in ms (default: drawn at random).")
    ] = None,
    te: Annotated[
        float | None, typer.Option(help="Echo time in ms (default: drawn at random).")
    ] = None,
    ti: Annotated[
        float | None, typer.Option(help="Inversion time in ms (default: drawn at random).")
    ] = None,
    flip_angle: Annotated[
        float | None, typer.Option(help="Flip angle in degrees (default: drawn at random).")
    ] = None,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Simulate a scan of the phantom or of an image volume, and write it with its true image.

    Protocols are drawn from a distribution of real protocols; options such as --tr replace the
    drawn values. For a volume, metadata are read from its BIDS sidecar file and its position in
    the scanner is kept. Coil maps are not written: estimate them from the data, as for any scan.
    """
    if out.suffix.lower() not in {".npz", ".h5", ".hdf5"}:
        raise InputError(
            f"cannot write {out}: expected a scan as .npz or .h5, got "
            f"{out.suffix or 'no extension'}"
        )
    if not 0 <= position <= 1:
        raise InputError(f"expected --position from 0 to 1, got {position:g}")
    refuse_ignored(
        context,
        {
            "acceleration": (undersample, OF_UNDERSAMPLE),
            "center_fraction": (undersample, OF_UNDERSAMPLE),
            "position": (labels, "chooses a slice of --labels: give both, or leave it out"),
            **dict.fromkeys(("labels", "shape"), (volume is None, _OF_PHANTOM)),
            "anatomy": (
                labels is None or anatomy == "brain",
                f"{anatomy} does not apply to --labels, which show a brain: leave one out",
            ),
        },
    )
    _check_size(shape, coils, "give smaller --shape and --coils")
    picture = out.with_name(out.stem + "_target.png")
    check_outputs((out, picture), input_files(labels, volume), overwrite=overwrite)

    import torch

    from ctxrecon.io import write_image, write_scan
    from ctxrecon.masks import make_mask

    generator = torch.Generator().manual_seed(seed)
    times: dict[str, Any] = {"tr": tr, "te": te, "ti": ti, "flip_angle": flip_angle}
    stated = {name: value for name, value in times.items() if value is not None}

    def drawn(matrix: tuple[int, int]) -> torch.Tensor | None:
        if undersample is None:
            return None
        return make_mask(undersample, matrix, acceleration, center_fraction, generator=generator)

    if volume is not None:
        if given(context, "anatomy"):
            stated["anatomy"] = anatomy
        if contrast is not None:
            stated["contrast"] = contrast
        scan = _of_volume(volume, stated, coils, snr, drawn, generator)
    else:
        from ctxrecon.phantom import draw_protocol, phantom_scan

        mask = drawn(shape)
        subject = anatomy if labels is None else _from_labels(labels, position, shape, generator)
        anatomy = anatomy if labels is None else "brain"
        protocol = draw_protocol(generator, anatomy=anatomy, contrast=contrast)
        scan = phantom_scan(
            subject,
            protocols=[replace(protocol, **stated)],
            shape=shape,
            num_coils=coils,
            mask=mask,
            snr=snr,
            generator=generator,
        )
    assert scan.target is not None
    write_scan(out, replace(scan, coil_maps=None))
    write_image(picture, scan.target, montage=True)
    say(f"prompt: {scan.metadata[0].to_prompt() or 'none, the volume has no metadata'}")
    say(f"scan: {out}\npicture of its true image: {picture}")


def _from_labels(
    path: Path, position: float, shape: tuple[int, int], generator: torch.Generator
) -> Anatomy:
    """Return a slice of a label volume with the field of view of a head scan."""
    import importlib.util

    from ctxrecon.phantom import anatomy_from_labels, load_label_volume
    from ctxrecon.phantom.subject import numpy_rng

    if importlib.util.find_spec("nibabel") is None:
        raise InputError("--labels needs nibabel: install it with pip install nibabel")
    size = max(256, *shape)
    return anatomy_from_labels(
        load_label_volume(path), position, numpy_rng(generator), size=size, voxel_mm=230 / size
    )


def _of_volume(
    path: Path,
    stated: dict[str, Any],
    coils: int,
    snr: float,
    drawn: Callable[[tuple[int, int]], torch.Tensor | None],
    generator: torch.Generator,
) -> Scan:
    """Simulate a scan of an image volume, with one slice per slice of the volume.

    Args:
        path: NIfTI file.
        stated: Metadata that replace those of the file.
        coils: Number of receiver coils.
        snr: Ratio of the whole volume's bright signal to the noise of one coil.
        drawn: Function that returns the sampling mask for a matrix size ``(ny, nx)``.
        generator: Random number generator for mask, coils and noise.
    """
    import torch

    from ctxrecon.coils import simulate_coil_maps
    from ctxrecon.datasets.nifti import read_metadata
    from ctxrecon.datasets.volumes import bright_signal
    from ctxrecon.io.volumes import read_volume
    from ctxrecon.phantom import measure

    found = read_volume(path)
    shape = (found.images.shape[1], found.images.shape[2])
    _check_size(shape, coils, "crop the volume")
    metadata: ScanMetadata = replace(read_metadata(path), **stated)
    images = (found.images / bright_signal(found.images.numpy())).to(torch.complex64)
    mask = drawn(shape)
    maps = torch.ones((1, 1, *shape), dtype=torch.complex64)
    if coils > 1:
        maps = simulate_coil_maps(coils, shape, generator=generator)
    known = [metadata] * len(images)
    scan = measure(images, maps, mask, snr=snr, metadata=known, generator=generator)
    return replace(scan, affine=found.affine, voxel_size=found.voxel_size)


def _check_size(shape: tuple[int, int], coils: int, remedy: str) -> None:
    """Validate that a scan is small enough to be simulated in reasonable time."""
    if max(shape) > _LARGEST_MATRIX or not 1 <= coils <= _MOST_COILS:
        raise InputError(
            f"expected a matrix of up to {_LARGEST_MATRIX} {_LARGEST_MATRIX} and --coils from 1 to "
            f"{_MOST_COILS}, got {shape[0]} {shape[1]} and {coils}: {remedy}"
        )
