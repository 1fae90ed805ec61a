"""``ctxrecon task``: segment a scan, or compute the probabilities of findings in it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctxrecon.commands.images import ImageWriter
from ctxrecon.commands.inputs import read_mask, say_scan, single_maps
from ctxrecon.commands.logs import say, slice_named
from ctxrecon.commands.methods import open_model
from ctxrecon.commands.options import (
    CoilMapsFile,
    Device,
    Dtype,
    MaskFile,
    ScanFile,
    Seed,
    Slices,
    refuse_ignored,
)
from ctxrecon.commands.paths import (
    DICOM,
    OVERWRITE,
    Outputs,
    check_outputs,
    image_files,
    image_outputs,
    input_files,
)
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    import torch

    from ctxrecon.commands.volume import Volume
    from ctxrecon.pipelines import TaskOutput, TaskPipeline

_IMAGES = {"disagreement": "disagreement", "images": "image", "std": "std"}
"""Field of the output -> name of its image file."""
_ARRAYS = ("samples", "probabilities", "masks")


def task(
    context: typer.Context,
    file: ScanFile,
    model: Annotated[str, typer.Option(help="Folder or hub name of the task model.")],
    out: Annotated[
        Path,
        typer.Option(help="Output segmentation (.npy .npz .cfl .nii.gz .png), or a folder."),
    ],
    acceleration: Annotated[
        float | None,
        typer.Option(help="Acceleration factor of the model's masks (default: the model's own)."),
    ] = None,
    samples: Annotated[
        int, typer.Option(min=1, help="Number of segmentation samples per slice.")
    ] = 8,
    mask: MaskFile = None,
    coil_maps: CoilMapsFile = None,
    slices: Slices = None,
    seed: Seed = 0,
    dtype: Dtype = "float32",
    device: Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help=OVERWRITE)] = False,
) -> None:
    """Perform a task on a scan: segmentation or classification, with its uncertainty.

    Fully sampled scans are undersampled with the model's own masks; other scans are used as they
    are. For segmentation, writes the most probable classes and next to them all samples,
    probabilities, the disagreement between samples, and the image if the model reconstructs one;
    for classification, writes a JSON file.
    """
    outputs = image_outputs(out, "segmentation")
    if outputs.suffix.lower() == DICOM:
        raise InputError(f"cannot write {out}: segmentations have no DICOM format, use NIfTI")

    from ctxrecon.commands.volume import Volume
    from ctxrecon.pipelines import TaskPipeline
    from ctxrecon.scan import FULLY_SAMPLED

    volume = Volume(file, slices, coil_maps, mask_given=mask is not None)
    masks = volume.masks if mask is None else read_mask(mask, volume)
    if masks is None:
        raise InputError(f"tasks need Cartesian k-space, and {file} is non-Cartesian")
    pipe = open_model(model, device, None, dtype)
    if not isinstance(pipe, TaskPipeline):
        raise InputError(f"{model} does not perform a task: use ctxrecon reconstruct")
    own = mask is None and float(masks.float().mean()) >= FULLY_SAMPLED
    segments = _segments(pipe)
    if not segments:
        outputs = image_outputs(out, "classification")
    refuse_ignored(
        context,
        {
            "acceleration": (
                own,
                "applies to the model's own masks, and this scan is already undersampled: "
                "leave it out",
            ),
            "samples": (
                segments,
                "applies to segmentation, and this model classifies: leave it out",
            ),
        },
    )
    check_outputs(
        _files(outputs, pipe, len(volume)),
        input_files(file, mask, coil_maps, model),
        overwrite=overwrite,
        folder=outputs.folder,
    )
    found = []
    for position, number in enumerate(volume.numbers):
        given = None if own else masks[position : position + 1] if len(masks) > 1 else masks
        with slice_named(number):
            found.append(_read(pipe, volume, position, given, acceleration, samples, seed))
    together = _together(found)
    say_scan(volume, 1 / float(together["masks"].float().mean()))
    _write(outputs, pipe, volume, together)


def _segments(pipe: TaskPipeline) -> bool:
    from ctxrecon.tasks import Segmenter

    return isinstance(pipe.network, Segmenter)


def _read(
    pipe: TaskPipeline,
    volume: Volume,
    position: int,
    mask: torch.Tensor | None,
    acceleration: float | None,
    samples: int,
    seed: int,
) -> TaskOutput:
    """Process one slice, with random numbers that depend on the seed and the slice's number."""
    from ctxrecon.inference.batches import slice_generators

    scan = volume.read([position])
    return pipe(
        scan.kspace,
        mask,
        acceleration=acceleration,
        num_samples=samples,
        coil_maps=single_maps(scan),
        generator=slice_generators(seed, volume.numbers[position : position + 1]),
    )


