"""Metadata dropout: what makes one network conditional, unconditional and in between."""

from __future__ import annotations

from dataclasses import fields, replace

import torch

from ctxrecon.metadata import ScanMetadata

MR_PARAMETERS = ("sequence", "tr", "te", "ti", "flip_angle", "field_strength")


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
        metadata = without(metadata, *MR_PARAMETERS)
    return metadata.to_prompt()


def without(metadata: ScanMetadata, *names: str) -> ScanMetadata:
    """The metadata with these fields unknown."""
    return replace(metadata, **{name: () if name == "pathologies" else None for name in names})


def vary_metadata(
    metadata: ScanMetadata,
    generator: torch.Generator,
    *,
    parameters: float = 0.2,
    field: float = 0.15,
    order: float = 0.3,
) -> tuple[str, ScanMetadata]:
    """A prompt as users write it: fields missing here and there, sometimes in another order.

    Args:
        metadata: all that is known.
        generator: draws everything.
        parameters: probability that all MR parameters are left out.
        field: probability, for each field alone, that it is left out.
        order: probability that the parts come in random order.

    Returns:
        The prompt, and the metadata that it still tells.
    """
    draws = torch.rand(2 + len(fields(metadata)), generator=generator).tolist()
    known = [item.name for item in fields(metadata)]
    missing = [name for name, draw in zip(known, draws[2:], strict=True) if draw < field]
    if draws[0] < parameters:
        missing += MR_PARAMETERS
    told = without(metadata, *missing)
    prompt = told.to_prompt()
    if draws[1] < order:
        prompt = shuffle_parts(told, generator)
    return prompt, told


def shuffle_parts(metadata: ScanMetadata, generator: torch.Generator) -> str:
    """The prompt with its parts in random order; findings stay together."""
    findings = ScanMetadata(pathologies=metadata.pathologies).to_prompt()
    rest = replace(metadata, pathologies=()).to_prompt()
    parts = [part for part in [*rest.split(", "), findings] if part]
    chosen = torch.randperm(len(parts), generator=generator).tolist()
    return ", ".join(parts[index] for index in chosen)
