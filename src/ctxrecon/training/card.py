"""The model card that is written beside trained weights."""

from __future__ import annotations

import math
import platform
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ctxrecon import __version__
from ctxrecon.datasets import read_shard_info, shard_files
from ctxrecon.training.config import TrainingConfig, fields_of
from ctxrecon.training.log import read_lines
from ctxrecon.training.run_folder import CONFIG, LOGS, read_stages

_PHANTOM = "ctxrecon-phantom"
_LICENSE = "apache-2.0"
"""Of ctxrecon, and so of weights that learned from its phantom alone."""


@dataclass(frozen=True)
class About:
    """What a card says of every model of a kind.

    Attributes:
        title: the card's heading.
        text: in a sentence, how it is loaded.
        tags: what a hub finds it by.
    """

    title: str
    text: str
    tags: tuple[str, ...]


def model_card(config: TrainingConfig, argv: Sequence[str], about: About) -> str:
    """Markdown that says how to make these weights again: data, options, hardware and curve.

    Args:
        config: of the run, whose folder has ``config.json`` and ``log.jsonl``.
        argv: the command as it was given; that of ``config.json`` goes before it, since a finished
            run may have been started again by another.
        about: the kind of model.
    """
    run = config.output_dir
    stages = read_stages(run / CONFIG)
    known = fields_of(type(config)).items()
    names = [*(name for name, field in known if field.option.in_card), "num_processes"]
    rows = []
    for start, options in stages.items():
        shown = ", ".join(f"{name} {options[name]}" for name in names if options.get(name))
        rows.append(f"| {start} | {shown} |")
    curve = read_lines(run / LOGS[0])
    every = max(1, len(curve) // 10)
    losses = [f"| {line['step']} | {line['loss']:.4g} |" for line in curve[::-every][::-1]]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    argv = list(stages.values())[-1].get("command", argv) if stages else argv
    body = f"""\
# {about.title}

{about.text}
Safetensors only. Not a clinical device.

Last command: `{_typed(argv)}`

GPU: {gpu}; system: {platform.system()}, ctxrecon {__version__}, torch {torch.__version__}.

| stage | options |
| --- | --- |
{chr(10).join(rows)}

| step | training loss |
| --- | --- |
{chr(10).join(losses)}
{_origins(config)}"""
    return str(ModelCard(f"---\n{_metadata(config, about).to_yaml()}\n---\n\n{body}"))


def _folders(config: TrainingConfig) -> list[Path]:
    """The prepared sets of a run."""
    given: Any = getattr(config, "train_data_dir", None) or []
    return [given] if isinstance(given, Path) else given


def _origins(config: TrainingConfig) -> str:
    """Sources and licences of the images of prepared sets, as far as they are noted."""
    found = dict.fromkeys(
        origin
        for folder in _folders(config)
        for path in shard_files(folder)
        for origin in read_shard_info(path).origins
    )
    if not found:
        return ""
    lines = "\n".join(f"- {origin}" for origin in found)
    return f"\nImages that it was trained on are of\n\n{lines}\n"


def _typed(argv: Sequence[str]) -> str:
    """The command that a process was started by, as it may be typed."""
    program = Path(argv[0])
    words = [program.name]
    if program.name == "__main__.py":
        words = ["accelerate", "launch", "-m", f"ctxrecon.training.{program.parent.name}"]
    elif program.suffix == ".py":
        words = ["accelerate", "launch", f"training/{program.name}"]
    return shlex.join([*words, *argv[1:]])


def _metadata(config: TrainingConfig, about: About) -> ModelCardData:
    """What a hub reads: licence, data and the scores of the last validation."""
    folders = _folders(config)
    data = [re.sub(r"[^\w.-]+", "-", folder.absolute().name) for folder in folders]
    if getattr(config, "bank", None):
        data.insert(0, _PHANTOM)
    free = not folders and not getattr(config, "pretrained_model_name_or_path", None)
    terms: dict[str, Any] = {"license": _LICENSE}
    if not free:
        terms = {"license": "other", "license_name": "that-of-the-training-data"}
    results = _results(config.output_dir)
    return ModelCardData(
        library_name="diffusers",
        pipeline_tag="image-to-image",
        tags=list(about.tags),
        datasets=data or None,
        model_name=about.title if results else None,
        eval_results=results or None,
        **terms,
    )


def _results(run: Path) -> list[EvalResult]:
    """The scores of the last validation, if there is one."""
    lines = read_lines(run / LOGS[1])
    if not lines:
        return []
    step = lines[-1]["step"]
    return [
        EvalResult(
            task_type="image-to-image",
            task_name="MRI reconstruction",
            dataset_type=_PHANTOM,
            dataset_name=f"held-out phantom scans, at step {step}",
            metric_type=name,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for name, value in lines[-1].items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    ]
