"""Metadata dropout: what makes one network conditional, unconditional and in between."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from ctxrecon.metadata import ScanMetadata
from ctxrecon.metadata.scan_metadata import PromptForm

DEMOGRAPHICS = ("age", "sex")
MR_PARAMETERS = ("sequence", "tr", "te", "ti", "flip_angle", "field_strength")


def drop_metadata(
    metadata: ScanMetadata,
    generator: torch.Generator,
    *,
    parameters: float = 0.5,
    prompt: float = 0.1,
    field: float = 0.0,
    demographics: float = 0.5,
    form: PromptForm = "fastmri",
) -> str:
    """The training prompt of a slice, with the dropout of ContextMRI, and of single fields.

    Args:
        metadata: all that is known.
        generator: draws what is dropped.
        parameters: probability that the group {sequence, TR, TE, TI, flip angle, field strength}
            is left out.
        prompt: probability that the whole prompt is empty.
        field: probability, for each field alone, that it is left out, as users may leave any.
        demographics: probability that the group {age, sex} is left out.
        form: see :meth:`ScanMetadata.to_prompt`.
    """
    drop_prompt, drop_parameters = torch.rand(2, generator=generator).tolist()
    if drop_prompt < prompt:
        return ""
    missing = _drawn_fields(field, generator) if field else []
    if drop_parameters < parameters:
        missing += MR_PARAMETERS
    missing += _drawn_demographics(metadata, demographics, generator)
    return without(metadata, *missing).to_prompt(form)


def _drawn_fields(share: float, generator: torch.Generator) -> list[str]:
    """Fields of the metadata, each with this probability."""
    names = [item.name for item in fields(ScanMetadata)]
    draws = torch.rand(len(names), generator=generator).tolist()
    return [name for name, draw in zip(names, draws, strict=True) if draw < share]


def _drawn_demographics(
    metadata: ScanMetadata, share: float, generator: torch.Generator
) -> tuple[str, ...]:
    """Age and sex with this probability, where either is known; else nothing is drawn."""
    if metadata.age is None and metadata.sex is None:
        return ()
    return DEMOGRAPHICS if torch.rand(1, generator=generator).item() < share else ()


def without(metadata: ScanMetadata, *names: str) -> ScanMetadata:
    """The metadata with these fields unknown."""
    unknown: dict[str, Any] = {name: () if name == "pathologies" else None for name in names}
    return replace(metadata, **unknown)


def vary_metadata(
    metadata: ScanMetadata,
    generator: torch.Generator,
    *,
    parameters: float = 0.2,
    field: float = 0.15,
    order: float = 0.3,
    demographics: float = 0.5,
) -> tuple[str, ScanMetadata]:
    """A prompt as users write it: fields missing here and there, sometimes in another order.

    Args:
        metadata: all that is known.
        generator: draws everything.
        parameters: probability that all MR parameters are left out.
        field: probability, for each field alone, that it is left out.
        order: probability that the parts come in random order.
        demographics: probability that age and sex are left out.

    Returns:
        The prompt, and the metadata that it still tells.
    """
    drop_parameters, reorder = torch.rand(2, generator=generator).tolist()
    missing = _drawn_fields(field, generator)
    if drop_parameters < parameters:
        missing += MR_PARAMETERS
    missing += _drawn_demographics(metadata, demographics, generator)
    told = without(metadata, *missing)
    return shuffle_parts(told, generator) if reorder < order else told.to_prompt(), told


def shuffle_parts(metadata: ScanMetadata, generator: torch.Generator) -> str:
    """The prompt with its parts in random order; findings stay together."""
    findings = ScanMetadata(pathologies=metadata.pathologies).to_prompt()
    rest = replace(metadata, pathologies=()).to_prompt()
    parts = [part for part in [*rest.split(", "), findings] if part]
    chosen = torch.randperm(len(parts), generator=generator).tolist()
    return ", ".join(parts[index] for index in chosen)
