"""Training runs that benchmarks start or resume."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from ctxrecon.errors import InputError

_TRAINING = Path(__file__).resolve().parents[2] / "training"


def train_run(
    script: str, options: list[str], folder: Path, steps: int, *, test_only: bool = False
) -> bool:
    """Train to the last step, resuming a stopped run; return True if the run is complete.

    Args:
        script: Script in ``training/``.
        options: Its options except for the folder and the number of steps.
        folder: Folder of the run.
        steps: Optimizer steps.
        test_only: Only check whether the run is complete.

    Raises:
        InputError: If the folder was trained with other options, or if training fails.
    """
    command = [f"training/{script}", *options, "--max_train_steps", str(steps)]
    note = folder / "command.json"
    if note.is_file() and json.loads(note.read_text(encoding="utf-8")) != command:
        raise InputError(
            f"{folder} was trained by another command: remove it or choose other --runs"
        )
    if test_only or _is_trained(folder, steps):
        return _is_trained(folder, steps)
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(command, indent=2) + "\n", encoding="utf-8")
    launch = [sys.executable, "-m", "accelerate.commands.launch", str(_TRAINING / script)]
    launch += [*command[1:], "--output_dir", str(folder)]
    launch += ["--resume_from_checkpoint", "auto"]
    if subprocess.run(launch, check=False).returncode:
        raise InputError(f"training of {folder.name} failed: {' '.join(launch)}")
    return True


def _is_trained(folder: Path, steps: int) -> bool:
    """Return True if the run reached and exported its last step."""
    last, exported = folder / f"checkpoint-{steps}", folder / "pipeline" / "model_index.json"
    if not last.is_dir() or not exported.is_file():
        return False
    return exported.stat().st_mtime >= (last / "state.json").stat().st_mtime


def slug(title: str) -> str:
    """Return a title as a folder name."""
    return (
        re.sub(r"\W+", "_", title.replace("ℓ", "l").replace("ε", "epsilon").replace("⁺", ""))
        .strip("_")
        .lower()
    )
