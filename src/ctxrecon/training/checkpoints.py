"""Training checkpoints: a folder that is there whole or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ctxrecon.errors import InputError

_PREFIX = "checkpoint-"


def _flatten(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimiser's state as tensors and plain values, without pickle."""
    tensors: dict[str, Tensor] = {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            tensors[f"{index}.{name}"] = torch.as_tensor(value).contiguous()
    return tensors, {"param_groups": state["param_groups"]}


def _unflatten(tensors: dict[str, Tensor], plain: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": plain["param_groups"]}


def save_state(
    folder: Path,
    step: int,
    *,
    modules: dict[str, torch.nn.Module],
    averages: dict[str, list[Tensor]],
    optimizer: torch.optim.Optimizer,
) -> Path:
    """Write ``checkpoint-STEP``: weights, their averages, the optimiser and the step.

    The folder is written under a hidden name and renamed, so that a half-written one is never
    picked up. All randomness of training is a function of the seed and the step, so there is no
    random state to keep.
    """
    final = folder / f"{_PREFIX}{step}"
    beside = folder / f".{final.name}.partial"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for name, module in modules.items():
        weights = {key: value.contiguous() for key, value in module.state_dict().items()}
        save_file(weights, beside / f"{name}.safetensors")
        average = {str(i): value.contiguous() for i, value in enumerate(averages[name])}
        save_file(average, beside / f"{name}_ema.safetensors")
    tensors, plain = _flatten(optimizer.state_dict())
    save_file(tensors, beside / "optimizer.safetensors")
    (beside / "state.json").write_text(json.dumps({"step": step, **plain}))
    shutil.rmtree(final, ignore_errors=True)
    beside.rename(final)
    return final


def load_state(
    checkpoint: Path,
    *,
    modules: dict[str, torch.nn.Module],
    averages: dict[str, list[Tensor]],
    optimizer: torch.optim.Optimizer,
) -> int:
    """Restore what :func:`save_state` wrote; returns the step."""
    state_file = checkpoint / "state.json"
    if not state_file.is_file():
        raise InputError(f"{checkpoint} is no training checkpoint: it has no state.json")
    for name, module in modules.items():
        module.load_state_dict(load_file(checkpoint / f"{name}.safetensors"))
        average = load_file(checkpoint / f"{name}_ema.safetensors")
        for index, value in enumerate(averages[name]):
            value.copy_(average[str(index)])
    plain = json.loads(state_file.read_text())
    optimizer.load_state_dict(_unflatten(load_file(checkpoint / "optimizer.safetensors"), plain))
    return int(plain["step"])


def latest_checkpoint(folder: Path) -> Path:
    """The checkpoint with the highest step; an error when there is none."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if (path / "state.json").is_file()]
    if not found:
        raise InputError(
            f"no checkpoint to resume in {folder}; leave --resume_from_checkpoint out to start anew"
        )
    return max(found, key=lambda path: int(path.name.removeprefix(_PREFIX)))


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints."""
    found = sorted(
        folder.glob(f"{_PREFIX}*"), key=lambda path: int(path.name.removeprefix(_PREFIX))
    )
    for path in found[:-keep]:
        shutil.rmtree(path)
