"""The reconstruction methods of the command line, and how each of them runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrecon.commands.results import Result
from ctxrecon.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from ctxrecon.output import ReconstructionOutput
    from ctxrecon.pipelines import (
        ContextMRIPipeline,
        CrossModalPipeline,
        JointPipeline,
        Measurement,
        ReconstructionPipeline,
        TaskPipeline,
    )
    from ctxrecon.solvers import DiffusionSolver

PRIOR = "contextmri"
NETWORK = "network"
JOINT = "joint"
"""A model with its own sampling masks, available only with ``--model``."""
# Command-line name -> key of ctxrecon.baselines.BASELINES.
BASELINES = {
    "zero-filled": "zero_filled",
    "cg-sense": "cg_sense",
    "phase-constrained": "phase_constrained",
    "l1-wavelet": "l1_wavelet",
    "tv": "total_variation",
}
COMPARED = ("zero-filled", "cg-sense", "l1-wavelet", "tv")
"""Baselines for comparisons: all except those for partial Fourier scans."""
METHODS = (PRIOR, NETWORK, *BASELINES)
ALIASES = {"prior": PRIOR}
_OTHER_SPELLINGS = {"total-variation": "tv"}
SHIPPED_PRIOR, SHIPPED_NETWORK = "shipped prior", "shipped network"
"""Names of the models that are shipped with the package."""


@dataclass(frozen=True)
class PriorRun:
    """Settings for sampling the prior: options of ``ContextMRIPipeline`` and its solver.

    Attributes:
        prompts: One prompt per slice, or ``None`` for reconstruction without text.
        guidance_scale: Guidance scale γ.
        steps: Number of diffusion steps.
        samples: Number of posterior samples per slice.
        seed: Random seed.
        solver: Solver with its options, or ``None`` for the pipeline's default.
        call: Further keyword arguments of the pipeline.
        prior: Name of the prior in tables and figures.
        batch_size: Images per batch; by default 1 on a CPU, else limited by memory.
        first: Number of the first slice in the file, from which the noise of each slice follows.
        network: Network whose image is the starting point if ``call`` names it.
    """

    prompts: list[str] | None
    guidance_scale: float
    steps: int
    samples: int
    seed: int
    solver: DiffusionSolver | None = field(repr=False)
    call: dict[str, Any] = field(default_factory=dict)
    prior: str = SHIPPED_PRIOR
    batch_size: int | None = None
    first: int = 0
    network: ReconstructionPipeline | None = field(default=None, repr=False)

    @property
    def uses_prompt(self) -> bool:
        """True if the prompt has an effect, which it does not at γ = 0."""
        return self.prompts is not None and self.guidance_scale > 0


def check_method(name: str) -> str:
    """Return the canonical name of a command-line method, and resolve aliases.

    Raises:
        InputError: If the method is unknown.
    """
    known = spelled(name, (*ALIASES, *METHODS), "method")
    return ALIASES.get(known, known)


def spelled(name: str, known: Collection[str], what: str) -> str:
    """Return a name in the spelling of the command line: ``l1_wavelet`` becomes ``l1-wavelet``.

    Raises:
        InputError: If the name is unknown.
    """
    plain = name.lower().replace("_", "-")
    plain = _OTHER_SPELLINGS.get(plain, plain)
    if plain not in known:
        raise InputError(f"unknown {what} {name!r}: expected one of {', '.join(known)}")
    return plain


def model_name(path: str | Path, subfolder: str | None = None) -> str:
    """Return a model's name: ``varnet`` for ``runs/varnet`` and ``runs/varnet/pipeline``."""
    folder = Path(path)
    known = folder.is_dir()
    folder = folder.resolve() if known else folder
    named = folder.parent.name if folder.name == "pipeline" and folder.parent.name else folder.name
    name = named if known else str(path)  # hub repositories are shown with their owner
    return name if subfolder is None else f"{name}/{subfolder}"


DTYPES = ("float32", "bfloat16", "float16")


def open_prior(
    path: str | None, device: str | None, subfolder: str | None = None, dtype: str = DTYPES[0]
) -> ContextMRIPipeline:
    """Load a prior without its libraries' progress bars.

    The default device is CUDA if available. ``dtype`` is the data type of the networks; the
    measurement is always complex64.
    """
    from ctxrecon.pipelines import load_prior

    return _opened(lambda **on: load_prior(path, subfolder=subfolder, **on), device, dtype)


def open_network(device: str | None, dtype: str = DTYPES[0]) -> ReconstructionPipeline:
    """Load the shipped network; arguments as for :func:`open_prior`."""
    from ctxrecon.pipelines import load_reconstructor

    return _opened(lambda **on: load_reconstructor(**on), device, dtype)


