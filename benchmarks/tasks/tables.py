"""Tables of the study by name, each with its measurement and its page."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from benchmarks.common.record import Page
from benchmarks.tasks import frontier, pages, privacy, privacy_page, segmentation


@dataclass(frozen=True)
class Table:
    """One table of the study.

    Attributes:
        measure: Function that trains and tests according to the options and returns the results, or
            ``None`` if nothing was tested.
        page: Function that generates the page from the record.
    """

    measure: Callable[[argparse.Namespace], dict[str, Any] | None]
    page: Page


TABLES: Mapping[str, Table] = MappingProxyType(
    {
        "segmentation": Table(segmentation.segmentation, pages.segmentation),
        "calibration": Table(segmentation.calibration, pages.calibration),
        "loss_weights": Table(segmentation.loss_weights, pages.loss_weights),
        "samples": Table(segmentation.samples, pages.samples),
        "accelerations": Table(segmentation.accelerations, pages.accelerations),
        "bimodal": Table(segmentation.bimodal, pages.bimodal),
        "privacy_digits": Table(privacy.measure, privacy_page.page),
        "privacy_knees": Table(frontier.privacy_knees, frontier.page),
        "frontier": Table(frontier.frontier, frontier.page),
    }
)
"""Tables by name."""
