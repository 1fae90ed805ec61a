"""Results as JSON with what is needed to run the measurement again."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from ctxrecon import __version__
from ctxrecon.files import write_json
from ctxrecon.pipelines import ContextMRIPipeline, ReconstructionPipeline


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
        "ctxrecon": __version__,
    }


def write_record(path: str | Path, results: Any, *, command: str, seed: int | None) -> None:
    """Write ``results`` as JSON with command, seed, date and hardware.

    The file is written beside its place and then renamed, so that no reader sees half of it.

    Args:
        path: the JSON file; its folder is made if needed.
        results: what was measured, in JSON types.
        command: that makes the same results again.
        seed: the seed of every random choice, ``None`` if there was none.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "command": command,
        "seed": seed,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%MZ"),
        "hardware": hardware(),
        "results": results,
    }
    write_json(path, record)


def fingerprint(pipe: ContextMRIPipeline | ReconstructionPipeline) -> str:
    """A short hash of the weights, so that a record says which prior or network it is of."""
    digest = hashlib.sha256()
    for part in ("unet", "reconstructor", "text_encoder"):
        module = getattr(pipe, part, None)
        if module is None:
            continue
        for name, value in sorted(module.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
