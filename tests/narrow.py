"""Type narrowing of values whose declared types are wider than in a test."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

from ctxrecon.output import ReconstructionOutput, TextToImageOutput

Value = TypeVar("Value")


def present(value: Value | None) -> Value:
    """The value, which is not ``None``."""
    assert value is not None
    return value


def tensor(value: object) -> Tensor:
    """The value, which is a tensor."""
    assert isinstance(value, Tensor), type(value)
    return value


def complete(output: object) -> ReconstructionOutput:
    """What a pipeline returned, which is no tuple."""
    assert isinstance(output, ReconstructionOutput), type(output)
    return output


def images_of(output: object) -> Tensor:
    """The images that a pipeline returned, as the tensor that they are by default."""
    assert isinstance(output, ReconstructionOutput | TextToImageOutput), type(output)
    return tensor(output.images)
