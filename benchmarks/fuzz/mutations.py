"""Random mutations of the bytes of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

Span = tuple[int, int]
"""Start and end of a byte range."""

STRUCTURE, PAYLOAD = "structure", "payload"
"""Mutations outside the samples or of the file's length, and in-place changes of samples."""
_PAYLOAD_SHARE = 0.1
_NUMBERS = re.compile(rb"\d+")
_VALUES = (0, 1, 2, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)
_WORDS = (b"0", b"-1", b"1", b"2", b"3", b"65536", b"999999999", b"1e999", b"nan", b"", b"0x", b"'")


def spans_of(raw: bytes, blocks: Sequence[bytes]) -> list[Span]:
    """Locate blocks of samples in a file; blocks that do not occur are skipped."""
    found = []
    for block in blocks:
        start = raw.find(block)
        if start >= 0 and block:
            found.append((start, start + len(block)))
    return sorted(found)


def mutate(
    raw: bytes, payload: Sequence[Span], generator: np.random.Generator
) -> tuple[bytes, str]:
    """Mutate a file; return its bytes and the part that was changed.

    Args:
        raw: Content of the file.
        payload: Ranges that hold only samples.
        generator: Random generator.
    """
    data = bytearray(raw)
    spans = payload if payload and generator.random() < _PAYLOAD_SHARE else _rest(raw, payload)
    for _ in range(1 + int(generator.geometric(0.5))):
        start, stop = spans[int(generator.integers(len(spans)))]
        place = int(generator.integers(start, stop)) if stop > start else start
        change = _CHANGES[int(generator.integers(len(_CHANGES)))]
        if spans is payload:
            change = _overwrite
        change(data, min(place, len(data)), generator)
    return bytes(data), _part(raw, data, payload)


def _rest(raw: bytes, payload: Sequence[Span]) -> list[Span]:
    """Return the ranges of a file outside its payload."""
    edges = [0, *(edge for span in payload for edge in span), len(raw)]
    rest = [span for span in zip(edges[::2], edges[1::2], strict=True) if span[1] > span[0]]
    return rest or [(0, len(raw))]


def _part(raw: bytes, data: bytearray, payload: Sequence[Span]) -> str:
    """Return whether samples changed in place or only the bytes around them."""
    same = len(raw) == len(data) and all(raw[i:j] == data[i:j] for i, j in payload)
    return STRUCTURE if same or len(raw) != len(data) else PAYLOAD


def _flip(data: bytearray, place: int, generator: np.random.Generator) -> None:
    if place < len(data):
        data[place] ^= 1 << int(generator.integers(8))


def _overwrite(data: bytearray, place: int, generator: np.random.Generator) -> None:
    """Overwrite one to eight bytes by a boundary value in either byte order."""
    size = int(generator.choice([1, 2, 4, 8]))
    order = "little" if generator.random() < 0.8 else "big"
    value = _VALUES[int(generator.integers(len(_VALUES)))] % 256**size
    end = min(place + size, len(data))
    data[place:end] = value.to_bytes(size, order)[: end - place]


def _noise(data: bytearray, place: int, generator: np.random.Generator) -> None:
    size = min(int(generator.integers(1, 17)), len(data) - place)
    data[place : place + size] = generator.bytes(max(size, 0))


def _cut(data: bytearray, place: int, generator: np.random.Generator) -> None:
    del data[place:]


def _remove(data: bytearray, place: int, generator: np.random.Generator) -> None:
    del data[place : place + int(generator.integers(1, 65))]


def _insert(data: bytearray, place: int, generator: np.random.Generator) -> None:
    data[place:place] = generator.bytes(int(generator.integers(1, 65)))


def _repeat(data: bytearray, place: int, generator: np.random.Generator) -> None:
    size = int(generator.integers(1, 257))
    data[place:place] = data[place : place + size]


def _copy(data: bytearray, place: int, generator: np.random.Generator) -> None:
    """Copy one part of the file over another."""
    size = int(generator.choice([4, 8, 16, 64]))
    source = int(generator.integers(max(len(data), 1)))
    part = data[source : source + size]
    data[place : place + len(part)] = part


def _digits(data: bytearray, place: int, generator: np.random.Generator) -> None:
    """Replace the next number written in decimal digits."""
    match = _NUMBERS.search(data, place) or _NUMBERS.search(data)
    if match is not None:
        word = _WORDS[int(generator.integers(len(_WORDS)))]
        data[match.start() : match.end()] = word


_CHANGES: tuple[Callable[[bytearray, int, np.random.Generator], None], ...] = (
    _flip,
    _flip,
    _overwrite,
    _overwrite,
    _noise,
    _cut,
    _remove,
    _insert,
    _repeat,
    _copy,
    _digits,
)
