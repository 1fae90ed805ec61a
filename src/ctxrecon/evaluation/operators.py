"""Simulated operators other than masks, applied to fully sampled scans in benchmarks.

To add one, define a frozen dataclass whose fields are its options, and register it::

    OPERATORS.register("my_operator", MyOperator, title="my operator")
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
from ctxrecon.evaluation.grid import FullSlice
from ctxrecon.evaluation.scans import ScanFile
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
    """Base class of operators that simulate the measurement of slices with known images.

    Example:
        >>> import torch
        >>> from ctxrecon.evaluation import OPERATORS
        >>> operator = OPERATORS.make("super_resolution", {"factor": 2})
        >>> image = torch.ones(1, 8, 8, dtype=torch.complex64)
        >>> operator.measure(image[:, None], image, generators=[]).y.shape
        torch.Size([1, 4, 4])
    """

    measures_kspace: ClassVar[bool] = False
    """Whether the operator needs fully sampled k-space of each coil, not only the image."""

    def check(self, shape: tuple[int, int, int]) -> None:  # noqa: B027 (most accept any)
        """Validate that slices of shape ``(coils, ny, nx)`` can be measured."""

    @abstractmethod
    def measure(
        self, kspace: Tensor, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Measurement:
        """Simulate the measurement of a batch.

        Args:
            kspace: Fully sampled k-space of shape ``(batch, coils, ny, nx)``, complex64.
            images: Reference images of shape ``(batch, ny, nx)``, complex64.
            generators: Random number generator of each slice.
        """


class Trajectory(SimulatedOperator):
    """Sampling of each coil image, including its noise, along a trajectory.

    Coil maps are estimated from these samples, as for a measured scan.
    """

    measures_kspace = True

    @abstractmethod
    def shots(self, size: int) -> Tensor:
        """Return the trajectory ``(shots, samples, 2)`` for an image of longer side ``size``."""

    def check(self, shape: tuple[int, int, int]) -> None:
        """Validate that coil maps can be estimated from the trajectory."""
        coils, ny, nx = shape
        trajectory = self.shots(max(ny, nx)).flatten(0, 1)
        if coils > 1:
            covered_center(trajectory, density_compensation(trajectory, (ny, nx)), (ny, nx))

    def measure(
        self, kspace: Tensor, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Measurement:
        """Sample the coil images along :meth:`shots`."""
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
        """Return the trajectory, shape ``(spokes, 2 size, 2)``."""
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
        """Return the trajectory ``(interleaves, samples, 2)``, slightly oversampled in arc."""
        samples = math.ceil(1.2 * math.pi * size * self.turns / (self.alpha + 1)) + 2
        spirals = spiral_trajectory(self.interleaves, samples, self.turns, alpha=self.alpha)
        return spirals.unflatten(0, (self.interleaves, -1))


@dataclass(frozen=True)
class KnownPixels(SimulatedOperator):
    """Inpainting with a random fraction of known pixels, different in each slice."""

    fraction: float = 0.5

    def __post_init__(self) -> None:
        check_number("fraction", self.fraction, above=0, most=1)

    def measure(
        self, kspace: Tensor, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Measurement:
        """Return the images with zeros at the unknown pixels."""
        shape = (1, *images.shape[1:])
        known = [torch.rand(shape, generator=each) < self.fraction for each in generators]
        operator = Inpainting(torch.stack(known).to(images.device))
        return Measurement.from_operator(operator, operator(images))


@dataclass(frozen=True)
class LowResolution(SimulatedOperator):
    """Super-resolution from the image of a scan at a lower resolution."""

    factor: int = 2

    def __post_init__(self) -> None:
        check_whole("factor", self.factor)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Validate that the factor divides the image size."""
        SuperResolution((1, *shape[1:]), self.factor)

    def measure(
        self, kspace: Tensor, images: Tensor, generators: Sequence[torch.Generator]
    ) -> Measurement:
        """Return the low-resolution images."""
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
    """An operator of :data:`OPERATORS` as an acquisition of a grid.

    Attributes:
        mask: Operator with its options as the user gave it, for rows.
        operator: Simulated operator.
        acceleration: ``None``, because only masks have an acceleration factor.
    """

    mask: str
    operator: SimulatedOperator = field(compare=False)
    acceleration: None = None

    @property
    def title(self) -> str:
        """Title in tables: the operator's title and its options."""
        name, *options = self.mask.split(":")
        return ", ".join([OPERATORS.title(name), *(option.replace("=", " ") for option in options)])

    def check(self, shape: tuple[int, int, int], seed: int) -> None:
        """Validate that slices of shape ``(coils, ny, nx)`` can be measured.

        Raises:
            InputError: If they cannot; the message names the operator.
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
        """Simulate the measurement of slices of one shape."""
        kspace, images = (
            torch.cat([getattr(whole, name) for whole in full]).to(device)
            for name in ("kspace", "reference")
        )
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return self.operator.measure(kspace, images, generators)


def operator_acquisition(text: str) -> OperatorAcquisition:
    """Parse an operator with options, such as ``"radial:spokes=32"``.

    Raises:
        InputError: If the operator or an option is unknown, or a value is not a number.

    Example:
        >>> from ctxrecon.evaluation import operator_acquisition
        >>> operator_acquisition("radial:spokes=32").title
        'radial, spokes 32'
    """
    name, options = split_options(text)
    return OperatorAcquisition(text, OPERATORS.make(name, options))


def check_scans(acquisition: OperatorAcquisition, scans: Sequence[ScanFile]) -> None:
    """Validate that scans are fully sampled, for operators that resample their k-space.

    Raises:
        InputError: If a scan is undersampled; the message names it.
    """
    for scan in scans if acquisition.operator.measures_kspace else ():
        if scan.sampled < FULLY_SAMPLED:
            raise InputError(
                f"{scan.path} is undersampled ({100 * scan.sampled:.0f} % sampled), and "
                f"{acquisition.mask} resamples its k-space: leave out one of them"
            )
