"""Result tables on the terminal and metrics in JSON."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ctxrecon.commands.logs import say
from ctxrecon.commands.results import Result
from ctxrecon.files import write_json
from ctxrecon.metrics import nmse, psnr, ssim

logger = logging.getLogger(__name__)

_NAME_WIDTH = 52
_WIDTH = 9


class Table:
    """Table that prints one row per method and collects its metrics.

    Args:
        reference: Ground truth of shape ``(batch, ny, nx)``, or ``None``. Metrics are averaged
            over slices with a non-zero reference, residuals over slices with a non-zero image.
    """

    def __init__(self, reference: Tensor | None) -> None:
        self.reference = reference
        self.rows: list[dict[str, Any]] = []
        if reference is not None:
            empty = int((reference == 0).flatten(1).all(dim=1).sum())
            if empty:
                logger.warning(
                    "the reference of %d of %d slices is zero: metrics are averaged over the rest",
                    empty,
                    len(reference),
                )
        columns = ["PSNR/dB", "SSIM", "NMSE"] if reference is not None else []
        heads = "".join(f"{head:>{_WIDTH}}" for head in [*columns, "residual", "seconds"])
        say(f"{'method':<{_NAME_WIDTH}}{heads}")

    def add(self, result: Result) -> None:
        """Compute the metrics of a result and print its row."""
        row: dict[str, Any] = {"method": result.name}
        if self.reference is not None:
            row |= {
                metric.__name__: _mean(metric, result.images, self.reference)
                for metric in (psnr, ssim, nmse)
            }
        filled = (result.images != 0).flatten(1).any(dim=1)
        residual = float(result.residual[filled].nanmean())
        row |= {"residual": None if math.isnan(residual) else residual, "seconds": result.seconds}
        self.rows.append(row)
        digits = {"psnr": ".2f", "ssim": ".4f", "nmse": ".5f", "residual": ".4f", "seconds": ".1f"}
        cells = [
            format(row[name], digits[name]) if row[name] is not None else "–"
            for name in digits
            if name in row
        ]
        say(f"{result.name:<{_NAME_WIDTH}}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells))

    def write(self, path: Path, **about: Any) -> Path:
        """Write the printed metrics and the ``about`` entries as JSON.

        Infinite values, such as the PSNR of an exact image, which JSON lacks, become null.
        """
        rows = [
            {name: None if value in (math.inf, -math.inf) else value for name, value in row.items()}
            for row in self.rows
        ]
        content = {**about, "aggregation": "mean over slices", "methods": rows}
        write_json(path, content)
        return path


def _mean(
    metric: Callable[[Tensor, Tensor], Tensor], images: Tensor, reference: Tensor
) -> float | None:
    """Return the mean over slices with a reference, one slice at a time to save memory."""
    values = [
        float(metric(image, truth))
        for image, truth in zip(images.split(1), reference.split(1), strict=True)
        if bool(truth.any())
    ]
    return sum(values) / len(values) if values else None
