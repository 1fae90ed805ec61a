"""Records of results in JSON with the information needed to reproduce them."""

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
from ctxrecon.precision import is_native


def hardware() -> dict[str, Any]:
    """Return processor, threads, accelerator and software versions of this machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "cpu_bfloat16": is_native(torch.bfloat16, torch.device("cpu")),
        "torch_threads": torch.get_num_threads(),
        "gpu": gpu,
        "platform": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ctxrecon": __version__,
    }


def write_record(path: str | Path, results: Any, *, command: str, seed: int | None) -> None:
    """Write ``results`` as JSON with command, seed, date and hardware, atomically.

    Args:
        path: JSON file; its folder is created if needed.
        results: Results, as JSON types.
        command: Command that reproduces the results.
        seed: Random seed, ``None`` if there was none.

    Example:
        >>> import json, tempfile
        >>> from pathlib import Path
        >>> from ctxrecon.evaluation import write_record
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "record.json"
        ...     write_record(path, {"psnr": 38.0}, command="python measure.py", seed=0)
        ...     json.loads(path.read_text())["results"]
        {'psnr': 38.0}
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
    """Return a short hash of the weights, which identifies the prior or network in a record."""
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
