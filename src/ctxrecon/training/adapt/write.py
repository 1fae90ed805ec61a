"""An adapted prior as a folder that any pipeline loads, with a card that says what it is."""

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
    """Write the prior with its model card, whole or not at all; what is there is replaced.

    The card holds counts and scores, and nothing of the scans themselves: neither their files'
    names nor their prompts.

    Args:
        adaptation: from :func:`ctxrecon.training.adapt.adapt_prior`.
        folder: to write.
        base: name of the prior that was adapted.

    Raises:
        InputError: it cannot be written.
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
        except BaseException:  # an interrupt too leaves nothing
            shutil.rmtree(beside, ignore_errors=True)
            raise


def adapted_card(adaptation: Adaptation, base: str) -> str:
    """The model card, in Markdown."""
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

Relative error of samples that a reconstruction was not given, their noise included:

| held out | before | after |
| --- | --- | --- |
{chr(10).join(rows)}

System: {platform.system()}, ctxrecon {__version__}, torch {torch.__version__}.
"""


def summary(adaptation: Adaptation, base: str) -> str:
    """What was done and what it gave, in a few sentences."""
    scores = adaptation.scores
    before, after = (sum(each) / len(each) for each in (scores.before, scores.after))
    undersampled = adaptation.slices - adaptation.fully_sampled
    scans = f"{adaptation.scans} scan{'s' * (adaptation.scans != 1)}"
    learned = (
        f"Made from {base} with {scans}: {adaptation.fully_sampled} fully sampled and "
        f"{undersampled} undersampled slices were learned from in {adaptation.steps} steps, "
        f"{adaptation.held_out} held out."
    )
    errors = (
        f"Error of hidden samples: {before:.4f} before, {after:.4f} adapted ({scores.gain:+.2f} dB)"
    )
    if not adaptation.adapted:
        return f"{learned}\n{errors}: no better, so the prior is kept as it was."
    part = (
        ""
        if adaptation.share == 1
        else f", with {adaptation.share:.0%} of the change of its weights"
    )
    return f"{learned}\n{errors}{part}."
