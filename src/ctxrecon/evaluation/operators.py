"""Operators other than masks that a benchmark measures fully sampled scans by.

Adding one is a frozen dataclass, whose fields are its options, and one line:

    >>> OPERATORS.register("my_operator", MyOperator, title="my operator")
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ctxrecon.checks import check_number, check_whole
from ctxrecon.coils.trajectories import covered_center
from ctxrecon.errors import InputError
from ctxrecon.evaluation.grid import FullSlice, ScanFile
from ctxrecon.fourier import ifft2c
from ctxrecon.masks import radial_trajectory, spiral_trajectory
from ctxrecon.measurement import Measurement
from ctxrecon.operators import (
    Inpainting,
    NonCartesianSense,
    SuperResolution,
    density_compensation,
)
from ctxrecon.options import split_options
from ctxrecon.registry import Registry
from ctxrecon.scan import FULLY_SAMPLED, Scan


class SimulatedOperator(ABC):
    """What makes a measurement of slices whose images are known."""

    measures_kspace: ClassVar[bool] = False
    """Whether it needs the k-space of each coil, fully sampled, beside the image."""

    def check(self, shape: tuple[int, int, int]) -> None:  # noqa: B027 (most take any)
        """Refuse slices ``(coils, ny, nx)`` that cannot be measured so."""

    @abstractmethod
    def measure(
        self, kspace: Tensor, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Measurement:
        """The measurement of a batch.

        Args:
            kspace: ``(batch, coils, ny, nx)`` complex64 of all samples.
            images: ``(batch, ny, nx)`` complex64, what reconstructions are compared with.
            generators: one for each slice.
        """


class Trajectory(SimulatedOperator):
    """Each coil's image, as the file has it with its noise, sampled along a trajectory.

    Coil maps are estimated from these samples, as those of a measured scan are.
    """

    measures_kspace = True

    @abstractmethod
    def shots(self, size: int) -> Tensor:
        """``(shots, samples, 2)`` for an image of ``size`` pixels along its longer side."""

    def check(self, shape: tuple[int, int, int]) -> None:
        """Refuse a trajectory that coil maps cannot be estimated from."""
        coils, ny, nx = shape
        trajectory = self.shots(max(ny, nx)).flatten(0, 1)
        if coils > 1:
            covered_center(trajectory, density_compensation(trajectory, (ny, nx)), (ny, nx))

    def measure(
        self, kspace: Tensor, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Measurement:
        """The samples of :meth:`shots`."""
        ny, nx = kspace.shape[2:]
        shots = self.shots(max(ny, nx))
        ones = torch.ones(1, 1, ny, nx, dtype=torch.complex64, device=kspace.device)
        each = NonCartesianSense(shots.flatten(0, 1), ones)
        samples = each(ifft2c(kspace).flatten(0, 1)).reshape(*kspace.shape[:2], *shots.shape[:2])
        return Measurement.from_scan(Scan(samples, None, trajectory=shots[None], matrix=(ny, nx)))


@dataclass(frozen=True)
class Radial(Trajectory):
    """Golden-angle spokes with twofold readout oversampling."""

    spokes: int = 64

    def __post_init__(self) -> None:
        check_whole("spokes", self.spokes)

    def shots(self, size: int) -> Tensor:
        """``(spokes, 2 size, 2)``."""
        return radial_trajectory(self.spokes, 2 * size).unflatten(0, (self.spokes, -1))


@dataclass(frozen=True)
class Spiral(Trajectory):
    """Variable-density spirals; see :func:`ctxrecon.masks.spiral_trajectory`."""

    interleaves: int = 16
    turns: float = 4.0
    alpha: float = 2.0

    def __post_init__(self) -> None:
        check_whole("interleaves", self.interleaves)
        check_number("turns", self.turns, above=0)
        check_number("alpha", self.alpha, above=0)

    def shots(self, size: int) -> Tensor:
        """``(interleaves, samples, 2)``, a little denser along the arc than it need be."""
        samples = math.ceil(1.2 * math.pi * size * self.turns / (self.alpha + 1)) + 2
        spirals = spiral_trajectory(self.interleaves, samples, self.turns, alpha=self.alpha)
        return spirals.unflatten(0, (self.interleaves, -1))


@dataclass(frozen=True)
class KnownPixels(SimulatedOperator):
    """Pixels of the image, of which a random share is known, others in each slice."""

    fraction: float = 0.5

    def __post_init__(self) -> None:
        check_number("fraction", self.fraction, above=0, most=1)

    def measure(
        self, kspace: Tensor, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Measurement:
        """The image with zeros in place of the others."""
        shape = (1, *images.shape[1:])
        known = [torch.rand(shape, generator=each) < self.fraction for each in generators]
        operator = Inpainting(torch.stack(known).to(images.device))
        return Measurement.from_operator(operator, operator(images))


@dataclass(frozen=True)
class LowResolution(SimulatedOperator):
    """The image of a scan at a lower resolution."""

    factor: int = 2

    def __post_init__(self) -> None:
        check_whole("factor", self.factor)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Refuse a factor that does not divide the image."""
        SuperResolution((1, *shape[1:]), self.factor)

    def measure(
        self, kspace: Tensor, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Measurement:
        """The small image."""
        operator = SuperResolution((1, *images.shape[1:]), self.factor)
        return Measurement.from_operator(operator, operator(images))


OPERATORS: Registry[type[Any]] = Registry("operator")
"""Name -> class, a :class:`SimulatedOperator` whose dataclass fields are its options."""

OPERATORS.register("radial", Radial)
OPERATORS.register("spiral", Spiral)
OPERATORS.register("inpainting", KnownPixels)
OPERATORS.register("super_resolution", LowResolution, title="super-resolution")


@dataclass(frozen=True)
class OperatorAcquisition:
    """An operator of :data:`OPERATORS` as one of the ways in which a grid measures slices.

    Attributes:
        mask: the operator with its options as the user gave it, in rows.
        operator: what measures.
        acceleration: ``None``; only masks have one.
    """

    mask: str
    operator: SimulatedOperator = field(compare=False)
    acceleration: None = None

    @property
    def title(self) -> str:
        """As in tables: the title, and the options as they were given."""
        name, *options = self.mask.split(":")
        return ", ".join([OPERATORS.title(name), *(option.replace("=", " ") for option in options)])

    def check(self, shape: tuple[int, int, int], seed: int) -> None:
        """Refuse slices ``(coils, ny, nx)`` that cannot be measured so.

        Raises:
            InputError: naming the operator.
        """
        try:
            self.operator.check(shape)
        except InputError as error:
            raise InputError(
                f"--operators {self.mask} at {shape[1]}×{shape[2]}: {error}"
            ) from error

    def measure(
        self, full: Sequence[FullSlice], seeds: Sequence[int], device: torch.device
    ) -> Measurement:
        """The measurement of slices of one shape."""
        kspace, images = (
            torch.cat([getattr(whole, name) for whole in full]).to(device)
            for name in ("kspace", "reference")
        )
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return self.operator.measure(kspace, images, generators)


def operator_acquisition(text: str) -> OperatorAcquisition:
    """An operator by its name with options, such as ``"radial:spokes=32"``.

    Raises:
        InputError: an operator or an option that there is not, or a value that is no number.
    """
    name, options = split_options(text)
    return OperatorAcquisition(text, OPERATORS.make(name, options))


def check_scans(acquisition: OperatorAcquisition, scans: Sequence[ScanFile]) -> None:
    """Refuse scans whose k-space has gaps, for operators that sample it anew.

    Raises:
        InputError: naming the scan.
    """
    for scan in scans if acquisition.operator.measures_kspace else ():
        if scan.sampled < FULLY_SAMPLED:
            raise InputError(
                f"{scan.path} is undersampled ({100 * scan.sampled:.0f} % sampled), and "
                f"{acquisition.mask} samples its k-space anew: leave out one of them"
            )
