"""Masks as lists of lines that a scanner could take one after the other."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.files import written_beside


def line_order(mask: Tensor | Sequence[Tensor]) -> list[list[int]]:
    """Lines of a 1-D mask in the order of their acquisition, stage by stage.

    Lines are numbered from the zero frequency: line k is column ``nx // 2 + k``, which a scanner
    encodes with k steps of its phase-encoding gradient. Within a stage they are taken from the
    centre outwards, −k before k: the contrast is that of the start of the scan, and a scan that is
    broken off leaves a low-resolution image.

    Args:
        mask: one mask, ``(1, 1, ny, nx)`` bool with whole lines along ``ny``; or masks without a
            common line, one for each stage, as of a
            :class:`~ctxrecon.masks.learned.StagedMask`.

    Returns:
        A list for each stage, one of them for a single mask.

    Raises:
        InputError: a mask of another shape or type, with lines in part, or with lines that an
            earlier stage has taken.
    """
    stages = [mask] if isinstance(mask, Tensor) else list(mask)
    order: list[list[int]] = []
    known: set[int] = set()
    for stage in stages:
        nx = stage.shape[-1]
        lines = sorted((k - nx // 2 for k in _columns(stage)), key=lambda k: (abs(k), k))
        if again := known.intersection(lines):
            raise InputError(f"lines {sorted(again)} are in two stages: give what each stage adds")
        known.update(lines)
        order.append(lines)
    return order


def write_line_order(path: str | os.PathLike[str], mask: Tensor | Sequence[Tensor]) -> None:
    """Write :func:`line_order` as JSON.

    ``{"matrix": [ny, nx], "contrasts": [[[0, -1, 1, …], …], …]}``: for each contrast its stages,
    for each stage its lines. The file is written beside its place and then renamed, so that it is
    never half-written.

    Args:
        path: the file; its folder exists.
        mask: as in :func:`line_order`, or a mask of several contrasts
            ``(1, contrasts, 1, ny, nx)`` bool.

    Raises:
        InputError: as :func:`line_order`; a file that cannot be written.
    """
    if isinstance(mask, Tensor) and mask.ndim == 5:
        contrasts = [line_order(contrast) for contrast in mask.unbind(1)]
        ny, nx = mask.shape[-2:]
    else:
        contrasts = [line_order(mask)]
        ny, nx = (mask if isinstance(mask, Tensor) else mask[0]).shape[-2:]
    text = json.dumps({"matrix": [ny, nx], "contrasts": contrasts})
    with written_beside(path) as beside:
        beside.write_text(text + "\n", encoding="utf-8")


def _columns(mask: Tensor) -> list[int]:
    if mask.dtype != torch.bool or mask.ndim != 4 or mask.shape[:2] != (1, 1):
        raise InputError(
            "expected one bool mask (1, 1, ny, nx) for a line order, got "
            f"{mask.dtype} {tuple(mask.shape)}"
        )
    lines = mask[0, 0, 0]
    if not bool((mask[0, 0] == lines).all()):
        raise InputError("expected whole lines along ny for a line order, got single samples")
    return [int(k) for k in lines.nonzero()[:, 0]]
