"""``ctxrecon.load``: load a pipeline from a method's name or a checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ctxrecon.baselines import BASELINES
from ctxrecon.errors import InputError
from ctxrecon.loading.components import kind_of
from ctxrecon.pipelines import (
    BaselinePipeline,
    ContextMRIPipeline,
    CrossModalPipeline,
    JointPipeline,
    ReconstructionPipeline,
    TaskPipeline,
    load_cross_modal,
    load_joint,
    load_prior,
    load_reconstructor,
    load_task,
)
from ctxrecon.solvers import SOLVERS, parse_solver

PRIOR, NETWORK = "prior", "network"
"""Names of the shipped prior and the shipped network."""

_NAME = re.compile(r"[\w-]+(:.*)?")

_LOADERS: dict[
    str,
    Callable[..., ReconstructionPipeline | JointPipeline | CrossModalPipeline | TaskPipeline],
] = {
    "network": load_reconstructor,
    "joint": load_joint,
    "cross_modal": load_cross_modal,
    "task": load_task,
}
"""Loader of each kind of checkpoint other than a prior."""


def load(
    source: str | Path = PRIOR,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
    **options: Any,
) -> (
    BaselinePipeline
    | ContextMRIPipeline
    | ReconstructionPipeline
    | JointPipeline
    | CrossModalPipeline
    | TaskPipeline
):
    """Load a reconstruction pipeline from a method's name or a checkpoint.

    Args:
        source: One of

            - ``"prior"`` or ``"network"``, the models shipped with the package;
            - a baseline such as ``"l1_wavelet"``;
            - a diffusion solver with options, such as ``"dds:data_weight=50"``, which uses the
              shipped prior;
            - a folder or hub repository with a prior, a reconstruction network, a joint model of
              sampling masks and reconstruction, a task model, or a network that uses a reference
              of another contrast. Write ``./NAME`` for a folder named like a method.
        dtype: Data type of the networks, or its name: float32, bfloat16 or float16.
        device: Device of the networks (default: CPU).
        **options: For priors, options of :func:`ctxrecon.pipelines.load_prior`.

    Returns:
        The pipeline; call it with k-space and a sampling mask.

    Raises:
        InputError: If the source is unknown, a part of the checkpoint is missing, damaged or
            unsuitable, or options of a prior are given for something else.

    Example:
        >>> import torch
        >>> import ctxrecon
        >>> pipe = ctxrecon.load("zero_filled")
        >>> kspace = torch.ones(1, 32, 32, dtype=torch.complex64)
        >>> pipe(kspace, torch.ones(32, dtype=torch.bool)).images.shape
        torch.Size([1, 32, 32])

        The shipped prior and a checkpoint of your own::

            pipe = ctxrecon.load()
            output = pipe(kspace, mask, prompt="Knee, PDFS, TR: 3150")
            network = ctxrecon.load("runs/varnet/pipeline", device="cuda")
    """
    name = str(source)
    method = name.partition(":")[0]
    if name == PRIOR:
        return load_prior(dtype=dtype, device=device, **options)
    if method in SOLVERS:
        solver = parse_solver(name)
        pipe = load_prior(options.pop("path", None), dtype=dtype, device=device, **options)
        pipe.default_solver = solver
        return pipe
    if name in BASELINES:
        _check_no_options(name, options)
        return BaselinePipeline(name)
    if name == NETWORK:
        _check_no_options(name, options)
        return load_reconstructor(dtype=dtype, device=device)
    try:
        kind, root = kind_of(source, options.get("subfolder"))
    except InputError as error:
        if not _NAME.fullmatch(name) or Path(name).exists():
            raise
        known = ", ".join((PRIOR, NETWORK, *BASELINES, *SOLVERS))
        raise InputError(f"{error}, or name a method: one of {known}") from error
    if kind == "prior":
        return load_prior(root, dtype=dtype, device=device, **options)
    _check_no_options(str(root), options)
    return _LOADERS[kind](root, dtype=dtype, device=device)


def _check_no_options(name: str, options: dict[str, Any]) -> None:
    given = [key for key, value in options.items() if value is not None]
    if given:
        raise InputError(f"{name} is not a diffusion prior: leave the option {given[0]} out")
