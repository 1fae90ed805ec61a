"""Metadata dropout, which makes one network work with full, partial and empty prompts."""

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
    """Return the training prompt of a slice, with ContextMRI's dropout and that of single fields.

    Args:
        metadata: Complete metadata.
        generator: Source of randomness.
        parameters: Probability that the group {sequence, TR, TE, TI, flip angle, field strength}
            is dropped.
        prompt: Probability that the whole prompt is empty.
        field: Probability that each single field is dropped, since users may omit any.
        demographics: Probability that the group {age, sex} is dropped.
        form: Form of the prompt, see :meth:`ScanMetadata.to_prompt`.

    Example:
        >>> import torch
        >>> from ctxrecon.metadata import ScanMetadata
        >>> from ctxrecon.training import drop_metadata
        >>> metadata = ScanMetadata(anatomy="knee", contrast="PD", tr=3150)
        >>> drop_metadata(metadata, torch.Generator(), parameters=1, prompt=0)
        'knee, PD'
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
    """Draw fields of the metadata, each with the given probability."""
    names = [item.name for item in fields(ScanMetadata)]
    draws = torch.rand(len(names), generator=generator).tolist()
    return [name for name, draw in zip(names, draws, strict=True) if draw < share]


def _drawn_demographics(
    metadata: ScanMetadata, share: float, generator: torch.Generator
) -> tuple[str, ...]:
    """Return age and sex with the given probability if either is known; otherwise nothing."""
    if metadata.age is None and metadata.sex is None:
        return ()
    return DEMOGRAPHICS if torch.rand(1, generator=generator).item() < share else ()


def without(metadata: ScanMetadata, *names: str) -> ScanMetadata:
    """Return the metadata with the given fields unknown."""
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
    """Return a prompt as users write it: incomplete, and sometimes in another order.

    Args:
        metadata: Complete metadata.
        generator: Source of randomness.
        parameters: Probability that all MR parameters are dropped.
        field: Probability that each single field is dropped.
        order: Probability that the parts are in random order.
        demographics: Probability that age and sex are dropped.

    Returns:
        The prompt, and the metadata that it contains.
    """
    drop_parameters, reorder = torch.rand(2, generator=generator).tolist()
    missing = _drawn_fields(field, generator)
    if drop_parameters < parameters:
        missing += MR_PARAMETERS
    missing += _drawn_demographics(metadata, demographics, generator)
    kept = without(metadata, *missing)
    return shuffle_parts(kept, generator) if reorder < order else kept.to_prompt(), kept


def shuffle_parts(metadata: ScanMetadata, generator: torch.Generator) -> str:
    """Return the prompt with its parts in random order; findings stay together."""
    findings = ScanMetadata(pathologies=metadata.pathologies).to_prompt()
    rest = replace(metadata, pathologies=()).to_prompt()
    parts = [part for part in [*rest.split(", "), findings] if part]
    chosen = torch.randperm(len(parts), generator=generator).tolist()
    return ", ".join(parts[index] for index in chosen)
