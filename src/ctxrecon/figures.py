"""Figures of reconstructions and their errors on a common scale."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.files import written_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ArrayLike: TypeAlias = "Tensor | np.ndarray"

ERROR_GAIN = 5
"""Factor by which errors and standard deviations are brighter than the images."""

_WINDOW_QUANTILE = 0.995
_MAX_COLUMNS = 5
# Lengths in inches.
_PANEL = 2.35
_GAP = 0.05
_TITLE = 0.42
_LINE = 0.19
_DETAIL = 0.155
_MARGIN = 0.2
_LABEL = 0.3
_DETAIL_LENGTH = 38
"""Length in characters of a line under the title of a panel."""
_BACKGROUND, _TEXT, _MUTED = "#0d0f12", "#f2f4f7", "#a4acb8"


def comparison_figure(
    path: str | os.PathLike[str],
    images: Mapping[str, ArrayLike],
    reference: ArrayLike | None = None,
    *,
    std: ArrayLike | None = None,
    std_name: str = "std of the samples",
    reference_name: str = "target",
    title: str | None = None,
) -> Path:
    """Write a PNG with the magnitudes of several reconstructions and their errors.

    All magnitudes share one gray window, from 0 to the 99.5 % quantile of the reference (of the
    last image without a reference). The error ``||x| − |reference||`` is shown below each image,
    brightened by :data:`ERROR_GAIN`, and the title states PSNR and SSIM. The standard deviation of
    the posterior samples has a separate column next to the error of the last image, on the scale
    of the errors for comparison.

    Args:
        path: Output ``.png`` file, written atomically.
        images: Names and images of shape ``(ny, nx)``, complex or real, NumPy or torch.
        reference: Ground truth of shape ``(ny, nx)`` in the same units.
        std: Standard deviation of the posterior samples, shape ``(ny, nx)``.
        std_name: Title of the standard deviation.
        reference_name: Title of the reference.
        title: Title of the figure.

    Returns:
        The path of the file.

    Raises:
        InputError: If there is no image, the shapes differ or are not ``(ny, nx)``, the suffix is
            not ``.png``, the folder does not exist, or the metrics reject the reference.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"cannot write the figure {path}: expected a name ending in .png")
    if not images:
        raise InputError("expected at least one image for the figure, got none")
    magnitudes = {name: _magnitude(name, image) for name, image in images.items()}
    truth = None if reference is None else _magnitude(reference_name, reference)
    spread = None if std is None else _magnitude("the standard deviation", std)
    shape = next(iter(magnitudes.values())).shape
    for name, value in {**magnitudes, reference_name: truth, "std": spread}.items():
        if value is not None and value.shape != shape:
            raise InputError(f"expected images of one shape {shape}, got {value.shape} for {name}")

    white = _white(next(reversed(magnitudes.values())) if truth is None else truth)
    panels = _panels(magnitudes, truth, spread, white, reference_name, std_name)
    caption = _caption(reference_name, truth is not None, None if spread is None else std_name)
    figure = _draw(panels, shape, title, caption)
    with written_beside(path) as temporary:
        figure.savefig(temporary, dpi=110, facecolor=_BACKGROUND)
    return path


# A panel: title, lines below it, and the pictures (image, color map, white level) under them.
_Picture: TypeAlias = "tuple[np.ndarray, str, float]"
_Panel: TypeAlias = "tuple[str, list[str], list[_Picture | None]]"


def _panels(
    magnitudes: Mapping[str, np.ndarray],
    truth: np.ndarray | None,
    spread: np.ndarray | None,
    white: float,
    reference_name: str,
    std_name: str,
) -> list[_Panel]:
    dim = white / ERROR_GAIN
    deviation: list[_Panel] = []
    if spread is not None:
        above = [] if truth is None else [None]  # next to the errors
        deviation = [(f"{std_name} ×{ERROR_GAIN}", [], [*above, (spread, "magma", dim)])]
    if truth is None:
        panels: list[_Panel] = [
            (*_split(name), [(image, "gray", white)]) for name, image in magnitudes.items()
        ]
        return [*panels, *deviation]

    from ctxrecon.metrics import psnr, ssim

    panels = [(reference_name, [], [(truth, "gray", white), None])]
    for name, image in magnitudes.items():
        scores = [float(metric(image[None], truth[None])) for metric in (psnr, ssim)]
        pictures: list[_Picture | None] = [
            (image, "gray", white),
            (np.abs(image - truth), "magma", dim),
        ]
        name, lines = _split(name)
        measured = f"{scores[0]:.2f} dB · SSIM {scores[1]:.3f}"
        if lines and len(lines[-1]) + len(measured) + 3 <= _DETAIL_LENGTH:
            measured = f"{lines.pop()} · {measured}"
        panels.append((name, [*lines, measured], pictures))
    return [*panels, *deviation]


