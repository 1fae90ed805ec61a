"""Prompts: validation and tokens for the text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.metadata import canonical_prompt, parse_prompt
from ctxrecon.priors.tokenizer import check_prompt_length


def prompt_tokens(tokenizer: Any, text_encoder: Any, prompts: Sequence[str]) -> Tensor:
    """Tokenize prompts, in the wording used in training, as ``(prompts, length)``.

    Raises:
        InputError: If a prompt exceeds the tokenizer's limit.
    """
    texts = [canonical_prompt(text) if text.strip() else "" for text in prompts]
    check_prompt_length(tokenizer, texts)
    return tokenizer(
        texts,
        padding="max_length",
        max_length=text_encoder.config.max_position_embeddings,
        return_tensors="pt",
    ).input_ids


def check_prompts(prompt: str | list[str] | None, num_slices: int) -> list[str] | None:
    """Return one prompt per slice, or ``None``.

    Raises:
        InputError: If the numbers of prompts and slices differ, a prompt is not a string, or
            :func:`ctxrecon.metadata.parse_prompt` fails.
    """
    if prompt is None:
        return None
    if isinstance(prompt, str):
        parse_prompt(prompt)
        return [prompt] * num_slices
    if not isinstance(prompt, list | tuple):
        raise InputError(
            f"expected the prompt as a string or a list of strings, got {type(prompt).__name__}"
        )
    if len(prompt) != num_slices:
        raise InputError(
            f"expected one prompt or one for each of the {num_slices} slices, got {len(prompt)}"
        )
    wrong = [type(text).__name__ for text in prompt if not isinstance(text, str)]
    if wrong:
        advice = ": use its to_prompt()" if wrong[0] == "ScanMetadata" else ""
        raise InputError(f"expected each prompt as a string, got {wrong[0]}{advice}")
    for text in dict.fromkeys(prompt):
        parse_prompt(text)
    return list(prompt)


def check_text_width(width: int | None, text_encoder: Any, tokenizer: Any) -> None:
    """Validate that the text encoder matches the network that reads its embeddings.

    Raises:
        InputError: If the network reads prompts and there is no text encoder of its width.
    """
    if width is None:
        return
    given = None if text_encoder is None else text_encoder.config.hidden_size
    if given != width or tokenizer is None:
        raise InputError(
            f"the network reads prompt embeddings of width {width}, the text encoder returns "
            f"{given}: pass the text encoder and tokenizer that it was trained with"
        )
