"""Training scripts as modules, and a clean slate for accelerate between runs in one process."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from safetensors.torch import load_file

TRAINING = Path(__file__).resolve().parents[1] / "training"


def load_script(name: str) -> ModuleType:
    """``training/NAME.py`` as a module."""
    spec = importlib.util.spec_from_file_location(name, TRAINING / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where data loaders of other processes look for it
    spec.loader.exec_module(module)
    return module


def run_here(command: Sequence[str], check: bool = False) -> subprocess.CompletedProcess[str]:
    """What ``accelerate launch`` would do with this command, in this process."""
    script, *options = command[command.index("accelerate.commands.launch") + 1 :]
    forget_accelerate()
    load_script(Path(script).stem).main(options)
    return subprocess.CompletedProcess(list(command), 0)


def weights(folder: Path, step: int = 3) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint of a run."""
    return load_file(folder / f"checkpoint-{step}" / "model.safetensors")


def start(
    command: Sequence[str], status: int = 0, *, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command with accelerate on the CPU; a failing one shows its stderr.

    With a new session, so that no process is left when it takes too long. Programs of this
    environment are found by their names.
    """
    programs = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "ACCELERATE_USE_CPU": "true",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, errors = process.communicate(timeout=1200)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, errors = process.communicate()
        raise AssertionError(f"{command} takes too long: {errors[-4000:]}") from None
    assert process.returncode == status, errors[-4000:]
    return subprocess.CompletedProcess(command, process.returncode, out, errors)


def in_two_processes(script: Path) -> list[str]:
    """The start of a command for two processes: ``accelerate launch --cpu`` starts one."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*torchrun, "--nproc_per_node", "2", str(script)]


def forget_accelerate() -> None:
    """Let the next accelerator be made anew."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
