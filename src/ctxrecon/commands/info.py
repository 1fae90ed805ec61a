"""``ctxrecon info``: summarize a scan file."""

from __future__ import annotations

from typing import Any

import typer

from ctxrecon.commands.logs import say
from ctxrecon.commands.options import (
    Average,
    Calibration,
    CardiacPhase,
    Contrast,
    CropReadout,
    Group,
    Repetition,
    ScanFile,
    Set,
    reading,
)


def info(
    context: typer.Context,
    file: ScanFile,
    crop_readout: CropReadout = None,
    repetition: Repetition = 0,
    contrast: Contrast = 0,
    cardiac_phase: CardiacPhase = 0,
    set_: Set = 0,
    average: Average = None,
    group: Group = None,
    calibration: Calibration = None,
) -> None:
    """Summarize a scan file: its content, the steps done when it is read, and its prompt."""
    from ctxrecon.io import read_scan, scan_info
    from ctxrecon.plausibility import check_coil_axis, check_conventions

    options = reading(context)
    found = scan_info(file, **options)
    for name, value in _lines(found):
        say(f"{name:<20} {value}")
    middle = read_scan(file, slices=found["slices"] // 2, **options)
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
    if found["affine"]:
        lines.append(("position", "known"))
    for name in ("repetitions", "contrasts", "phases", "sets", "averages"):
        if found.get(name, 1) > 1 or name in {"repetitions", "contrasts"} & set(found):
            lines.append((name, str(found[name])))
    if len(found.get("groups", ())) > 1:
        lines.append(("measurements", ", ".join(found["groups"])))
    lines += [("done" if number == 0 else "", note) for number, note in enumerate(found["notes"])]
    lines.append(("prompt", found["prompt"] or "none: the file has no metadata"))
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
    region, separate = found["calibration_region"], found["calibration_scan"]
    sampled = f"{100 * found['sampled_fraction']:.1f} %, acceleration {found['acceleration']:.2f}"
    return [
        ("sampled", sampled),
        ("fully sampled center", "none" if region is None else f"{region[0]} × {region[1]}"),
        *([] if separate is None else [("calibration scan", f"{separate[0]} × {separate[1]}")]),
    ]


def _bytes(number: int) -> str:
    size = float(number)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "B" else f"{number} B"
        size /= 1024
    return f"{size:.3g} GiB"
