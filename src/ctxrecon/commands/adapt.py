"""``ctxrecon adapt``: a prior that knows a lab's own scanner, from a few of its scans."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctxrecon.commands.inputs import check_prompt, prompts_of
from ctxrecon.commands.logs import say
from ctxrecon.commands.methods import SHIPPED_PRIOR, model_name, open_prior
from ctxrecon.commands.options import SCAN_SUFFIXES, CropReadout, Device, Seed, refuse_ignored
from ctxrecon.commands.paths import input_files
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from ctxrecon.measurement import Measurement

_PRIOR_FILE = "model_index.json"
_MOST_MINUTES = 7 * 24 * 60


def adapt(
    context: typer.Context,
    scans: Annotated[list[Path], typer.Argument(help=f"Scans: {SCAN_SUFFIXES}, of one kind.")],
    out: Annotated[Path, typer.Option(help="Folder of the adapted prior.")],
    prompt: Annotated[
        str | None,
        typer.Option(help="Such as 'Knee, PDFS'. (default: the metadata of each file)"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--prior",
            help="Folder or hub name of the prior to adapt. (default: the one that is shipped)",
        ),
    ] = None,
    subfolder: Annotated[
        str | None, typer.Option(help="Of the U-Net in --model, such as fastmri or skm-tea.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="That all of it takes, about.")] = 10.0,
    steps: Annotated[
        int | None,
        typer.Option(help="Training steps, in place of --minutes: the same on every machine."),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    crop_readout: CropReadout = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a prior that is there.")
    ] = False,
) -> None:
    """Adapt a prior to your scanner with a few of its scans.

    Scans may be fully sampled or undersampled. A part of them is held out; where the adapted prior
    predicts its hidden samples no better than the prior did before, that one is written as it was.
    """
    if prompt is not None:
        check_prompt(prompt)
    if not 0 < minutes <= _MOST_MINUTES:
        raise InputError(f"expected --minutes above 0, got {minutes:g}")
    refuse_ignored(
        context,
        {
            "subfolder": (model, "chooses a U-Net of --model: give both"),
            "minutes": (steps is None, "is replaced by --steps: give one of them"),
        },
    )
    _check_out(out, [*scans, *([model] if model else [])], overwrite=overwrite)

    from ctxrecon.training.adapt import adapt_prior
    from ctxrecon.training.adapt.write import save_adapted, summary

    measurements, prompts = [], []
    for file in scans:
        measurement, words = _read(file, prompt, crop_readout)
        measurements.append(measurement)
        prompts.append(words)
    pipe = open_prior(model, device, subfolder)
    pipe.set_progress_bar_config(disable=True)
    adaptation = adapt_prior(
        pipe, measurements, prompts, minutes=minutes, steps=steps, seed=seed, progress=True
    )
    base = SHIPPED_PRIOR if model is None else model_name(model, subfolder)
    save_adapted(adaptation, out, base=f"the {base}" if model is None else base)
    say(summary(adaptation, "the prior"))
    say(f"prior: {out}")


def _read(
    file: Path, prompt: str | None, crop_readout: bool | None
) -> tuple[Measurement, list[str] | None]:
    """A scan with one set of coil maps, and the prompt of each of its slices."""
    from ctxrecon.coils import estimate_coil_maps
    from ctxrecon.coils.slices import maps_of_calibration
    from ctxrecon.commands.volume import Volume
    from ctxrecon.measurement import Measurement

    volume = Volume(file, crop_readout=crop_readout)
    if volume.masks is None:
        raise InputError(
            f"{file} lies along a trajectory: adapt to Cartesian scans, and leave it out"
        )
    volume.check_memory("adapting")
    scan = volume.read(range(len(volume)))
    maps = scan.coil_maps
    if maps is None and scan.calibration is not None:
        maps = maps_of_calibration(scan.calibration, scan.image_shape, num_maps=1)
    elif maps is None and scan.kspace.shape[1] > 1:
        maps = estimate_coil_maps(scan.kspace, scan.cartesian_mask, num_maps=1)
    measurement = Measurement.from_arrays(
        scan.kspace, scan.mask, maps, noise_std=scan.noise_std or None
    )
    return measurement, prompts_of(volume, prompt)[0]


def _check_out(out: Path, inputs: list[Path | str], *, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, that is no prior, or that holds an input."""
    from ctxrecon.training.folders import check_folder

    check_folder(out)
    held = [file for file in input_files(*inputs) if out.absolute() in file.absolute().parents]
    if held:
        raise InputError(f"cannot write {out}: it holds the input {held[0]}, name another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / _PRIOR_FILE).is_file():
        raise InputError(f"{out} holds other files than a prior: name another --out")
    if not overwrite:
        raise InputError(f"{out} exists: give --overwrite to replace it, or another --out")
