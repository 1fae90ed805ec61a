"""Training scripts as modules, and a clean slate for accelerate between runs in one process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from accelerate.state import AcceleratorState, GradientState, PartialState

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


def forget_accelerate() -> None:
    """Let the next accelerator be made anew."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
