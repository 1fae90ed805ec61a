"""What ``ctxrecon reconstruct`` is given beside the scan: prompts, masks, noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrecon.commands.logs import say
from ctxrecon.commands.methods import JOINT, NETWORK, PriorRun
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ctxrecon.commands.volume import Volume


def parse_noise(text: str | None) -> float | str | None:
    """``None``, ``"auto"`` or a number."""
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise InputError(f"expected --noise-std as a number or auto, got {text!r}") from None


def check_prompt(prompt: str) -> None:
    """Refuse a prompt without words, or one that is no text."""
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
    """One prompt a slice, and where it comes from."""
    if prompt is not None:
        return [prompt] * len(volume), "given"
    implied = [item.to_prompt() for item in volume.metadata]
    return (implied, "from the file") if any(implied) else (None, "none")


def say_prompt(run: PriorRun, origin: str) -> None:
    """Print the prompt that is used, or why none is."""
    from ctxrecon.metadata import canonical_prompt

    if run.prompts is None:
        say("prompt: none, the file says nothing about the scan: --prompt would describe it")
    elif not run.uses_prompt:
        say("prompt: not used at guidance scale 0")
    else:
        distinct = list(dict.fromkeys(canonical_prompt(text) for text in run.prompts))
        more = f" (and {len(distinct) - 1} more)" if len(distinct) > 1 else ""
        say(f"prompt ({origin}): {distinct[0]}{more}")


def say_scan(volume: Volume, acceleration: float) -> None:
    """Print what is reconstructed."""
    coils, ny, nx = volume.shape
    count = len(volume)
    say(
        f"{volume.file}: {count} slice{'s' * (count > 1)}, {coils} coil{'s' * (coils > 1)}, "
        f"{ny}×{nx}, acceleration {acceleration:.2f}"
        + (" relative to Nyquist" if volume.masks is None else "")
    )


def cartesian_masks(volume: Volume, option: str) -> Tensor:
    """The masks of the scan itself, for an option that changes them.

    Raises:
        InputError: a scan along a trajectory, which has none.
    """
    if volume.masks is None:
        raise InputError(f"{option} is of Cartesian scans, not of {volume.file}: leave it out")
    return volume.masks


def check_trajectory(
    volume: Volume, method: str, pipes: dict[str, Any], start: str | None
) -> dict[str, Any]:
    """The pipelines that reconstruct a scan, without those that it cannot be compared with.

    Raises:
        InputError: the method itself, or what it starts from, cannot.
    """
    if volume.masks is not None:
        return pipes
    there = [name for name in (method, start) if name in (NETWORK, JOINT)]
    if there:
        raise InputError(
            f"networks take Cartesian k-space, and {volume.file} lies along a trajectory: take "
            f"another method than {there[0]}"
        )
    if NETWORK in pipes:
        say("network: left out, it takes Cartesian k-space")
    return {name: pipe for name, pipe in pipes.items() if name not in (NETWORK, JOINT)}


def read_mask(path: Path, volume: Volume) -> Tensor:
    """The masks of a file, ``(slices or 1, 1, ny, nx)``."""
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
    """Masks for retrospective undersampling, inside what was measured."""
    import torch

    from ctxrecon.masks import make_mask
    from ctxrecon.scan import FULLY_SAMPLED

    masks = cartesian_masks(volume, "--undersample")
    sampled = float(masks.float().mean())
    if sampled < FULLY_SAMPLED:
        raise InputError(
            f"--undersample needs fully sampled k-space, and {100 * sampled:.0f} % of this file's "
            "is sampled: leave it out to reconstruct what was measured"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = make_mask(name, volume.shape[1:], acceleration, center_fraction, generator=generator)
    return drawn & masks


def read_other_contrast(path: Path, volume: Volume) -> Tensor:
    """A reference of another contrast on the voxels of the scan, ``(slices, ny, nx)``.

    Raises:
        InputError: a file that cannot be read, a scan or a file that does not say where it lies, or
            slices of the scan where the reference shows nothing.
    """
    from ctxrecon.io.volumes import read_reference

    if volume.affine is None:
        raise InputError(
            f"{volume.file} does not say where its slices lie, so {path} cannot be brought onto "
            "them: call the network from Python, with a reference of the scan's matrix"
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
            f"{path} shows nothing at slice {', '.join(empty)} of {volume.file}: choose others by "
            "--slices"
        )
    return found
