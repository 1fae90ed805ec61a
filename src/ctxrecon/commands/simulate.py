"""``ctxrecon simulate``: a scan of the digital phantom, or of an image volume."""

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


# Larger matrices are not measured, and would be simulated for hours.
_LARGEST_MATRIX, _MOST_COILS = 2048, 256
_OF_PHANTOM = "is of the phantom, not of an image volume: leave it out"


def simulate(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Scan file to write, .npz or .h5.")],
    volume: Annotated[
        Path | None,
        typer.Argument(help="NIfTI volume of images to measure. (default: the phantom)"),
    ] = None,
    anatomy: Annotated[str, typer.Option(help="brain or knee.")] = "brain",
    contrast: Annotated[
        str | None, typer.Option(help="Such as T2, FLAIR or PDFS. (default: drawn)")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="NIfTI volume of FreeSurfer labels to take a brain slice of."),
    ] = None,
    position: Annotated[
        float, typer.Option(help="Of that slice: 0 the lowest with brain, 1 the vertex.")
    ] = 0.5,
    shape: Annotated[tuple[int, int], typer.Option(help="Matrix size, ny and nx.")] = (128, 128),
    coils: Annotated[int, typer.Option(help="Receiver coils.")] = 8,
    snr: Annotated[float, typer.Option(help="Bright signal over the noise of a coil.")] = 50.0,
    undersample: Annotated[
        str | None, typer.Option(help="Mask, such as uniform1d. (default: fully sampled)")
    ] = None,
    acceleration: Annotated[float, typer.Option(help="Of --undersample.")] = 4.0,
    center_fraction: Annotated[
        float | None, typer.Option(help="Of --undersample. (default: 0.32 / acceleration in 1-D)")
    ] = None,
    tr: Annotated[
        float | None, typer.Option(help="Repetition time in ms. (default: drawn)")
    ] = None,
    te: Annotated[float | None, typer.Option(help="Echo time in ms. (default: drawn)")] = None,
    ti: Annotated[float | None, typer.Option(help="Inversion time in ms. (default: drawn)")] = None,
    flip_angle: Annotated[float | None, typer.Option(help="In degrees. (default: drawn)")] = None,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Simulate a scan of the phantom or of a volume; writes it with its true image, and a picture.

    Protocols are drawn from those of real scans; times that are given replace the drawn ones. Of a
    volume the notes that BIDS keeps beside it are read, and its place in the scanner is kept.
    Coil maps are not written: they are to be estimated from the data, as for any scan.
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
                f"{anatomy} is not of --labels, which are of a brain: leave one out",
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
    say(f"prompt: {scan.metadata[0].to_prompt() or 'none, nothing is known about the volume'}")
    say(f"scan: {out}\npicture of its true image: {picture}")


def _from_labels(
    path: Path, position: float, shape: tuple[int, int], generator: torch.Generator
) -> Anatomy:
    """A slice of a label volume at the field of view of a head."""
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
    """The slices of an image volume, measured.

    Args:
        path: of a NIfTI file.
        stated: metadata that replace those of the file.
        coils: see :func:`simulate`.
        snr: likewise; the bright signal is that of the whole volume.
        drawn: gives the mask of a matrix size.
        generator: draws mask, coils and noise.
    """
    import torch

    from ctxrecon.coils import simulate_coil_maps
    from ctxrecon.datasets.nifti import read_metadata
    from ctxrecon.datasets.volumes import bright_signal
    from ctxrecon.io.volumes import read_volume
    from ctxrecon.phantom import measure

    found = read_volume(path)
    shape = (found.images.shape[1], found.images.shape[2])
    _check_size(shape, coils, "cut the volume")
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
    """Refuse what would be simulated for hours."""
    if max(shape) > _LARGEST_MATRIX or coils > _MOST_COILS:
        raise InputError(
            f"expected a matrix of up to {_LARGEST_MATRIX} {_LARGEST_MATRIX} and --coils up to "
            f"{_MOST_COILS}, got {shape[0]} {shape[1]} and {coils}: {remedy}"
        )
