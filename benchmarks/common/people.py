"""Slices of real people: selection and simulated acquisition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.common.held_out import NUM_COILS, SNR, scan_seed
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import measure
from ctxrecon.phantom.imaging import smooth_field
from ctxrecon.scan import Scan
from ctxrecon.training.slices import resize

TEST_SEED = 0
"""Seed of the test set. Other seeds are for tuning and never draw a test slice."""
_PHASE_ORDER = 4


@dataclass(frozen=True)
class PersonSlice:
    """One slice of a person.

    Attributes:
        number: Index in the data set.
        person: Person whose slice it is.
        kind: Anatomy and contrast, such as ``"brain T2"``.
        prompt: Prompt written from its metadata.
    """

    number: int
    person: str
    kind: str
    prompt: str


def choose_slices(slices: ShardSlices, count: int, seed: int) -> list[PersonSlice]:
    """Choose slices in turn over anatomies and contrasts and, within each, over people.

    A larger count extends the selection of a smaller one. Half of each person's slices of a kind
    (the same half for all seeds) are reserved for :data:`TEST_SEED`, the rest for other seeds.

    Args:
        slices: Slices of people.
        count: Number of slices.
        seed: Random seed of the order of people and slices.

    Raises:
        InputError: If there are fewer slices than ``count``.
    """
    metadata = [_metadata(slices, number) for number in range(len(slices))]
    by_kind: dict[str, dict[str, list[int]]] = {}
    for number, (person, item) in enumerate(zip(slices.subjects, metadata, strict=True)):
        kind = " ".join(word for word in (item.anatomy, item.contrast) if word) or "unknown"
        by_kind.setdefault(kind, {}).setdefault(person, []).append(number)
    rng = np.random.default_rng(seed)
    orders = [
        (kind, _by_turns(list(people.values()), seed, rng))
        for kind, people in sorted(by_kind.items())
    ]
    most = min(len(order) for _, order in orders) * len(orders)
    if count > most:
        fewest = min(orders, key=lambda entry: len(entry[1]))[0]
        raise InputError(
            f"expected at most {most} slices by turns of {len(orders)} kinds, got --scans {count}: "
            f"{slices.folder} has no more of {fewest} for this seed"
        )
    chosen = []
    for turn in range(count):
        kind, order = orders[turn % len(orders)]
        number = order[turn // len(orders)]
        prompt = metadata[number].to_prompt(slices.prompt_form)
        chosen.append(PersonSlice(number, slices.subjects[number], kind, prompt))
    return chosen


def _by_turns(people: Sequence[Sequence[int]], seed: int, rng: np.random.Generator) -> list[int]:
    """Return the slices of one kind that the seed may draw, one person after the other."""
    shuffled = []
    for numbers in people:
        order = np.random.default_rng([len(numbers), numbers[0]]).permutation(numbers)
        half = math.ceil(len(order) / 2)
        shuffled.append(rng.permutation(order[:half] if seed == TEST_SEED else order[half:]))
    shuffled = [shuffled[place] for place in rng.permutation(len(shuffled))]
    turns = max(map(len, shuffled))
    return [int(own[turn]) for turn in range(turns) for own in shuffled if turn < len(own)]


def full_scan(slices: ShardSlices, one: PersonSlice, seed: int, *, size: int | None = None) -> Scan:
    """Simulate the fully sampled noisy multi-coil k-space of a slice.

    The target is the unmodified image, or the same image with ``size`` pixels along each side;
    magnitude images get a smooth random phase.
    """
    own_seed = scan_seed(seed, one.number)
    generator = torch.Generator().manual_seed(own_seed)
    image: Any = slices[one.number]["image"]
    if slices.kind == "complex":
        target = channels_to_complex(image)
    else:
        rng = np.random.default_rng(own_seed)
        field = torch.from_numpy(
            smooth_field((image.shape[-2], image.shape[-1]), _PHASE_ORDER, rng)
        )
        target = torch.polar(image[0], math.pi * rng.random() * field + 2 * math.pi * rng.random())
    if size is not None:
        target = resize(target, size)
    maps = simulate_coil_maps(NUM_COILS, (target.shape[-2], target.shape[-1]), generator=generator)
    return measure(
        target[None],
        maps,
        None,
        snr=SNR,
        metadata=[_metadata(slices, one.number)],
        generator=generator,
    )


def _metadata(slices: ShardSlices, number: int) -> ScanMetadata:
    item: Any = slices[number]["metadata"]
    return item
