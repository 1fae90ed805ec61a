"""``ctxrecon adapt``: fine-tune a prior on a few scans of one scanner."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ctxrecon.commands.inputs import check_prompt, prompts_of, single_maps
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
    scans: Annotated[list[Path], typer.Argument(help=f"Scan files of one kind: {SCAN_SUFFIXES}.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapted prior.")],
    prompt: Annotated[
        str | None,
        typer.Option(
            help="Text prompt of all scans, such as 'Knee, PDFS' (default: each file's metadata)."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "--prior",
            help="Folder or hub name of the prior to adapt (default: the shipped prior).",
        ),
    ] = None,
    subfolder: Annotated[
        str | None,
        typer.Option(help="Subfolder of the U-Net in --model, such as fastmri or skm-tea."),
    ] = None,
    minutes: Annotated[float, typer.Option(help="Approximate total run time in minutes.")] = 10.0,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Number of training steps instead of --minutes, the same on every machine."
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    crop_readout: CropReadout = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing prior.")
    ] = False,
) -> None:
    """Adapt a prior to your scanner with a few of its scans.

    Scans may be fully sampled or undersampled. Some of them are held out: if the adapted prior
    does not predict their held-out samples better than the original prior, the original prior is
    written unchanged.
    """
    if prompt is not None:
        check_prompt(prompt)
    if not 0 < minutes <= _MOST_MINUTES:
        raise InputError(f"expected --minutes above 0 and up to {_MOST_MINUTES}, got {minutes:g}")
    refuse_ignored(
        context,
        {
            "subfolder": (model, "selects a U-Net of --model: give both"),
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
    """Read a scan with one set of coil maps, and the prompt of each of its slices."""
    from ctxrecon.commands.volume import Volume
    from ctxrecon.measurement import Measurement

    volume = Volume(file, crop_readout=crop_readout)
    if volume.masks is None:
        raise InputError(
            f"{file} is non-Cartesian: leave it out, priors are adapted to Cartesian scans"
        )
    volume.check_memory("adapting")
    scan = volume.read(range(len(volume)))
    maps = single_maps(scan, estimate=True)
    measurement = Measurement.from_arrays(
        scan.kspace, scan.mask, maps, noise_std=scan.noise_std or None
    )
    return measurement, prompts_of(volume, prompt)[0]


def _check_out(out: Path, inputs: list[Path | str], *, overwrite: bool) -> None:
    """Check that the folder can be written, and holds nothing but a prior and no input."""
    from ctxrecon.training.folders import check_folder

    check_folder(out)
    held = [file for file in input_files(*inputs) if out.absolute() in file.absolute().parents]
    if held:
        raise InputError(f"cannot write {out}: it holds the input {held[0]}, give another --out")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / _PRIOR_FILE).is_file():
        raise InputError(f"{out} holds files other than a prior: give another --out")
    if not overwrite:
        raise InputError(f"{out} exists: give --overwrite to replace it, or another --out")