def open_model(
    path: str, device: str | None, subfolder: str | None, dtype: str, *, reference: bool = False
) -> (
    ContextMRIPipeline | ReconstructionPipeline | CrossModalPipeline | JointPipeline | TaskPipeline
):
    """Load the pipeline of any kind of checkpoint, on the device as in :func:`open_prior`.

    Raises:
        InputError: If the checkpoint cannot be loaded, if its network needs a reference of another
            contrast and none was given, or if one was given that it does not use.
    """
    from ctxrecon.api import load
    from ctxrecon.pipelines import CrossModalPipeline

    opened = _opened(lambda **on: load(path, subfolder=subfolder, **on), device, dtype)
    if isinstance(opened, CrossModalPipeline) and not reference:
        raise InputError(
            f"{path} needs a reference of another contrast in addition to the scan: pass its NIfTI "
            "file to ctxrecon reconstruct with --reference"
        )
    if reference and not isinstance(opened, CrossModalPipeline):
        raise InputError(
            f"{path} does not use a reference of another contrast: leave --reference out, or "
            "give a --model trained by training/train_cross_modal.py"
        )
    return opened


def open_methods(
    method: str | None,
    compare: bool,
    model: str | None,
    device: str | None,
    subfolder: str | None,
    dtype: str,
    *,
    reference: bool = False,
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """Load the selected method and the methods that it is compared with.

    Args:
        method: Requested method; by default the method of ``model``, or the diffusion prior.
        compare: Whether the baselines, the prior and the network also run.
        model: Checkpoint for one of the methods; the others use the shipped models.
        device: Device of the networks.
        subfolder: Subfolder of the U-Net in ``model``.
        dtype: Data type of the networks.
        reference: Whether a reference image of another contrast was given.

    Returns:
        The method, the pipelines by method, and the display names of their models by method.

    Raises:
        InputError: If ``model`` does not match the requested method.
    """
    pipes: dict[str, Any] = {}
    names = {PRIOR: SHIPPED_PRIOR, NETWORK: SHIPPED_NETWORK}
    if model is not None:
        opened = open_model(model, device, subfolder, dtype, reference=reference)
        kind = method_of(opened)
        pipes[kind] = opened
        names[kind] = model_name(model, subfolder)
        if method in (PRIOR, NETWORK) and method != kind:
            raise InputError(
                f"--model {model} is for the method {kind}, not {method}: leave --method out"
            )
        if method in BASELINES and not compare:
            raise InputError(f"{method} does not use --model: leave it out, or give --compare")
        method = method or kind
    method = method or PRIOR
    if PRIOR not in pipes and (method == PRIOR or compare):
        pipes[PRIOR] = open_prior(None, device, dtype=dtype)
    if NETWORK not in pipes and (method == NETWORK or compare):
        pipes[NETWORK] = open_network(device, dtype)
    return method, pipes, names


def _opened(load: Callable[..., Any], device: str | None, dtype: str) -> Any:
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}: expected one of {', '.join(DTYPES)}")
    import diffusers.utils.logging
    import torch
    import transformers.utils.logging

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(
            f"the device {device!r} cannot be used ({reason}): use cpu or leave --device out"
        ) from error
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    pipe = load(device=device, dtype=getattr(torch, dtype))
    pipe.set_progress_bar_config(leave=False, dynamic_ncols=True)
    return pipe


def method_of(pipe: Any) -> str:
    """Return the method that a pipeline implements.

    Raises:
        InputError: If it is a task pipeline.
    """
    from ctxrecon.pipelines import JointPipeline, TaskPipeline
    from ctxrecon.pipelines.text_network import TextNetworkPipeline

    if isinstance(pipe, TaskPipeline):
        raise InputError("this model performs a task instead of reconstruction: use ctxrecon task")
    if isinstance(pipe, JointPipeline):
        return JOINT
    return NETWORK if isinstance(pipe, TextNetworkPipeline) else PRIOR


def check_prior_run(pipe: ContextMRIPipeline, run: PriorRun, num_slices: int) -> None:
    """Validate what the pipeline would reject, before coil maps are estimated."""
    from ctxrecon.inference.noise import check_noise
    from ctxrecon.inference.warm_start import check_warm_start, choose_solver

    solver, image = choose_solver(run.solver, run.call.get("image"), run.samples)
    check_noise(run.call.get("noise_std"), num_slices, solver, image)
    check_warm_start(image, run.call.get("strength"), solver)
    pipe.check_inputs(
        num_slices,
        prompt=run.prompts,
        guidance_scale=run.guidance_scale,
        num_inference_steps=run.steps,
        num_samples=run.samples,
    )
    if run.prompts is not None:
        pipe.encode_prompt(run.prompts)