def _split(name: str) -> tuple[str, list[str]]:
    """Split ``"method, detail"`` into the method and lines of detail that fit over a panel."""
    head, _, detail = name.partition(", ")
    return head, textwrap.wrap(detail, _DETAIL_LENGTH)


def _draw(panels: list[_Panel], shape: tuple[int, ...], title: str | None, caption: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    blocks = math.ceil(len(panels) / _MAX_COLUMNS)
    columns = math.ceil(len(panels) / blocks)
    rows = len(panels[0][2])
    height = _PANEL * min(max(shape[0] / shape[1], 0.4), 2.5)
    label = _LABEL if rows > 1 else _GAP
    above = _TITLE + _DETAIL * max(0, *(len(lines) - 1 for _, lines, _ in panels))
    block_height = above + rows * (height + _GAP) + _GAP
    width = label + columns * (_PANEL + _GAP) + 2 * _GAP
    room = width - label - 2 * _GAP
    heading = textwrap.wrap(title or "", int(9 * room))  # number of capitals that fit
    legend = textwrap.wrap(caption, int(15 * width))
    header = _LINE * len(heading) + _MARGIN if heading else _GAP
    footer = _LINE * len(legend) + _MARGIN
    size = (width, header + blocks * block_height + footer)
    figure = Figure(figsize=size, facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)

    def text(x: float, y: float, words: str, **style: Any) -> None:
        """Draw words at ``x`` from the left and ``y`` from the top, in inches."""
        shown = words.encode("utf-8", "replace").decode("utf-8")  # file names may be invalid text
        figure.text(x / size[0], 1 - y / size[1], shown, parse_math=False, **style)

    left = label + _GAP
    for line, words in enumerate(heading):
        y = _MARGIN + _LINE * line
        text(left, y, words, color=_TEXT, size=10.5, va="center", weight="bold")
    for line, words in enumerate(legend):
        y = size[1] - footer + _MARGIN + _LINE * line
        text(left, y, words, color=_MUTED, size=8, va="center")
    for number, (name, lines, pictures) in enumerate(panels):
        block, column = divmod(number, columns)
        left = label + _GAP + column * (_PANEL + _GAP)
        top = header + block * block_height
        middle = left + _PANEL / 2
        empty = pictures.count(None) if pictures[0] is None else 0
        y = top + (0.17 if lines else 0.26)
        if empty:  # place the title directly above the first picture
            y = top + above + empty * (height + _GAP) - 0.16
        text(middle, y, name, color=_TEXT, size=9.5, ha="center", va="center", weight="bold")
        for line, words in enumerate(lines):
            y = top + 0.325 + _DETAIL * line
            text(middle, y, words, color=_MUTED, size=8.5, ha="center", va="center")
        for row, picture in enumerate(pictures):
            if picture is None:
                continue
            image, colors, white = picture
            y = top + above + row * (height + _GAP)
            place = (left / size[0], 1 - (y + height) / size[1])
            axes = figure.add_axes((*place, _PANEL / size[0], height / size[1]))
            axes.imshow(image, cmap=colors, vmin=0, vmax=white, interpolation="nearest")
            axes.set_axis_off()
        if column == 0 and rows > 1:
            for row, words in enumerate(("magnitude", f"error ×{ERROR_GAIN}")):
                y = top + above + row * (height + _GAP) + height / 2
                style = {"color": _MUTED, "size": 8.5, "rotation": 90}
                text(label / 2 + 0.03, y, words, ha="center", va="center", **style)
    return figure


def _caption(reference_name: str, has_truth: bool, std_name: str | None) -> str:
    source = f"the {reference_name}" if has_truth else "the last image"
    caption = f"one gray window, 0 to the 99.5 % quantile of {source}"
    shown = ["errors"] * has_truth + ([] if std_name is None else [std_name])
    if shown:
        caption += f"; {' and '.join(shown)} {ERROR_GAIN} times brighter, on a common scale"
    return caption


def _magnitude(name: str, image: ArrayLike) -> np.ndarray:
    array = image.detach().cpu().numpy() if isinstance(image, Tensor) else np.asarray(image)
    if array.ndim != 2 or array.size == 0 or array.dtype.kind not in "fciub":
        raise InputError(
            f"expected an image (ny, nx) of numbers for {name}, got shape {array.shape} of "
            f"{array.dtype}"
        )
    return np.abs(array).astype(np.float32)


def _white(magnitude: np.ndarray) -> float:
    return float(np.quantile(magnitude, _WINDOW_QUANTILE)) or float(magnitude.max()) or 1.0
