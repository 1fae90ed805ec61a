"""The model card that is written beside trained weights."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ctxrecon.priors.tokenizer import forget_padding
from ctxrecon.training.folders import folder_beside
from ctxrecon.training.log import read_lines
from ctxrecon.training.run_folder import CONFIG, LOGS, read_config

_SHOWN = (
    "network",
    "sampler",
    "contrasts",
    "pretrained_model_name_or_path",
    "text_encoder",
    "bank",
    "train_data_dir",
    "resolution",
    "masks",
    "accelerations",
    "acceleration",
    "center_fraction",
    "num_coils",
    "aim",
    "labels",
    "scans",
    "labelled",
    "loss",
    "adversarial",
    "train_batch_size",
    "num_processes",
    "gradient_accumulation_steps",
    "learning_rate",
    "sampler_learning_rate",
    "lr_scheduler",
    "max_train_steps",
    "mixed_precision",
    "ema_decay",
    "seed",
)


def model_card(run: Path, argv: Sequence[str], about: str, tags: Sequence[str]) -> str:
    """Markdown that says how to make these weights again: data, options, hardware and curve.

    Args:
        run: folder of the run, with its ``config.json`` and ``log.jsonl``.
        argv: the command as it was given; that of ``config.json`` goes before it, since a finished
            run may have been started again by another.
        about: a title, and in a sentence how it is loaded.
        tags: what a hub finds it by.
    """
    stages = read_config(run / CONFIG)
    rows = []
    for start, options in stages.items():
        shown = ", ".join(f"{name} {options[name]}" for name in _SHOWN if options.get(name))
        rows.append(f"| {start} | {shown} |")
    curve = read_lines(run / LOGS[0])
    every = max(1, len(curve) // 10)
    losses = [f"| {line['step']} | {line['loss']:.4g} |" for line in curve[::-every][::-1]]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    argv = list(stages.values())[-1].get("command", argv) if stages else argv
    name = Path(argv[0]).name
    return f"""\
---
library_name: diffusers
pipeline_tag: image-to-image
tags: [{", ".join(tags)}]
---

{about}
Safetensors only. Not a clinical device.

Last command: `accelerate launch {shlex.join([f"training/{name}", *argv[1:]])}`

GPU: {gpu}; system: {platform.system()}, torch {torch.__version__}.

| stage | options |
| --- | --- |
{chr(10).join(rows)}

| step | training loss |
| --- | --- |
{chr(10).join(losses)}
"""


def write_pipeline(pipe: Any, folder: Path, card: str) -> None:
    """Write a diffusers pipeline with its model card, whole or not at all."""
    forget_padding(getattr(pipe, "tokenizer", None))
    with folder_beside(folder) as beside:
        pipe.save_pretrained(beside, safe_serialization=True)
        # A command line need not be text.
        (beside / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")
