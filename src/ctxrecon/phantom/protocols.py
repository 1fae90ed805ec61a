"""Imaging protocols drawn from the joint distribution of real scans.

``protocols.json`` holds counts only: the distinct combinations of contrast, sequence, TR, TE, TI,
flip angle and field strength of 6,405 brain and 1,394 knee fastMRI volumes, from the header tables
of meddlr (Apache-2.0, https://github.com/ad12/meddlr), and the findings of fastMRI+ (MIT, Zhao et
al., arXiv:2109.03812, https://github.com/microsoft/fastmri-plus). Made by
``training/summarize_protocols.py``. TI is that of the header, which fastMRI also writes where the
sequence inverts nothing (100 ms), as the published prompts do.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from importlib.resources import files
from typing import Any

import torch

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata


@lru_cache(maxsize=1)
def _summary() -> dict[str, Any]:
    text = files("ctxrecon.phantom").joinpath("protocols.json").read_text(encoding="utf-8")
    return json.loads(text)


@lru_cache(maxsize=64)
def _matching(
    anatomy: str | None, contrast: str | None
) -> tuple[tuple[ScanMetadata, ...], torch.Tensor]:
    """The protocols that fit, and their cumulative counts ``(protocols,)`` int64."""
    columns = _summary()["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in _summary()["protocols"]]
    counts = [row.pop("count") for row in rows]
    items = [
        (ScanMetadata(**row), count)
        for row, count in zip(rows, counts, strict=True)
        if anatomy in (None, row["anatomy"]) and contrast in (None, row["contrast"])
    ]
    if not items:
        known = sorted({f"{row['anatomy']} {row['contrast']}" for row in rows})
        raise InputError(
            f"no protocol for anatomy {anatomy!r} and contrast {contrast!r}; there are "
            + ", ".join(known)
        )
    return tuple(item for item, _ in items), torch.tensor([n for _, n in items]).cumsum(0)


def draw_protocol(
    generator: torch.Generator, anatomy: str | None = None, contrast: str | None = None
) -> ScanMetadata:
    """Draw one protocol as often as it occurs among the real scans.

    Args:
        generator: of any device.
        anatomy: ``"brain"`` or ``"knee"``; by default either, as often as each occurs.
        contrast: for example ``"PDFS"``; by default any of the anatomy.

    Returns:
        Metadata with anatomy, contrast, sequence, TR, TE and TI in ms, flip angle in degrees and
        field strength in tesla; without slice and pathologies, which the anatomy decides.

    Raises:
        InputError: when no real scan has this anatomy and contrast.
    """
    wanted = ScanMetadata(anatomy=anatomy, contrast=contrast)
    items, cumulative = _matching(wanted.anatomy, wanted.contrast)
    total = int(cumulative[-1])
    ticket = torch.randint(total, (), generator=generator, device=generator.device).cpu()
    return items[int(torch.searchsorted(cumulative, ticket, right=True))]


def vary_times(protocol: ScanMetadata, generator: torch.Generator) -> ScanMetadata:
    """The protocol with TR, TE and TI scaled by up to a factor of 1.5 either way, each alone.

    Real protocols are a few hundred combinations, which a network could learn by heart; with
    these it has to read the numbers. TE stays below half of TR, three digits are kept.
    """
    factors = 1.5 ** (2 * torch.rand(3, generator=generator) - 1)
    times: dict[str, Any] = {}
    for name, factor in zip(("tr", "te", "ti"), factors.tolist(), strict=True):
        value = getattr(protocol, name)
        times[name] = None if value is None else float(f"{value * factor:.3g}")
    if times["te"] and times["tr"]:
        times["te"] = min(times["te"], times["tr"] / 2)
    return replace(protocol, **times)


def protocol_counts() -> dict[ScanMetadata, int]:
    """Every distinct protocol with the number of real volumes that used it."""
    items, cumulative = _matching(None, None)
    counts = torch.diff(cumulative, prepend=cumulative.new_zeros(1))
    return dict(zip(items, counts.tolist(), strict=True))


def slice_range(contrast: str) -> tuple[int, int]:
    """First and last slice number that fastMRI+ annotates in scans of ``contrast``.

    Raises:
        InputError: when no annotated scan has this contrast.
    """
    name = ScanMetadata(contrast=contrast).contrast
    ranges = _summary()["slices"]
    if name not in ranges:
        raise InputError(f"no slice numbers for contrast {contrast!r}; there are {sorted(ranges)}")
    first, last = ranges[name]
    return first, last


def pathology_counts(anatomy: str) -> dict[str, int]:
    """Findings of fastMRI+ with the number of slices that show them, most frequent first.

    Raises:
        InputError: when the anatomy has no annotations.
    """
    name = ScanMetadata(anatomy=anatomy).anatomy
    counts = _summary()["pathologies"]
    if name not in counts:
        raise InputError(f"no findings for anatomy {anatomy!r}; there are {sorted(counts)}")
    return dict(counts[name])
