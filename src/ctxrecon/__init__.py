"""Accelerated MRI reconstruction with metadata-prompted diffusion priors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxrecon.api import load
    from ctxrecon.io import read_scan
    from ctxrecon.measurement import Measurement
    from ctxrecon.scan import Scan

__version__ = "0.1.0"

__all__ = ["Measurement", "Scan", "__version__", "load", "read_scan"]

# Imported lazily, so that the command line's help does not need torch.
_MODULES = {
    "Measurement": "ctxrecon.measurement",
    "Scan": "ctxrecon.scan",
    "load": "ctxrecon.api",
    "read_scan": "ctxrecon.io",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
