"""Slices to train on: where they come from, and what every training draws of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ctxrecon.errors import InputError
from ctxrecon.fourier import channels_to_complex, complex_to_channels, fft2c, ifft2c
from ctxrecon.operators import Crop
from ctxrecon.priors.tokenizer import check_prompt_length

_MIRRORED = ("brain", "knee")
"""Anatomies that look the same from left and right; a heart or an abdomen does not."""


class SliceSource(Protocol):
    """Where slices come from; ``draw`` gives the same slice for the same number."""

    def draw(self, number: int, resolution: int) -> dict[str, Any]:
        """``image`` ``(2, resolution, resolution)`` float32 and ``metadata``.

        With them ``prompt_form``, where the prompts are not of fastMRI's.
        """


class PreparedSlices:
    """Slices of a prepared training set in random order, flipped, zoomed and resized.

    Args:
        slices: a data set whose items hold ``image`` ``(2, ny, nx)`` and ``metadata``, such as
            :class:`ctxrecon.datasets.ShardSlices`.
        seed: of the order and of what is done to each slice.
        field_of_view: smallest part of the image's shorter side that is shown.
    """

    def __init__(
        self, slices: Dataset[dict[str, Any]], *, seed: int = 0, field_of_view: float = 1.0
    ) -> None:
        if not 0 < field_of_view <= 1:
            raise InputError(f"expected a field of view in (0, 1], got {field_of_view}")
        self.slices, self.seed, self.field_of_view = slices, seed, field_of_view

    def draw(self, number: int, resolution: int) -> dict[str, Any]:
        """The slice of this number; every epoch is in an order of its own."""
        size = len(self.slices)  # type: ignore[arg-type]
        epoch, place = divmod(number, size)
        item = self.slices[int(_order(size, self.seed, epoch)[place])]
        rng = np.random.default_rng([self.seed, number, 1])
        image, metadata = item["image"], item["metadata"]
        if metadata.anatomy in _MIRRORED and rng.random() < 0.5:
            image = image.flip(-1)
        part = rng.uniform(self.field_of_view, 1)
        side = round(part * min(image.shape[-2:]))
        image = resize(_center(channels_to_complex(image), side), resolution)
        form = getattr(self.slices, "prompt_form", "fastmri")
        return {"image": complex_to_channels(image), "metadata": metadata, "prompt_form": form}


@lru_cache(maxsize=2)
def _order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of one epoch."""
    return np.random.default_rng([seed, epoch, 0]).permutation(size)


def _center(image: Tensor, side: int) -> Tensor:
    """The centre ``(side, side)`` of ``(ny, nx)``."""
    ny, nx = image.shape
    return Crop((1, ny, nx), (side, side))(image[None])[0]


def resize(image: Tensor, resolution: int) -> Tensor:
    """Complex ``(n, n)`` to ``(resolution, resolution)``: the same field of view, sampled anew.

    K-space is cropped, or padded with zeros; a constant image keeps its value.
    """
    side = image.shape[-1]
    kspace = fft2c(image)[None]
    if resolution <= side:
        kspace = Crop((1, side, side), (resolution, resolution))(kspace)
    else:
        big = (1, resolution, resolution)
        kspace = Crop(big, (side, side)).adjoint(kspace)
    return ifft2c(kspace)[0] * (resolution / side)


def one_of(choices: Sequence[int], step: int, seed: int, stream: int) -> int:
    """What a step draws, such as its matrix size: the same for every process."""
    rng = np.random.default_rng([seed, step, stream])
    return int(choices[int(rng.integers(len(choices)))])


def tokens_of(tokenizer: Any, prompts: list[str]) -> Tensor:
    """``(batch, length)``, refused where one would be cut short."""
    check_prompt_length(tokenizer, prompts)
    return tokenizer(prompts, padding="max_length", return_tensors="pt").input_ids
