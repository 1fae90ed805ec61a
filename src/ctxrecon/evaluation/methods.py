"""Baselines and diffusion solvers as methods of a grid."""

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
from ctxrecon.evaluation.grid import Batch, Method, Reconstruction, ScanFile
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
    """A baseline with its default weights.

    Args:
        name: in rows and tables.
        key: of :data:`ctxrecon.baselines.BASELINES`.
    """
    pipeline = BaselinePipeline(key)

    def run(batch: Batch) -> Reconstruction:
        output = pipeline(batch.measurement)
        return Reconstruction(output.images.cpu(), output.residual.cpu())

    return Method(name, run)


def solver_and_call(text: str) -> tuple[DiffusionSolver, dict[str, Any]]:
    """A solver with its own options, and those that are the pipeline's.

    Args:
        text: such as ``"dds:eta=0.5:image=l1_wavelet:strength=0.3"``.

    Raises:
        InputError: an unknown solver, or an option that neither has.
    """
    name, options = split_options(text)
    keys = [pair.partition("=")[0] for pair in text.split(":")[1:]]
    if len(set(keys)) < len(keys):
        raise InputError(f"{text} gives an option twice: leave one out")
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
    """Refuse a value that is not of the kind of an option's default; ``None`` stands for counts.

    Raises:
        InputError: naming the option.
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
    """A solver with every prompt and number of steps, started from the same noise.

    Args:
        name: in rows and tables.
        solver: what the pipeline runs.
        pipe: the prior.
        prompts: ``"metadata"`` (those of the scan) and ``"none"`` (γ = 0).
        guidance_scale: γ with a prompt.
        steps: diffusion steps.
        samples: posterior samples, of which the mean is taken.
        batch_size: images denoised at once.
        call: further arguments of the pipeline, such as ``image`` and ``strength``.

    Raises:
        InputError: a prompt that is neither, γ = 0 with a prompt, or what the pipeline refuses.
    """
    for prompt in prompts:
        if prompt not in PROMPTS:
            raise InputError(f"unknown prompt {prompt!r}: expected {' or '.join(PROMPTS)}")
    if METADATA in prompts and guidance_scale == 0:
        raise InputError(
            "guidance scale 0 leaves the prompt out: give another, or take no prompt but 'none'"
        )
    check_warm_start(call.get("image"), call.get("strength", 1.0), solver)
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
    """A network that reconstructs directly.

    Args:
        name: in rows and tables.
        pipe: the network; one that reads prompts gets those of the scan.
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
    """Refuse scans whose metadata cannot serve as a prompt.

    Raises:
        InputError: a scan without metadata, or with a prompt that the tokenizer would cut short.
    """
    for scan in scans:
        if scan.prompt is None:
            raise InputError(
                f"{scan.path} says nothing about itself, so there is no prompt {METADATA!r}: "
                f"leave it out, or take only the prompt {NO_PROMPT!r}"
            )
        check_prompt_length(pipe.tokenizer, [scan.prompt])


@contextmanager
def _counted(network: torch.nn.Module) -> Iterator[list[int]]:
    """How many images the network sees at each call; guidance doubles them.

    Counted, because a solver may ask it several times a step.
    """
    images: list[int] = []
    handle = network.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    try:
        yield images
    finally:
        handle.remove()
