"""Endless phantom data sets whose items depend only on their index."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ctxrecon.checks import check_whole
from ctxrecon.errors import InputError
from ctxrecon.phantom.anatomy import Anatomy
from ctxrecon.phantom.bank import AnatomyBank


class NumberedPhantoms(Dataset[dict[str, Any]]):
    """Items drawn from a bank; item ``i`` is reproducible.

    Args:
        bank: Anatomies to draw from.
        resolution: Matrix size ``n``, at most that of the anatomies.
        length: Number of items.
        seed: Random seed of the data set.

    Raises:
        InputError: If the seed is negative or not a whole number, or the resolution is above the
            size of the anatomies.
    """

    def __init__(self, bank: AnatomyBank, resolution: int, length: int, seed: int) -> None:
        check_whole("seed", seed, least=0)
        self.bank = bank
        self.check_resolution(resolution)
        self.resolution = resolution
        self.length = length
        self.seed = seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.draw(index, self.resolution)

    def check_resolution(self, resolution: int) -> None:
        """Validate that the anatomies have enough pixels for images of a matrix size.

        Raises:
            InputError: If they have fewer.
        """
        ny, nx = self.bank.labels.shape[1:]
        if resolution > min(ny, nx):
            raise InputError(
                f"expected a `resolution` of at most {min(ny, nx)}, as the anatomies of the bank "
                f"have {ny} × {nx} pixels, got {resolution}: lower it, or build larger anatomies"
            )

    @abstractmethod
    def draw(self, index: int, resolution: int) -> dict[str, Any]:
        """Return item ``index`` at another matrix size ``n``."""

    def _subject(self, index: int) -> tuple[Anatomy, torch.Generator, np.random.Generator]:
        """Return the anatomy of an item, and generators of its protocols and of the rest."""
        if not 0 <= index < self.length:
            raise IndexError(index)
        rng = np.random.default_rng([self.seed, index])
        anatomy = self.bank[int(rng.integers(len(self.bank)))]
        return anatomy, torch.Generator().manual_seed(int(rng.integers(2**62))), rng
