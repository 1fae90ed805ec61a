"""Pixel values, numbers and sequences in the elements of DICOM."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ctxrecon.errors import InputError
from ctxrecon.io._writing import WINDOW_PERCENTILE

_LARGEST = 2**16 - 1
_MOST_EXPONENT = 300


def signal_exponent(images: np.ndarray) -> int:
    """The power of ten that brings the largest magnitude to four digits before the point."""
    largest = float(np.abs(images).max())
    return min(3 - math.floor(math.log10(largest)), _MOST_EXPONENT) if largest > 0 else 0


class Scaling(NamedTuple):
    """From stored integers to values: ``slope · stored + intercept``.

    Attributes:
        slope: of the values.
        intercept: of the values.
        window: lower and upper bound of the values that are shown.
        exponent: the values are those of the images times ten to this power.
    """

    slope: float
    intercept: float
    window: tuple[float, float]
    exponent: int

    @classmethod
    def of(cls, images: np.ndarray, exponent: int) -> Scaling:
        """That which uses all integers for these images."""
        values = images * 10.0**exponent
        low, high = min(float(values.min()), 0.0), float(values.max())
        # As they are read from the file, where numbers have 16 characters.
        low = float(decimal(low))
        slope = float(decimal((high - low) / _LARGEST)) or 1.0
        top = float(np.percentile(values, WINDOW_PERCENTILE))
        return cls(slope, low, (low, top if top > low else low + slope * _LARGEST), exponent)

    def stored(self, images: np.ndarray) -> np.ndarray:
        """The integers."""
        values = (images * 10.0**self.exponent - self.intercept) / self.slope
        return np.rint(values).clip(0, _LARGEST).astype("<u2")

    def rescale(self) -> dict[str, Any]:
        """Of the values, for viewers."""
        return {
            "RescaleIntercept": decimal(self.intercept),
            "RescaleSlope": decimal(self.slope),
            "RescaleType": "US",
        }

    def shown(self) -> dict[str, Any]:
        """Center and width of the window, at least the 1 that the standard asks for."""
        low, high = self.window
        return {
            "WindowCenter": decimal((low + high) / 2),
            "WindowWidth": decimal(max(high - low, 1.0)),
        }

    def real_world(self, title: str, unit: str) -> dict[str, Any]:
        """The values before they were multiplied by a power of ten.

        Args:
            title: of the quantity.
            unit: code of UCUM.
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
    """Put ``(frames, rows, columns)`` images into a data set."""
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
    """The items of a sequence."""
    from pydicom.dataset import Dataset

    made = []
    for values in contents:
        item = Dataset()
        fill(item, values)
        made.append(item)
    return made


def fill(data: Any, values: dict[str, Any]) -> None:
    """Set elements of a data set by their keywords."""
    for name, value in values.items():
        setattr(data, name, value)


def decimal(value: float) -> str:
    """A decimal string of at most 16 characters."""
    if not math.isfinite(value):
        raise InputError(f"expected a finite number for a DICOM header, got {value}")
    return next(
        text for digits in range(16, 0, -1) if len(text := f"{value + 0.0:.{digits}g}") <= 16
    )
