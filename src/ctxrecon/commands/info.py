"""``ctxrecon info``: what is in a scan file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ctxrecon.commands.logs import say


def info(
    file: Annotated[Path, typer.Argument(help="Scan: .npy, .npz, .h5 or .cfl.")],
    crop_readout: Annotated[
        bool | None,
        typer.Option(
            help="Crop the readout oversampling away. (default: for ISMRMRD, not for fastMRI)"
        ),
    ] = None,
) -> None:
    """Print what is in a scan file, and the prompt that it implies."""
    from ctxrecon.io import read_scan, scan_info
    from ctxrecon.plausibility import check_coil_axis, check_conventions

    found = scan_info(file, crop_readout=crop_readout)
    for name, value in _lines(found):
        say(f"{name:<20} {value}")
    middle = read_scan(file, slices=found["slices"] // 2, crop_readout=crop_readout)
    if middle.mask is not None:
        check_coil_axis(middle.kspace)
        check_conventions(middle.kspace, middle.mask, middle.coil_maps)


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    ny, nx = found["shape"]
    lines = [
        ("file", found["path"]),
        ("format", f"{found['format']}, {found['dtype']}, {_bytes(found['size_on_disk'])}"),
        ("slices", str(found["slices"])),
        ("coils", str(found["coils"])),
        ("matrix (ny, nx)", f"{ny} × {nx}"),
        *_sampling(found),
        ("coil maps", "in the file" if found["coil_maps"] else "not in the file"),
        ("target image", "in the file" if found["target"] else "not in the file"),
    ]
    noise = found["noise_std"]
    if noise is not None:
        lines.append(("noise std", f"{noise:.3g}"))
    if found.get("voxel_size") is not None:
        lines.append(
            ("voxel size", " × ".join(f"{edge:.3g}" for edge in found["voxel_size"]) + " mm")
        )
    for name in ("repetitions", "contrasts"):
        if name in found:
            lines.append((name, str(found[name])))
    lines.append(("prompt", found["prompt"] or "none: the file says nothing about the scan"))
    return lines


def _sampling(found: dict[str, Any]) -> list[tuple[str, str]]:
    if "trajectory" in found:
        kind = f"{found['trajectory']}, {found['shots']} shots of {found['samples']} samples"
        return [
            ("trajectory", kind),
            (
                "undersampling",
                f"{found['acceleration']:.2f} times the Nyquist distance at the edge",
            ),
        ]
    region = found["calibration_region"]
    sampled = f"{100 * found['sampled_fraction']:.1f} %, acceleration {found['acceleration']:.2f}"
    return [
        ("sampled", sampled),
        ("fully sampled centre", "none" if region is None else f"{region[0]} × {region[1]}"),
    ]


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "B" else f"{number} B"
        size /= 1024
    return f"{size:.3g} GiB"
