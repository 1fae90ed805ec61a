"""Which slices are measured, how, and what the noise of a reference image leaves possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.held_out import NUM_COILS, SNR, scan_seed, undersample
from ctxrecon.coils import simulate_coil_maps
from ctxrecon.datasets import ShardSlices
from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex
from ctxrecon.metadata import ScanMetadata
from ctxrecon.phantom import measure
from ctxrecon.phantom.imaging import smooth_field
from ctxrecon.scan import Scan
from ctxrecon.training.slices import image_noise

TEST_SEED = 0
"""Seed of the test; every other one is for choices, and draws none of its slices."""
_PHASE_ORDER = 4
_BODY = 0.1
"""Magnitude from which a pixel belongs to the body, relative to the bright signal."""


@dataclass(frozen=True)
class PersonSlice:
    """One slice of a person.

    Attributes:
        number: in the data set.
        person: whose it is.
        kind: anatomy and contrast, such as ``"brain T2"``.
        prompt: of its metadata.
    """

    number: int
    person: str
    kind: str
    prompt: str


def choose_slices(slices: ShardSlices, count: int, seed: int) -> list[PersonSlice]:
    """Slices of each anatomy and contrast by turns, and in each of every person by turns.

    The first of a larger count are those of a smaller one. Half of each person's slices of a kind,
    the same for all seeds, are for :data:`TEST_SEED` alone, the other half for all other seeds.

    Args:
        slices: of people.
        count: how many.
        seed: of the order of people and slices.

    Raises:
        InputError: there are not so many.
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
    """The slices of one kind that the seed may draw, one of each person after the other."""
    shuffled = []
    for numbers in people:
        order = np.random.default_rng([len(numbers), numbers[0]]).permutation(numbers)
        half = math.ceil(len(order) / 2)
        shuffled.append(rng.permutation(order[:half] if seed == TEST_SEED else order[half:]))
    shuffled = [shuffled[place] for place in rng.permutation(len(shuffled))]
    turns = max(map(len, shuffled))
    return [int(own[turn]) for turn in range(turns) for own in shuffled if turn < len(own)]


def full_scan(slices: ShardSlices, one: PersonSlice, seed: int) -> Scan:
    """The whole noisy k-space of a slice, from simulated coils; its target is the image as it is.

    Magnitudes get a smooth phase.
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
    maps = simulate_coil_maps(NUM_COILS, (target.shape[-2], target.shape[-1]), generator=generator)
    return measure(
        target[None],
        maps,
        None,
        snr=SNR,
        metadata=[_metadata(slices, one.number)],
        generator=generator,
    )


def measured(scan: Scan, one: PersonSlice, acceleration: float, seed: int) -> Scan:
    """What a mask of its own leaves of a scan, with the true coil maps."""
    return undersample(scan, acceleration, scan_seed(seed, one.number), true_maps=True)


def noise_deviation(image: Tensor) -> Tensor:
    """Standard deviation of the noise in each pixel of a magnitude image ``(ny, nx)``.

    One value in the body and another around it: there noise is Rayleigh distributed, or was set to
    zero.
    """
    pixels = image.abs().numpy()
    body = pixels > _BODY
    levels = [image_noise(pixels, ~body), image_noise(pixels, body)]
    return torch.tensor(levels, dtype=torch.float32)[torch.from_numpy(body).long()]


@dataclass(frozen=True)
class Ceiling:
    """Scores of an image that is wrong by the reference's noise in unmeasured samples alone.

    Noise that was not measured cannot be predicted, whatever is known of the body: the mean squared
    error of the magnitude is at least ``(1 − s) v``, with the share ``s`` of k-space that is
    sampled and the mean variance ``v`` of the noise in the reference's magnitude.

    Attributes:
        error: that mean squared error.
        image: ``(1, ny, nx)``, the reference with an error of that size, for the other scores.
    """

    error: float
    image: Tensor

    @classmethod
    def of(cls, reference: Tensor, mask: Tensor, seed: int) -> Ceiling:
        """The ceiling of a reference ``(1, ny, nx)`` under a mask ``(1, 1, ny, nx)``."""
        missing = 1 - float(mask.double().mean())
        deviation = math.sqrt(missing) * noise_deviation(reference[0])
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(deviation.shape, generator=generator)
        error = float(deviation.double().square().mean())
        return cls(error, reference.abs() + deviation * noise)

    def scores(self, reference: Tensor) -> dict[str, float]:
        """PSNR and NMSE by the formula."""
        power = reference.abs().double().square()
        with np.errstate(divide="ignore"):
            psnr = 10 * np.log10(np.float64(power.max()) / self.error)
        return {"psnr": float(psnr), "nmse": self.error / float(power.mean())}


def _metadata(slices: ShardSlices, number: int) -> ScanMetadata:
    item: Any = slices[number]["metadata"]
    return item