def _together(found: list[TaskOutput]) -> dict[str, torch.Tensor]:
    """Concatenate the outputs of all slices, by name; absent ones are left out."""
    import torch

    names = ("probabilities", "masks", "samples", "disagreement", "images", "std")
    return {
        name: torch.cat([getattr(one, name).cpu() for one in found])
        for name in names
        if getattr(found[0], name) is not None
    }


def _files(outputs: Outputs, pipe: TaskPipeline, count: int) -> list[Path]:
    """Return every file that may be written."""
    if not _segments(pipe):
        return [outputs.summary, outputs.masks]
    images = [outputs.image, *(outputs.method(name) for name in _IMAGES.values())]
    files = [file for image in images for file in image_files(image, count)]
    return [*files, *(outputs.array(name) for name in _ARRAYS), outputs.summary]


def _write(
    outputs: Outputs, pipe: TaskPipeline, volume: Volume, found: dict[str, torch.Tensor]
) -> None:
    import numpy as np

    from ctxrecon.files import written_beside

    written = _write_images(outputs, volume, found) if "samples" in found else []
    for name in _ARRAYS if "samples" in found else ("masks",):
        path = outputs.array(name)
        with written_beside(path) as beside, beside.open("wb") as opened:
            np.save(opened, found[name].numpy())
        written.append(path)
    summarize = _areas if "samples" in found else _probabilities
    rows = [
        {"slice": number, **row}
        for number, row in zip(volume.numbers, summarize(found, pipe.config.classes), strict=True)
    ]
    with written_beside(outputs.summary) as beside:
        beside.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        say(", ".join(f"{name} {_shown(value)}" for name, value in row.items()))
    say("written: " + ", ".join(map(str, [*written, outputs.summary])))


def _write_images(outputs: Outputs, volume: Volume, found: dict[str, torch.Tensor]) -> list[Path]:
    """Write the most probable classes, and the other images next to them."""
    writer = ImageWriter(outputs, volume)
    # Slices without signal have NaN probabilities; they are left without segmentation.
    likeliest = found["probabilities"].nan_to_num().argmax(dim=1).to(found["samples"].dtype)
    writer.write(outputs.image, likeliest)
    for field, name in _IMAGES.items():
        if field in found:
            writer.write(outputs.method(name), found[field])
    return writer.written


def _areas(found: dict[str, torch.Tensor], classes: list[str]) -> list[dict[str, Any]]:
    """Return the mean and the standard deviation over samples of each class's pixel count."""
    rows: list[dict[str, Any]] = [{} for _ in found["samples"]]
    for number, name in enumerate(classes, start=1):
        pixels = (found["samples"] == number).flatten(2).sum(dim=2).double()
        for row, each in zip(rows, pixels, strict=True):
            spread = float(each.std()) if len(each) > 1 else None
            row[name] = {"pixels": float(each.mean()), "std": spread}
    return rows


def _probabilities(found: dict[str, torch.Tensor], classes: list[str]) -> list[dict[str, Any]]:
    """Return the probabilities of the findings; ``None`` in slices without signal."""
    return [
        {
            name: None if math.isnan(value) else value
            for name, value in zip(classes, each, strict=True)
        }
        for each in found["probabilities"].tolist()
    ]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        spread = "" if value["std"] is None else f" ± {value['std']:.0f}"
        return f"{value['pixels']:.0f}{spread} pixels"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
