"""DICOM elements for pixel values, numbers and sequences."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.io._writing import WINDOW_PERCENTILE

_LARGEST = 2**16 - 1
_MOST_EXPONENT = 300


def signal_exponent(images: np.ndarray) -> int:
    """Return the power of ten that scales the largest magnitude to four integer digits."""
    largest = float(np.abs(images).max())
    return min(3 - math.floor(math.log10(largest)), _MOST_EXPONENT) if largest > 0 else 0


class Scaling(NamedTuple):
    """Mapping from stored integers to values, ``slope · stored + intercept``.

    Attributes:
        slope: Rescale slope.
        intercept: Rescale intercept.
        window: Lower and upper bound of the displayed values.
        exponent: Power of ten by which the images were multiplied.
    """

    slope: float
    intercept: float
    window: tuple[float, float]
    exponent: int

    @classmethod
    def of(cls, images: np.ndarray, exponent: int) -> Scaling:
        """Return the scaling that uses the full integer range for these images."""
        values = images * 10.0**exponent
        low, high = min(float(values.min()), 0.0), float(values.max())
        # Rounded to the 16 characters that the file stores.
        low = float(decimal(low))
        slope = float(decimal((high - low) / _LARGEST)) or 1.0
        top = float(np.percentile(values, WINDOW_PERCENTILE))
        return cls(slope, low, (low, top if top > low else low + slope * _LARGEST), exponent)

    def stored(self, images: np.ndarray) -> np.ndarray:
        """Return the integers that represent the images."""
        values = (images * 10.0**self.exponent - self.intercept) / self.slope
        return np.rint(values).clip(0, _LARGEST).astype("<u2")

    def rescale(self) -> dict[str, Any]:
        """Return the rescale elements."""
        return {
            "RescaleIntercept": decimal(self.intercept),
            "RescaleSlope": decimal(self.slope),
            "RescaleType": "US",
        }

    def shown(self) -> dict[str, Any]:
        """Return center and width of the window; the standard requires a width of at least 1."""
        low, high = self.window
        return {
            "WindowCenter": decimal((low + high) / 2),
            "WindowWidth": decimal(max(high - low, 1.0)),
        }

    def real_world(self, title: str, unit: str) -> dict[str, Any]:
        """Return the mapping to the values before multiplication by a power of ten.

        Args:
            title: Name of the quantity.
            unit: UCUM code of the unit.
        """
        code = {"CodeValue": unit, "CodingSchemeDesignator": "UCUM", "CodeMeaning": unit}
        return {
            "RealWorldValueFirstValueMapped": 0,
            "RealWorldValueLastValueMapped": _LARGEST,
            "RealWorldValueIntercept": self.intercept * 10.0**-self.exponent,
            "RealWorldValueSlope": self.slope * 10.0**-self.exponent,
            "LUTExplanation": title,
            "LUTLabel": title[:16],
            "MeasurementUnitsCodeSequence": items(code),
        }


def put_pixels(data: Any, images: np.ndarray, scaling: Scaling) -> None:
    """Store images of shape ``(frames, rows, columns)`` in a data set."""
    _, rows, columns = images.shape
    fill(
        data,
        {
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": rows,
            "Columns": columns,
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 0,
        },
    )
    data.add_new(0x7FE00010, "OW", scaling.stored(images).tobytes())


def items(*contents: dict[str, Any]) -> list[Any]:
    """Return the items of a sequence."""
    from pydicom.dataset import Dataset

    made = []
    for values in contents:
        item = Dataset()
        fill(item, values)
        made.append(item)
    return made


def fill(data: Any, values: dict[str, Any]) -> None:
    """Set elements of a data set by keyword."""
    for name, value in values.items():
        setattr(data, name, value)


def decimal(value: float) -> str:
    """Format a number as a decimal string of at most 16 characters."""
    if not math.isfinite(value):
        raise InputError(f"expected a finite number for a DICOM header, got {value}")
    return next(
        text for digits in range(16, 0, -1) if len(text := f"{value + 0.0:.{digits}g}") <= 16
    )
