"""Output of an adapted prior as a folder with a model card."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import torch
from torch import nn

from ctxrecon import __version__
from ctxrecon.priors.tokenizer import forget_padding
from ctxrecon.training.adapt.run import Adaptation
from ctxrecon.training.folders import folder_beside
from ctxrecon.training.trained import with_weights


def save_adapted(adaptation: Adaptation, folder: Path, *, base: str) -> None:
    """Write the prior with its model card atomically; an existing folder is replaced.

    The card contains counts and scores but no information about the scans themselves, such as file
    names or prompts.

    Args:
        adaptation: Result of :func:`ctxrecon.training.adapt.adapt_prior`.
        folder: Output folder.
        base: Name of the prior that was adapted.

    Raises:
        InputError: If the folder cannot be written.
    """
    pipe = with_weights(adaptation.pipe, {}).to("cpu")
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.half()
    forget_padding(pipe.tokenizer)
    with folder_beside(folder) as beside:
        try:
            pipe.save_pretrained(beside, safe_serialization=True)
            (beside / "README.md").write_text(adapted_card(adaptation, base), encoding="utf-8")
        except BaseException:  # leave nothing behind after an interrupt either
            shutil.rmtree(beside, ignore_errors=True)
            raise


def adapted_card(adaptation: Adaptation, base: str) -> str:
    """Return the model card in Markdown."""
    scores = adaptation.scores
    rows = [
        f"| {number} | {before:.4f} | {after:.4f} |"
        for number, (before, after) in enumerate(zip(scores.before, scores.after, strict=True), 1)
    ]
    return f"""\
---
library_name: diffusers
pipeline_tag: image-to-image
license: other
license_name: that-of-the-training-data
tags: [MRI, reconstruction, diffusion, k-space]
---

# A metadata-prompted diffusion prior for one scanner

Load it with `ctxrecon.pipelines.load_prior(folder)`. Safetensors only, in half precision. Not a
clinical device.

{summary(adaptation, base)}

Relative error of hidden samples, including their noise:

| held out | before | after |
| --- | --- | --- |
{chr(10).join(rows)}

System: {platform.system()}, ctxrecon {__version__}, torch {torch.__version__}.
"""


def summary(adaptation: Adaptation, base: str) -> str:
    """Summarize the adaptation and its result in a few sentences."""
    scores = adaptation.scores
    before, after = (sum(each) / len(each) for each in (scores.before, scores.after))
    undersampled = adaptation.slices - adaptation.fully_sampled
    scans = f"{adaptation.scans} scan{'s' * (adaptation.scans != 1)}"
    learned = (
        f"Adapted from {base} to {scans}: trained on {adaptation.fully_sampled} fully sampled and "
        f"{undersampled} undersampled slices in {adaptation.steps} steps, "
        f"{adaptation.held_out} held out."
    )
    errors = (
        f"Error of hidden samples: {before:.4f} before, {after:.4f} adapted ({scores.gain:+.2f} dB)"
    )
    if not adaptation.adapted:
        return f"{learned}\n{errors}: no improvement, so the original prior is kept."
    part = "" if adaptation.share == 1 else f", with {adaptation.share:.0%} of the weight change"
    text = f"{learned}\n{errors}{part}."
    if adaptation.unseen:
        return text
    return (
        f"{text}\nThese samples are of the only slice and do not show how good the prior is on "
        "other scans: test it there, or adapt to more slices."
    )
