"""Masks as ordered lists of lines for acquisition on a scanner."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.files import written_beside


def line_order(mask: Tensor | Sequence[Tensor]) -> list[list[int]]:
    """Return the lines of a 1-D mask in the order of acquisition, stage by stage.

    Lines are numbered from the zero frequency: line k is column ``nx // 2 + k``, encoded with k
    steps of the phase-encoding gradient. Within a stage, lines are ordered from the center
    outwards, −k before k: the contrast is determined at the start of the scan, and an aborted scan
    leaves a low-resolution image.

    Args:
        mask: A single mask ``(1, 1, ny, nx)``, bool, with whole lines along ``ny``; or a sequence
            of disjoint masks, one per stage, such as the stages of a
            :class:`~ctxrecon.masks.learned.StagedMask`.

    Returns:
        One list of line numbers per stage; a single mask has one stage.

    Raises:
        InputError: If a mask has another shape or type, contains partial lines, or repeats lines
            of an earlier stage.

    Example:
        >>> from ctxrecon.masks import equispaced1d
        >>> from ctxrecon.masks.learned import line_order
        >>> line_order(equispaced1d((16, 16), acceleration=4, center_fraction=0.125, offset=0))
        [[0, -1, 1, -8]]
    """
    stages = [mask] if isinstance(mask, Tensor) else list(mask)
    order: list[list[int]] = []
    known: set[int] = set()
    for stage in stages:
        nx = stage.shape[-1]
        lines = sorted((k - nx // 2 for k in _columns(stage)), key=lambda k: (abs(k), k))
        if again := known.intersection(lines):
            raise InputError(
                f"lines {sorted(again)} are in two stages: pass only the lines that each stage adds"
            )
        known.update(lines)
        order.append(lines)
    return order


def write_line_order(path: str | os.PathLike[str], mask: Tensor | Sequence[Tensor]) -> None:
    """Write the result of :func:`line_order` as JSON.

    The format is ``{"matrix": [ny, nx], "contrasts": [[[0, -1, 1, …], …], …]}``: for each contrast
    its stages, and for each stage its lines. The file is written to a temporary name and then
    renamed, so that it is never incomplete.

    Args:
        path: Output file in an existing folder.
        mask: A mask or a sequence of stages as in :func:`line_order`, or a mask of several
            contrasts ``(1, contrasts, 1, ny, nx)``, bool.

    Raises:
        InputError: If a mask is invalid, as in :func:`line_order`, or the file cannot be written.
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
