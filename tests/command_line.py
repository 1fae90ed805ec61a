"""The command line, called in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ctxrecon.cli import main
from ctxrecon.io import write_scan
from ctxrecon.scan import Scan


def run(*arguments: object) -> int:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the usage error of a command on one line."""
    assert run(*arguments) == 2
    return " ".join(capsys.readouterr().err.split())


def check_calibration_is_used(folder: Path, kspace: torch.Tensor, *command: object) -> None:
    """Check that a scan of every second line is refused without its calibration scan alone.

    Args:
        folder: Folder for the scan and the output.
        kspace: Fully sampled k-space, ``(slices, coils, ny, nx)``.
        command: Command and its options, except for the scan and ``--out``.
    """
    mask = torch.zeros(1, 1, *kspace.shape[2:], dtype=torch.bool)
    mask[..., ::2] = True
    name, *options = command
    path, out = folder / "lines.npz", folder / "out"
    for calibration, expected in ((None, 2), (kspace[..., 4:-4, 4:-4], 0)):
        write_scan(path, Scan(kspace * mask, mask, calibration=calibration))
        assert run(name, path, *options, "--out", out) == expected
