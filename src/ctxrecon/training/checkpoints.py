"""Training checkpoints, written atomically and without pickle."""

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
# Complete tensors by name, however the model is sharded; frozen parts are omitted.
_OPTIONS = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_LOADING = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)


def averaged_weights(model: nn.Module, ema: EMAModel) -> dict[str, Tensor]:
    """Return the complete averaged weights by name, on the CPU; every process must call this."""
    named = [name for name, value in model.named_parameters() if value.requires_grad]
    return {
        name.removeprefix("module."): _whole(value).cpu()
        for name, value in zip(named, ema.shadow_params, strict=True)
    }


def _whole(value: Tensor) -> Tensor:
    """Gather a tensor that FSDP sharded over the processes."""
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
    """Write ``checkpoint-STEP``: weights, their averages, the optimizer state and the step.

    The folder is written under a hidden name and renamed, so that an incomplete one is never used.
    All randomness of training is a function of the seed and the sample number, so that there is no
    random state to store. A checkpoint can be resumed on any number of processes.

    Args:
        folder: Folder of the run.
        step: Number of completed optimizer steps.
        model: Model as prepared by accelerate; frozen parameters are omitted.
        ema: Averages of the trained parameters.
        optimizer: Optimizer of the model.
        scaler: Gradient scaler of fp16 training.
        losses: Losses since the last line of the log.
        seconds: Elapsed training time.
        write: If true, write the files; other processes only take part in gathering.

    Returns:
        The averaged weights as in :func:`averaged_weights`.

    Raises:
        InputError: If the weights are not finite; on every process, and without writing.
    """
    weights: Any = get_model_state_dict(model, options=_OPTIONS)
    averages = averaged_weights(model, ema)
    if not all(bool(value.isfinite().all()) for value in averages.values()):
        raise InputError(
            f"the weights are not finite at step {step}: lower --learning_rate, or look for "
            "damaged data; earlier checkpoints are intact"
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
    """Restore the state written by :func:`save_state`, on every process, and return the step.

    Raises:
        InputError: If there is no checkpoint, or it is of another network.
    """
    if not is_whole(checkpoint):
        raise InputError(
            f"{checkpoint} is not a training checkpoint, or damaged: expected a folder with "
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
    """Validate that names and shapes match the model."""
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
    """Copy into a tensor that may be this process's shard."""
    if hasattr(target, "full_tensor"):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(target, DTensor)
        whole = distribute_tensor(whole.to(target.device), target.device_mesh, target.placements)
    with torch.no_grad():
        target.copy_(whole)


def load_notes(checkpoint: Path) -> tuple[Sequence[float], float]:
    """Return the losses since the last line of the log, and the elapsed training time."""
    plain = _read_notes(checkpoint)
    return list(plain.get("losses", ())), float(plain.get("seconds", 0.0))


def latest_checkpoint(folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run, or ``None``."""
    for path in reversed(list_checkpoints(folder)):
        if is_whole(path):
            return path
        logger.warning("%s is damaged: looking for an older checkpoint", path)
    return None


def is_whole(checkpoint: Path) -> bool:
    """Return whether all files of a checkpoint exist and none is truncated."""
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
    """Return the checkpoint folders from the oldest to the newest."""
    found = {
        int(number): path
        for path in folder.glob(f"{_PREFIX}*")
        if (number := path.name.removeprefix(_PREFIX)).isdecimal()
    }
    return [found[number] for number in sorted(found)]


def step_of(checkpoint: Path) -> int:
    """Return the step in the name of a checkpoint."""
    return int(checkpoint.name.removeprefix(_PREFIX))
