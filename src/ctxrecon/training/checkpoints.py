"""Training checkpoints: a folder that is there whole or not at all, without pickle."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from ctxrecon.errors import InputError
from ctxrecon.files import read_json
from ctxrecon.training.folders import folder_beside, remove_folder

logger = logging.getLogger(__name__)

_PREFIX = "checkpoint-"
_PARTS = ("model", "model_ema", "optimizer")
_NOTES = ("step", "ema_step", "param_groups", "scaler")
# Whole tensors by name, however the model is spread over processes; frozen parts stay out.
_OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_LOADING = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)


def averaged_weights(model: nn.Module, ema: EMAModel) -> dict[str, Tensor]:
    """The averaged weights by name, whole and on the CPU; every process has to call it."""
    named = [name for name, value in model.named_parameters() if value.requires_grad]
    return {
        name.removeprefix("module."): _whole(value).cpu()
        for name, value in zip(named, ema.shadow_params, strict=True)
    }


def _whole(value: Tensor) -> Tensor:
    """A tensor that FSDP spread over the processes, put together."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value.detach()


def save_state(
    folder: Path,
    step: int,
    *,
    model: nn.Module,
    ema: EMAModel,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
    losses: Sequence[float] = (),
    seconds: float = 0.0,
    write: bool = True,
) -> dict[str, Tensor]:
    """Write ``checkpoint-STEP``: weights, their averages, the optimiser and the step.

    The folder is written under a hidden name and renamed, so that a half-written one is never
    picked up. All randomness of training is a function of the seed and the sample's number, so
    there is no random state to keep. A checkpoint fits any number of processes.

    Args:
        folder: of the run.
        step: optimiser steps done.
        model: as accelerate prepared it; parameters that need no gradient are left out.
        ema: averages of the parameters that need a gradient.
        optimizer: of the model.
        scaler: of fp16 training.
        losses: those since the last line of the log.
        seconds: that the run has taken.
        write: on the one process that writes; the others help to gather.

    Returns:
        The averaged weights, as :func:`averaged_weights` gives them.

    Raises:
        InputError: weights that are not finite, on every process; nothing is written then.
    """
    weights: Any = get_model_state_dict(model, options=_OPTIONS)
    averages = averaged_weights(model, ema)
    if not all(bool(value.isfinite().all()) for value in averages.values()):
        raise InputError(
            f"the weights are not finite at step {step}: lower --learning_rate, or look for "
            "damaged data; the checkpoints before are as they were"
        )
    state: Any = get_optimizer_state_dict(model, optimizer, options=_OPTIONS)
    final = folder / f"{_PREFIX}{step}"
    if not write:
        return averages
    moments = {
        f"{key}.{name}": torch.as_tensor(value)
        for key, entries in state["state"].items()
        for name, value in entries.items()
    }
    plain = {
        "step": step,
        "ema_step": ema.optimization_step,
        "param_groups": state["param_groups"],
        "scaler": None if scaler is None else scaler.state_dict(),
        "losses": list(losses),
        "seconds": seconds,
    }
    with folder_beside(final) as beside:
        for part, tensors in zip(_PARTS, (weights, averages, moments), strict=True):
            own = {key: value.contiguous() for key, value in tensors.items()}
            save_file(own, beside / f"{part}.safetensors")
        (beside / "state.json").write_text(json.dumps(plain), encoding="utf-8")
    return averages


def load_state(
    checkpoint: Path,
    *,
    model: nn.Module,
    ema: EMAModel,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Restore what :func:`save_state` wrote, on every process; returns the step.

    Raises:
        InputError: no checkpoint, or one of another network.
    """
    if not is_whole(checkpoint):
        raise InputError(
            f"{checkpoint} is no training checkpoint, or damaged: expected a folder with "
            f"state.json and {', '.join(_PARTS)} as .safetensors"
        )
    plain = _read_notes(checkpoint)
    weights: Any = load_file(checkpoint / "model.safetensors")
    averages = load_file(checkpoint / "model_ema.safetensors")
    _check_names(checkpoint, model, averages)
    set_model_state_dict(model, weights, options=_LOADING)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    for (name, _), shadow in zip(named, ema.shadow_params, strict=True):
        _copy_whole(averages[name.removeprefix("module.")], shadow)
    ema.optimization_step = plain["ema_step"]
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in load_file(checkpoint / "optimizer.safetensors").items():
        parameter, name = key.rsplit(".", 1)
        state.setdefault(parameter, {})[name] = value
    moments: Any = {"state": state, "param_groups": plain["param_groups"]}
    set_optimizer_state_dict(model, optimizer, moments, options=_LOADING)
    if scaler is not None and plain["scaler"] is not None:
        scaler.load_state_dict(plain["scaler"])
    return int(plain["step"])


def _check_names(checkpoint: Path, model: nn.Module, averages: dict[str, Tensor]) -> None:
    """Names and shapes have to be those of the model."""
    wanted = {
        name.removeprefix("module."): tuple(value.shape)
        for name, value in model.named_parameters()
        if value.requires_grad
    }
    found = {name: tuple(value.shape) for name, value in averages.items()}
    if wanted != found:
        odd = sorted(set(wanted.items()) ^ set(found.items()))[0][0]
        raise InputError(
            f"{checkpoint} is of another network: {odd} is {found.get(odd, 'missing')} there and "
            f"{wanted.get(odd, 'missing')} here; resume with the options of the first run"
        )


def _copy_whole(whole: Tensor, target: Tensor) -> None:
    """Copy into a tensor that may be this process's share of it."""
    if hasattr(target, "full_tensor"):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(target, DTensor)
        whole = distribute_tensor(whole.to(target.device), target.device_mesh, target.placements)
    with torch.no_grad():
        target.copy_(whole)


def load_notes(checkpoint: Path) -> tuple[Sequence[float], float]:
    """Losses since the last line of the log, and seconds that the run has taken."""
    plain = _read_notes(checkpoint)
    return list(plain.get("losses", ())), float(plain.get("seconds", 0.0))


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, if it has one."""
    for path in reversed(list_checkpoints(folder)):
        if is_whole(path):
            return path
        logger.warning("%s is damaged: an older checkpoint is looked for", path)
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether all files of a checkpoint are there and none is cut short."""
    try:
        plain = _read_notes(checkpoint)
        for part in _PARTS:
            with safe_open(checkpoint / f"{part}.safetensors", "pt"):
                pass
    except (OSError, ValueError, SafetensorError):
        return False
    return all(name in plain for name in _NOTES)


def _read_notes(checkpoint: Path) -> dict[str, Any]:
    return read_json(
        checkpoint / "state.json", "the state of a training", "resume from an older checkpoint"
    )


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints."""
    for path in list_checkpoints(folder)[:-keep]:
        remove_folder(path)


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders from the oldest to the newest."""
    found = {
        int(number): path
        for path in folder.glob(f"{_PREFIX}*")
        if (number := path.name.removeprefix(_PREFIX)).isdecimal()
    }
    return [found[number] for number in sorted(found)]


def step_of(checkpoint: Path) -> int:
    """The step in the name of a checkpoint."""
    return int(checkpoint.name.removeprefix(_PREFIX))
