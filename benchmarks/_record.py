"""Writes a benchmark's results with what is needed to run it again."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch


def hardware() -> dict[str, Any]:
    """Processor, threads, accelerator and versions of this machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
        "platform": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_record(path: str | Path, results: dict[str, Any], *, seed: int | None) -> None:
    """Write ``results`` as JSON with command, seed, date and hardware.

    The file is written beside its place and then renamed, so that no reader sees half of it.

    Args:
        path: the JSON file; its folder is made if needed.
        results: what was measured, in JSON types.
        seed: the seed of every random choice, ``None`` if there was none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    script = Path(sys.argv[0])
    record = {
        "command": " ".join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]]),
        "seed": seed,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        "hardware": hardware(),
        "results": results,
    }
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
