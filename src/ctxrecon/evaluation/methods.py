"""Baselines, diffusion solvers and networks as methods of a grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.evaluation.grid import Batch, Method, Reconstruction
from ctxrecon.evaluation.scans import ScanFile
from ctxrecon.inference.warm_start import check_warm_start
from ctxrecon.options import split_options
from ctxrecon.output import ReconstructionOutput
from ctxrecon.pipelines import BaselinePipeline, ContextMRIPipeline, ReconstructionPipeline
from ctxrecon.priors.tokenizer import check_prompt_length
from ctxrecon.solvers import SOLVERS, DiffusionSolver, make_solver

METADATA, NO_PROMPT = "metadata", "none"
PROMPTS = (METADATA, NO_PROMPT)
_CALL_OPTIONS = ("image", "strength", "timesteps")


def baseline_method(name: str, key: str) -> Method:
    """Return a baseline with its default weights as a method.

    Args:
        name: Name in rows and tables.
        key: Key of :data:`ctxrecon.baselines.BASELINES`.

    Example:
        >>> from ctxrecon.evaluation import baseline_method
        >>> baseline_method("tv", "total_variation").title
        'tv'
    """
    pipeline = BaselinePipeline(key)
    pipeline.set_progress_bar_config(disable=True)

    def run(batch: Batch) -> Reconstruction:
        output = pipeline(batch.measurement)
        return Reconstruction(output.images.cpu(), output.residual.cpu())

    return Method(name, run)


def solver_and_call(text: str) -> tuple[DiffusionSolver, dict[str, Any]]:
    """Parse a solver with its own options, and the options of the pipeline.

    Args:
        text: Solver with options, such as ``"dds:eta=0.5:image=l1_wavelet:strength=0.3"``.

    Returns:
        The solver, and keyword arguments for the pipeline.

    Raises:
        InputError: If the solver is unknown, or neither the solver nor the pipeline has an option.

    Example:
        >>> from ctxrecon.evaluation import solver_and_call
        >>> solver, call = solver_and_call("dds:eta=0.5:image=l1_wavelet:strength=0.3")
        >>> solver.eta, call
        (0.5, {'image': 'l1_wavelet', 'strength': 0.3})
    """
    name, options = split_options(text)
    keys = [pair.partition("=")[0] for pair in text.split(":")[1:]]
    if len(set(keys)) < len(keys):
        raise InputError(f"{text} contains an option twice: leave one out")
    call = {key: options.pop(key) for key in _CALL_OPTIONS if key in options}
    _check_value(text, "strength", call.get("strength", 1.0), 1.0)
    for key in ("image", "timesteps"):
        if not isinstance(call.get(key, ""), str):
            raise InputError(f"expected {key} as a word in {text}, got {call[key]}")
    if options.get("noise_std") == "auto":
        call["noise_std"] = options.pop("noise_std")
    chosen = SOLVERS.get(name.lower())
    for option in () if chosen is None else fields(chosen):
        if option.name in options:
            _check_value(text, option.name, options[option.name], option.default)
    return make_solver(name, **options), call


def _check_value(text: str, key: str, value: Any, default: Any) -> None:
    """Validate that a value has the type of an option's default; ``None`` is for whole numbers.

    Raises:
        InputError: If the type differs; the message names the option.
    """
    if isinstance(default, bool):
        fits, kind = isinstance(value, bool), "true or false"
    elif default is None or isinstance(default, int):
        fits, kind = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    else:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits, kind = fits and math.isfinite(value), "a number"
    if not fits:
        raise InputError(f"expected {key} as {kind} in {text}, got {value}")


def solver_methods(
    name: str,
    solver: DiffusionSolver,
    pipe: ContextMRIPipeline,
    *,
    prompts: Sequence[str],
    guidance_scale: float,
    steps: Sequence[int],
    samples: int,
    batch_size: int,
    call: Mapping[str, Any] = MappingProxyType({}),
) -> list[Method]:
    """Return a solver as methods with every prompt and number of steps, from the same noise.

    Args:
        name: Name in rows and tables.
        solver: Solver for the pipeline.
        pipe: Pipeline of the prior.
        prompts: ``"metadata"`` (the scan's own prompt) and ``"none"`` (γ = 0).
        guidance_scale: Guidance scale γ with a prompt.
        steps: Numbers of diffusion steps.
        samples: Number of posterior samples, whose mean is evaluated.
        batch_size: Number of images denoised at once.
        call: Further arguments of the pipeline, such as ``image`` and ``strength``.

    Raises:
        InputError: If a prompt is neither of the two, γ is 0 with a prompt, or the pipeline
            rejects an argument.
    """
    for prompt in prompts:
        if prompt not in PROMPTS:
            raise InputError(f"unknown prompt {prompt!r}: expected {' or '.join(PROMPTS)}")
    if METADATA in prompts and guidance_scale == 0:
        raise InputError(
            "guidance scale 0 ignores the prompt: give another scale, or only the prompt 'none'"
        )
    check_warm_start(call.get("image"), call.get("strength"), solver)
    for count in steps:
        pipe.check_inputs(
            1,
            guidance_scale=guidance_scale,
            num_inference_steps=count,
            num_samples=samples,
            batch_size=batch_size,
        )

    def method(prompt: str, count: int) -> Method:
        guided = prompt == METADATA

        def run(batch: Batch) -> Reconstruction:
            with _counted(pipe.unet) as images:
                output: ReconstructionOutput[Tensor] = pipe(
                    batch.measurement,
                    prompt=batch.prompts if guided else None,
                    guidance_scale=guidance_scale if guided else 0.0,
                    num_inference_steps=count,
                    solver=solver,
                    generator=[torch.Generator().manual_seed(seed) for seed in batch.seeds],
                    num_samples=samples,
                    batch_size=batch_size,
                    **call,
                )
            evaluations = sum(images) / len(batch.measurement)
            return Reconstruction(output.images.cpu(), output.residual.cpu(), evaluations)

        return Method(name, run, prompt, count)

    return [method(prompt, count) for prompt in prompts for count in steps]


def network_method(name: str, pipe: ReconstructionPipeline) -> Method:
    """Return a direct reconstruction network as a method.

    Args:
        name: Name in rows and tables.
        pipe: Pipeline of the network; one that reads prompts receives those of the scan.
    """
    reads = pipe.reconstructor.text_width is not None

    def run(batch: Batch) -> Reconstruction:
        output = pipe(
            batch.measurement,
            prompt=batch.prompts if reads else None,
        )
        return Reconstruction(output.images.cpu(), output.residual.cpu(), 1)

    return Method(name, run, METADATA if reads else "")


def check_prompts(
    pipe: ContextMRIPipeline | ReconstructionPipeline, scans: Sequence[ScanFile]
) -> None:
    """Validate that the metadata of scans can serve as prompts.

    Raises:
        InputError: If a scan has no metadata, or a prompt that the tokenizer would truncate.
    """
    for scan in scans:
        if scan.prompt is None:
            raise InputError(
                f"{scan.path} has no metadata, so there is no prompt {METADATA!r}: "
                f"leave it out, or use only the prompt {NO_PROMPT!r}"
            )
        check_prompt_length(pipe.tokenizer, [scan.prompt])


@contextmanager
def _counted(network: torch.nn.Module) -> Iterator[list[int]]:
    """Record the number of images in each network call; guidance doubles it.

    Calls are counted because a solver may evaluate the network several times per step.
    """
    images: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    try:
        yield images
    finally:
        handle.remove()
