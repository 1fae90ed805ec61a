"""Metadata dropout: what makes one network conditional, unconditional and in between."""

from __future__ import annotations

from dataclasses import replace

import torch

from ctxrecon.metadata import ScanMetadata


def drop_metadata(
    metadata: ScanMetadata,
    generator: torch.Generator,
    *,
    parameters: float = 0.5,
    prompt: float = 0.1,
) -> str:
    """The training prompt of a slice, with the dropout of ContextMRI.

    Args:
        metadata: all that is known.
        generator: draws what is dropped.
        parameters: probability that the group {sequence, TR, TE, TI, flip angle, field strength}
            is left out.
        prompt: probability that the whole prompt is empty.
    """
    drop_prompt, drop_parameters = torch.rand(2, generator=generator).tolist()
    if drop_prompt < prompt:
        return ""
    if drop_parameters < parameters:
        metadata = replace(
            metadata,
            sequence=None,
            tr=None,
            te=None,
            ti=None,
            flip_angle=None,
            field_strength=None,
        )
    return metadata.to_prompt()
