"""Precision of networks on a device."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from ctxrecon.checks import as_device, as_dtype

logger = logging.getLogger(__name__)

_INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16"),
}
"""Instruction sets of x86 processors for each type."""


def placed(dtype: Any, device: Any) -> torch.device:
    """Return an available device for networks of this type; warn if it only emulates the type.

    Args:
        dtype: float32, bfloat16 or float16, or its name.
        device: Device or its name; the CPU for ``None``.

    Raises:
        InputError: If the type is another one, or this machine does not have the device.
    """
    place = as_device(device)
    warn_if_emulated(as_dtype(dtype), place)
    return place


def is_native(dtype: torch.dtype, device: torch.device) -> bool:
    """Return whether a device is known to compute in this type without emulating it.

    Args:
        dtype: float32, bfloat16 or float16.
        device: Device of the network.

    Example:
        >>> import torch
        >>> from ctxrecon.precision import is_native
        >>> is_native(torch.float32, torch.device("cpu"))
        True
    """
    if dtype not in _INSTRUCTIONS:
        return True
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return native or dtype != torch.bfloat16
    known = _capabilities()
    return device.type == "cpu" and any(known.get(name, False) for name in _INSTRUCTIONS[dtype])


def warn_if_emulated(dtype: torch.dtype, device: torch.device) -> None:
    """Log a warning if an x86 processor only emulates a type, which takes several times as long.

    Args:
        dtype: float32, bfloat16 or float16.
        device: Device of the network.
    """
    known = _capabilities().get("architecture") == "x86_64"
    if device.type == "cpu" and known and not is_native(dtype, device):
        logger.warning(
            "this processor has no instructions for %s and is several times slower with it than "
            "with float32: use float32",
            str(dtype).removeprefix("torch."),
        )


def _capabilities() -> Mapping[str, Any]:
    """Return what torch knows about the processor; nothing for older versions of torch."""
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found
