"""Small CLIP tokenizer for prompts with scan metadata, and a check of the prompt length."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctxrecon.errors import InputError
from ctxrecon.metadata import ScanMetadata
from ctxrecon.metadata.vocabulary import ANATOMIES, CONTRASTS, SEQUENCES
from ctxrecon.phantom.protocols import pathology_counts, protocol_counts

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

MODEL_MAX_LENGTH = 77
"""Maximum number of tokens of CLIP's text encoder, including start and end token."""

_MAX_MERGES = 480  # with 512 characters and 2 special tokens below 1,000 in total
_WORD_END = "</w>"
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer() -> CLIPTokenizer:
    """Build a stock ``CLIPTokenizer`` with a vocabulary for prompts with scan metadata.

    Byte-pair encoding as in CLIP (Radford et al., arXiv:2103.00020). All 256 bytes, inside and at
    the end of a word, are tokens, so that no text is unknown; digits stay single; words of the
    prompts of :mod:`ctxrecon.phantom.protocols` become one or very few tokens. The vocabulary is
    learned deterministically from these prompts and has fewer than 1,000 tokens, compared with
    49,408 of CLIP.

    Example:
        >>> from ctxrecon.priors import build_tokenizer
        >>> tokenizer = build_tokenizer()
        >>> tokenizer.model_max_length
        77
    """
    from transformers import CLIPTokenizer

    vocabulary, merges = _learn_vocabulary()
    # Every version of transformers can build the class from files.
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
        (root / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MODEL_MAX_LENGTH}
        (root / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(root)


@lru_cache(maxsize=1)
def _learn_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    from tokenizers.pre_tokenizers import ByteLevel

    merges = learn_merges(word_counts(_corpus()), _MAX_MERGES)
    characters = sorted(ByteLevel.alphabet())
    tokens = [*characters, *(character + _WORD_END for character in characters)]
    tokens += [left + right for left, right in merges]
    # Last, as in CLIP, whose text model finds the end of a prompt by its largest id.
    tokens += [_BOS, _EOS]
    return {token: index for index, token in enumerate(tokens)}, merges


def _corpus() -> Iterator[tuple[str, int]]:
    """Yield texts in both published prompt formats, with the frequency of each."""
    for protocol, count in protocol_counts().items():
        yield protocol.to_prompt(), count
    for anatomy in ("brain", "knee"):
        for label, count in pathology_counts(anatomy).items():
            yield ScanMetadata(pathologies=(label,), slice=0).to_prompt(), count
    skm_tea = ScanMetadata(
        anatomy="knee", slice=0, sequence="Qdess", age=48, sex="F", flip_angle=20
    )
    yield skm_tea.to_prompt("skm-tea"), 100
    for words in (ANATOMIES, CONTRASTS, SEQUENCES):
        for word, others in words.items():
            yield " ".join((word, *others)), 1


def word_counts(texts: Iterable[tuple[str, int]]) -> Counter[str]:
    """Count the words of weighted texts; digits and punctuation are single tokens in any case."""
    counts: Counter[str] = Counter()
    for text, count in texts:
        for word in re.findall(r"[a-z]+", text.lower()):
            counts[word] += count
    return counts


def learn_merges(words: Counter[str], max_merges: int) -> list[tuple[str, str]]:
    """Learn byte-pair encoding by repeatedly merging the most frequent pair of neighbors.

    Args:
        words: Counts of words of ASCII letters.
        max_merges: Maximum number of merges; fewer if every word is one token.

    Returns:
        The merged pairs in order; ties are broken alphabetically.
    """
    splits = {word: [*word[:-1], word[-1] + _WORD_END] for word in sorted(words) if word}
    merges: list[tuple[str, str]] = []
    while len(merges) < max_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in splits.items():
            for pair in pairwise(symbols):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word, symbols in splits.items():
            splits[word] = _merge(symbols, best)
    return merges


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def forget_padding(tokenizer: Any) -> None:
    """Reset padding and truncation, which calls leave in a tokenizer and which would be saved."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_padding()
        backend.no_truncation()


def count_tokens(tokenizer: Any, prompt: str) -> int:
    """Return the number of tokens of ``prompt``, including start and end token."""
    return len(tokenizer(prompt, truncation=False, verbose=False)["input_ids"])


def shorten_prompt(tokenizer: Any, prompt: str) -> str:
    """Return a prompt without the last parts that the tokenizer would truncate.

    Args:
        tokenizer: Tokenizer of the text encoder; its ``model_max_length`` is the limit.
        prompt: Prompt of parts separated by commas.

    Example:
        >>> from ctxrecon.priors import build_tokenizer, shorten_prompt
        >>> tokenizer = build_tokenizer()
        >>> shorten_prompt(tokenizer, "Knee, PD, " + ", ".join("1" * 30 for _ in range(4)))
        'Knee, PD, 111111111111111111111111111111, 111111111111111111111111111111'
    """
    parts = prompt.split(", ")
    while parts and count_tokens(tokenizer, ", ".join(parts)) > tokenizer.model_max_length:
        parts.pop()
    return ", ".join(parts)


def check_prompt_length(tokenizer: Any, prompts: str | Sequence[str]) -> None:
    """Validate that the tokenizer would not truncate a prompt.

    Args:
        tokenizer: Tokenizer of the text encoder; its ``model_max_length`` is the limit.
        prompts: One prompt or several.

    Raises:
        InputError: If a prompt is too long, with its number of tokens, the limit and the parts
            that would be cut off.
    """
    limit = tokenizer.model_max_length
    for prompt in [prompts] if isinstance(prompts, str) else prompts:
        count = count_tokens(tokenizer, prompt)
        if count <= limit:
            continue
        cut = prompt[len(shorten_prompt(tokenizer, prompt)) :].removeprefix(", ")
        raise InputError(
            f"expected a prompt of at most {limit} tokens, got {count}: {cut!r} would be cut off; "
            "shorten the prompt, for example by leaving out pathologies"
        )
