"""Experiment trackers of accelerate: selection, start and pictures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from ctxrecon.errors import InputError

logger = logging.getLogger(__name__)

_PROJECT = "ctxrecon"
_TENSORBOARD = "tensorboard"
_TENSORBOARD_FOLDER = "tracker"
"""Subfolder of the run folder."""


def choose_tracker(wanted: str | None) -> str:
    """Return the requested tracker, or by default tensorboard if installed, otherwise "none".

    Raises:
        InputError: If its package is not installed.
    """
    there = [str(getattr(one, "value", one)) for one in get_available_trackers()]
    if wanted is None:
        if _TENSORBOARD in there:
            return _TENSORBOARD
        logger.info("tensorboard is not installed: using --report_to none")
        return "none"
    if wanted == "all" and not there:
        raise InputError("--report_to all: no tracker is installed, install one or omit it")
    if wanted in (*there, "all", "none"):
        return wanted
    command = f"pip install {wanted.replace('_', '-')}"
    if wanted == _TENSORBOARD:
        command = "pip install '.[train]' in the checkout"
    raise InputError(
        f"--report_to {wanted} needs {wanted}: install it with {command}, or use --report_to none"
    )


def start_trackers(accelerator: Accelerator, options: dict[str, Any], start: int) -> None:
    """Start the trackers of an accelerator, if any, on the main process.

    Args:
        accelerator: Accelerator with its trackers.
        options: Options of the run.
        start: Step from which the run continues.

    Raises:
        InputError: If a tracker does not start, for example without a login.
    """
    names = [str(getattr(one, "value", one)) for one in accelerator.log_with]
    if not names:
        return
    try:
        accelerator.init_trackers(
            _TENSORBOARD_FOLDER if _TENSORBOARD in names else _PROJECT,
            init_kwargs={_TENSORBOARD: {"purge_step": start + 1}},
        )
        for tracker in accelerator.trackers:
            if tracker.name != _TENSORBOARD:  # tensorboard would create another run
                tracker.store_init_configuration(options)
    except Exception as error:  # each package raises its own
        raise InputError(
            f"--report_to {' '.join(names)} does not start: {error}; set it up, or use "
            "--report_to none"
        ) from error


def show_picture(accelerator: Accelerator, path: Path, step: int) -> None:
    """Show a picture in the trackers that support images."""
    from PIL import Image

    with Image.open(path) as picture:
        image = picture.convert("RGB")
    for tracker in accelerator.trackers:
        if tracker.name == _TENSORBOARD:
            pixels = np.asarray(image)[None]
            tracker.log_images({"validation": pixels}, step=step, dataformats="NHWC")
        elif tracker.name == "aim":
            tracker.log_images({"validation": image}, step=step)
        elif hasattr(tracker, "log_images"):
            tracker.log_images({"validation": [np.asarray(image)]}, step=step)
