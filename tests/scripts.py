"""Training scripts as modules, and a clean slate for accelerate between runs in one process."""

from __future__ import annotations

import importlib.util
import sys
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


def forget_accelerate() -> None:
    """Let the next accelerator be made anew."""
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