def _at_once(pipe: Any, batch_size: int | None) -> int | None:
    """Return the batch size: 1 by default on a CPU, where larger batches are no faster."""
    return 1 if batch_size is None and pipe.device.type == "cpu" else batch_size


def run_prior(pipe: ContextMRIPipeline, run: PriorRun, measurement: Measurement) -> Result:
    """Compute a point estimate, one posterior sample, or the mean of several samples."""
    import torch

    from ctxrecon.inference.warm_start import choose_solver

    call = dict(run.call)
    solver, start = choose_solver(run.solver, call.get("image"), run.samples)
    generator = torch.Generator().manual_seed(run.seed)
    for _ in range(run.first * run.samples):  # the pipeline's draws for the preceding slices
        torch.randint(2**62, (), generator=generator)
    started = time.perf_counter()
    if run.network is not None and start == NETWORK:
        call["image"] = run.network(measurement).images
    output: ReconstructionOutput[Tensor] = pipe(
        measurement,
        prompt=run.prompts if run.uses_prompt else None,
        guidance_scale=run.guidance_scale,
        num_inference_steps=run.steps,
        solver=run.solver,
        generator=generator,
        num_samples=run.samples,
        batch_size=None if solver.couples_batch else _at_once(pipe, run.batch_size),
        **call,
    )
    seconds = time.perf_counter() - started
    words = [_solver_title(solver, start), run.prior]
    if not run.uses_prompt:
        words.append("without prompt")
    if not solver.deterministic:
        words.append("one sample" if run.samples == 1 else f"mean of {run.samples}")
    return Result(
        name=", ".join(words),
        key="prior",
        images=output.images.cpu(),
        residual=output.residual.cpu(),
        seconds=seconds,
        std=None if output.std is None else output.std.cpu(),
        samples=None if output.samples is None else output.samples.cpu(),
    )


def _solver_title(solver: DiffusionSolver, start: Any) -> str:
    """Return a solver's title with its starting point, such as ``DDS from PnP-ADMM``."""
    from ctxrecon.baselines import BASELINES as KNOWN
    from ctxrecon.solvers import SOLVERS

    name = SOLVERS.name_of(type(solver))
    title = solver.name if name is None else SOLVERS.title(name)
    if not isinstance(start, str):
        return title
    known = next((kind.title(start) for kind in (KNOWN, SOLVERS) if start in kind), start)
    return f"{title} from {known}"


def first_sample(result: Result, measurement: Measurement) -> Result:
    """Return the first posterior sample as a result; its residual is NaN for combined sets."""
    import torch

    from ctxrecon.operators import SoftSense
    from ctxrecon.output import relative_residual

    assert result.samples is not None
    images, operator = result.samples[:, 0], measurement.operator
    if isinstance(operator, SoftSense):
        residual = torch.full((len(images),), float("nan"))
    else:
        residual = relative_residual(operator(images), measurement.y)
    return Result(
        name=result.name.rsplit(",", 1)[0] + ", one sample",
        key="one-sample",
        images=images,
        residual=residual,
        seconds=None,
    )


def run_network(
    pipe: ReconstructionPipeline | CrossModalPipeline,
    prompts: list[str] | None,
    measurement: Measurement,
    name: str = SHIPPED_NETWORK,
    batch_size: int | None = None,
    reference: Tensor | None = None,
) -> Result:
    """Reconstruct with a network, with its expected error if it predicts one.

    The ``reference`` of another contrast has the shape ``(batch, ny, nx)``.
    """
    call: dict[str, Any] = {} if reference is None else {"reference": reference}
    started = time.perf_counter()
    output = pipe(
        measurement,
        prompt=prompts,
        batch_size=_at_once(pipe, batch_size),
        **call,
    )
    images = output.images.cpu()
    seconds = time.perf_counter() - started
    return Result(
        name=f"{type(pipe.reconstructor).__name__}, {name}",
        key="network",
        images=images,
        residual=output.residual.cpu(),
        seconds=seconds,
        std=None if output.expected_error is None else output.expected_error.cpu(),
    )


def run_baseline(method: str, measurement: Measurement) -> Result:
    """Reconstruct with a baseline without a learned prior, with its default weights."""
    from ctxrecon.baselines import BASELINES as KNOWN
    from ctxrecon.pipelines import BaselinePipeline

    pipe = BaselinePipeline(BASELINES[method])
    pipe.set_progress_bar_config(disable=True)  # the command shows the slices
    started = time.perf_counter()
    output = pipe(measurement)
    seconds = time.perf_counter() - started
    return Result(KNOWN.title(method), method, output.images, output.residual, seconds)
