"""Exit of training scripts: one-sentence error messages and exit statuses."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable

import torch

from ctxrecon.errors import InputError, one_line
from ctxrecon.training.config import UsageError

_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_PATIENCE = 30.0
"""Seconds to wait for the launcher to end the other processes after one has stopped."""


def run_script(main: Callable[[], None]) -> None:
    """Run a script and exit; on an error, print one sentence to stderr.

    The exit status is 2 for a wrong command line, 130 after an interrupt and 1 for any other
    error. Of several processes the main one reports at once. Any other process, or one with a
    program or communication error, waits first: if the cause was elsewhere and already reported,
    the launcher ends it.

    Args:
        main: Main function of the script.
    """
    main_process = _rank() == 0
    _log_to_stderr(logging.INFO if main_process else logging.ERROR)
    _hide_bars()
    try:
        main()
    except KeyboardInterrupt:
        if main_process:
            print(
                "\ninterrupted: continue from the last checkpoint with "
                "--resume_from_checkpoint auto",
                file=sys.stderr,
            )
        sys.exit(130)
    except Exception as error:
        sentence = _sentence(error)
        if not main_process or (sentence is None and _num_processes() > 1):
            time.sleep(_PATIENCE)
        if sentence is None:
            raise
        print(f"error: {one_line(sentence)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)


def _sentence(error: Exception) -> str | None:
    """Return the message of an error, or ``None`` for a program error, which needs a traceback."""
    if isinstance(error, InputError):
        # Errors of data-loader processes arrive with their traceback as text.
        return str(error).rsplit(f"{InputError.__name__}: ", 1)[-1]
    if isinstance(error, ImportError) and error.name and not error.name.startswith("ctxrecon"):
        return f"the package {error.name} is not installed or does not work here: {error}"
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return f"{error.filename}: {reason}" if error.filename else reason
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
        return "out of memory: lower --train_batch_size, --resolution or the network's size"
    return None


def _rank() -> int:
    found = (os.environ.get(name, "") for name in _RANKS)
    return next((int(value) for value in found if value.isdecimal()), 0)


def _num_processes() -> int:
    value = os.environ.get("WORLD_SIZE", "")
    return int(value) if value.isdecimal() else 1


def _log_to_stderr(level: int) -> None:
    """Show the package's log messages on stderr."""
    logger = logging.getLogger("ctxrecon")
    logger.setLevel(max(level, logging.WARNING))  # informational messages come per sample
    logging.getLogger("ctxrecon.training").setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


def _hide_bars() -> None:
    """Hide transformers' progress bars for files that are read or written."""
    import huggingface_hub.utils as hub
    from transformers.utils import logging as transformers_logging

    hidden = hub.are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    if not hidden:  # keep bars of downloads
        hub.enable_progress_bars()
