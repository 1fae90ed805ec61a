"""Inputs of commands in addition to the k-space: prompts, masks, coil maps and noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrecon.commands.logs import say
from ctxrecon.commands.methods import JOINT, NETWORK, PriorRun
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ctxrecon.commands.volume import Volume
    from ctxrecon.scan import Scan


def parse_noise(text: str | None) -> float | str | None:
    """Parse ``--noise-std``: ``None``, ``"auto"`` or a number."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f"expected --noise-std as a number or auto, got {text!r}") from None


def check_prompt(prompt: str) -> None:
    """Validate that a prompt is not empty and is encodable text."""
    if not prompt.strip():
        raise InputError(
            "the prompt is empty: describe the scan, or give --guidance-scale 0 to use none"
        )
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"expected the prompt as UTF-8 text, got {prompt!r}: set the terminal to UTF-8"
        ) from error


def prompts_of(volume: Volume, prompt: str | None) -> tuple[list[str] | None, str]:
    """Return one prompt per slice, or ``None``, and the origin of the prompts for messages."""
    if prompt is not None:
        return [prompt] * len(volume), "given"
    implied = [item.to_prompt() for item in volume.metadata]
    return (implied, "from the file") if any(implied) else (None, "none")


def say_prompt(run: PriorRun, origin: str) -> None:
    """Print the prompt that is used, or the reason why there is none."""
    from ctxrecon.metadata import canonical_prompt

    if run.prompts is None:
        say("prompt: none, because the file has no metadata: describe the scan with --prompt")
    elif not run.uses_prompt:
        say("prompt: not used at guidance scale 0")
    else:
        distinct = list(dict.fromkeys(canonical_prompt(text) for text in run.prompts))
        more = f" (and {len(distinct) - 1} more)" if len(distinct) > 1 else ""
        say(f"prompt ({origin}): {distinct[0]}{more}")


def say_scan(volume: Volume, acceleration: float) -> None:
    """Print the size and the acceleration factor of the scan."""
    coils, ny, nx = volume.shape
    count = len(volume)
    say(
        f"{volume.file}: {count} slice{'s' * (count > 1)}, {coils} coil{'s' * (coils > 1)}, "
        f"{ny}×{nx}, acceleration {acceleration:.2f}"
        + (" relative to Nyquist" if volume.masks is None else "")
    )


def cartesian_masks(volume: Volume, option: str) -> Tensor:
    """Return the scan's own masks, for an option that modifies them.

    Args:
        volume: Scan.
        option: Name of the option, for the error message.

    Raises:
        InputError: If the scan is non-Cartesian, and so has no mask.
    """
    if volume.masks is None:
        raise InputError(
            f"{option} applies to Cartesian scans, and {volume.file} is not one: leave it out"
        )
    return volume.masks


def check_trajectory(
    volume: Volume, method: str, pipes: dict[str, Any], start: str | None
) -> dict[str, Any]:
    """Return the pipelines without those that cannot reconstruct a non-Cartesian scan.

    Raises:
        InputError: If the method, or the method that provides its starting point, is a network
            and the scan is non-Cartesian.
    """
    if volume.masks is not None:
        return pipes
    there = [name for name in (method, start) if name in (NETWORK, JOINT)]
    if there:
        raise InputError(
            f"networks need Cartesian k-space, and {volume.file} is non-Cartesian: use "
            f"another method than {there[0]}"
        )
    if NETWORK in pipes:
        say("network: left out, because it needs Cartesian k-space")
    return {name: pipe for name, pipe in pipes.items() if name not in (NETWORK, JOINT)}


def single_maps(scan: Scan, *, estimate: bool = False) -> Tensor | None:
    """Return a Cartesian scan's coil maps for methods that take a single set.

    Args:
        scan: Scan. Its calibration scan is used if it has no coil maps.
        estimate: Whether maps are estimated from the k-space if there is neither. Otherwise, and
            for a single coil, the result is ``None``.
    """
    from ctxrecon.coils.slices import estimate_slice_maps
    from ctxrecon.emptiness import find_empty

    known = scan.coil_maps is not None or scan.kspace.shape[1] == 1
    if known or (scan.calibration is None and not estimate):
        return scan.coil_maps
    mask = scan.cartesian_mask
    filled = ~find_empty(scan.kspace, mask)
    return estimate_slice_maps(scan.kspace, mask, filled, scan.calibration, num_maps=1)


def read_mask(path: Path, volume: Volume) -> Tensor:
    """Read sampling masks from a file, shape ``(slices or 1, 1, ny, nx)``, bool."""
    from ctxrecon.arrays import check_mask
    from ctxrecon.files import check_input
    from ctxrecon.io.numpy_format import read_array

    cartesian_masks(volume, "--mask")
    if path.suffix.lower() != ".npy":
        raise InputError(f"{path}: expected the mask as .npy, got {path.suffix or 'no extension'}")
    return check_mask(read_array(check_input(path)), (len(volume), *volume.shape[1:]))


def draw_masks(
    volume: Volume, name: str, acceleration: float, center_fraction: float | None, seed: int
) -> Tensor:
    """Draw masks for retrospective undersampling, restricted to the measured samples."""
    import torch

    from ctxrecon.masks import make_mask
    from ctxrecon.scan import FULLY_SAMPLED

    masks = cartesian_masks(volume, "--undersample")
    sampled = float(masks.float().mean())
    if sampled < FULLY_SAMPLED:
        raise InputError(
            f"--undersample needs fully sampled k-space, but only {100 * sampled:.0f} % of this "
            "file is sampled: leave --undersample out to reconstruct the file as it is"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = make_mask(name, volume.shape[1:], acceleration, center_fraction, generator=generator)
    return drawn & masks


def read_other_contrast(path: Path, volume: Volume) -> Tensor:
    """Resample a reference image of another contrast to the scan, shape ``(slices, ny, nx)``.

    Raises:
        InputError: If the file cannot be read, if the scan or the file does not state its
            position, or if the reference is empty at some slices of the scan.
    """
    from ctxrecon.io.volumes import read_reference

    if volume.affine is None:
        raise InputError(
            f"{volume.file} does not state the position of its slices, so {path} cannot be "
            "resampled to them: call the network from Python with a reference of the scan's matrix"
        )
    _, ny, nx = volume.shape
    found = read_reference(path, volume.affine, (len(volume), ny, nx))
    empty = [
        str(number)
        for number, image in zip(volume.numbers, found, strict=True)
        if not bool(image.any())
    ]
    if empty:
        raise InputError(
            f"{path} is empty at slice {', '.join(empty)} of {volume.file}: choose others with "
            "--slices"
        )
    return found
