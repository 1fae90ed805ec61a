"""``ctxrecon.load``: the pipeline that a name or a checkpoint stands for."""

from __future__ import annotations

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
"""The prior and the network that come with the package."""

_LOADERS: dict[
    str,
    Callable[..., ReconstructionPipeline | JointPipeline | CrossModalPipeline | TaskPipeline],
] = {
    "network": load_reconstructor,
    "joint": load_joint,
    "cross_modal": load_cross_modal,
    "task": load_task,
}
"""What opens each kind of checkpoint but a prior."""


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
    """Load the pipeline that a method's name or a checkpoint stands for.

    Example:
        >>> pipe = ctxrecon.load()  # the prior that comes with the package
        >>> output = pipe(kspace, mask, prompt="Knee, PDFS, TR: 3150")
        >>> zero_filled = ctxrecon.load("zero_filled")(kspace, mask)
        >>> mine = ctxrecon.load("runs/varnet/pipeline", device="cuda")

    Args:
        source: "prior" or "network", those that come with the package; a baseline such as
            "l1_wavelet"; a solver with its options, "dds:data_weight=50", of the shipped prior; or
            a folder or hub repository with a prior, a network, a network with the sampler of its
            masks, for images or for a task, or one that a reference of another contrast helps. A
            folder with the name of a method is ``./NAME``.
        dtype: of the networks: float32, bfloat16 or float16, or its name.
        device: where to put them; the CPU by default.
        **options: of :func:`ctxrecon.pipelines.load_prior`, for priors.

    Raises:
        InputError: a name that is none of these, a missing, damaged or unsuitable part, or options
            of a prior for something else.
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
    kind, root = kind_of(source, options.get("subfolder"))
    if kind == "prior":
        return load_prior(root, dtype=dtype, device=device, **options)
    _check_no_options(str(root), options)
    return _LOADERS[kind](root, dtype=dtype, device=device)


def _check_no_options(name: str, options: dict[str, Any]) -> None:
    given = [key for key, value in options.items() if value is not None]
    if given:
        raise InputError(f"{name} holds no diffusion prior: leave {given[0]} out")
