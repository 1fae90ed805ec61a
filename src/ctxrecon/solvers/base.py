"""The solver interface: its call signature, and traits that describe its requirements."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import FunctionType
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.operators import LinearOperator
from ctxrecon.priors.denoiser import Denoiser
from ctxrecon.solvers.steps import Generators, StepCallback

NoiseStd: TypeAlias = "float | Tensor"
"""Noise level of the measurement: a number or a tensor ``(batch,)``."""

_Self = TypeVar("_Self", bound="DiffusionSolver")


class Solver(Protocol):
    """Solver of ``y = A x + n`` for ``x`` under a diffusion prior.

    Any callable with this signature is a solver. Solvers whose traits differ from the defaults of
    :class:`DiffusionSolver` derive from that class.
    """

    def __call__(
        self,
        denoiser: Denoiser,
        operator: LinearOperator,
        y: Tensor,
        *,
        timesteps: Sequence[int],
        generator: Generators = None,
        latents: Tensor | None = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Reconstruct an image from a measurement.

        Args:
            denoiser: Diffusion prior.
            operator: Forward operator ``A`` from images ``(batch, ny, nx)`` to measurements.
            y: Measurement of the operator's ``range_shape``, complex64.
            timesteps: Training timesteps, strictly descending.
            generator: Random generator, or one per sample.
            latents: Initial noise ``(batch, 2, ny, nx)`` of unit variance; ``None`` draws it.
            callback: Function called after each step.

        Returns:
            Image of shape ``(batch, ny, nx)``, complex64.

        Raises:
            InputError: Before the first step, if arguments do not fit together.
        """


class DiffusionSolver(ABC):
    """Base class of the solvers, with traits that pipelines use.

    A custom solver only needs to define ``__call__``, whose loop takes a few lines with
    :func:`~ctxrecon.solvers.schedule`; :class:`~ctxrecon.solvers.DDS` is an example. Traits that it
    does not set keep the values below. A solver that uses the noise level sets
    :attr:`default_noise_std` and has an attribute or dataclass field ``noise_std``. A solver with
    another weight between data and prior overrides :attr:`weight_is_unset` and :meth:`reweighted`.

    Example:
        >>> from ctxrecon.solvers import make_solver
        >>> solver = make_solver("pnp_admm")
        >>> solver.deterministic, solver.with_noise(0.1).noise_std
        (True, 0.1)

    Raises:
        InputError: If a class has a field ``noise_std`` but no :attr:`default_noise_std`.
    """

    deterministic: ClassVar[bool] = False
    """Whether repeated samples are identical because no random numbers are used."""

    starts_from_data: ClassVar[bool] = False
    """Whether it starts from the measurement, so that a starting image has no effect."""

    couples_batch: ClassVar[bool] = False
    """Whether the images of a batch depend on each other, such as the slices of a volume.

    Such a batch cannot be split and contains one sample of each slice.
    """

    default_noise_std: ClassVar[float | None] = None
    """Noise level if :attr:`noise_std` is ``None``; ``None`` if the solver does not use one."""

    noise_std: NoiseStd | None = None
    """Standard deviation of a complex sample of the measurement; ``None`` if unknown."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Require a default noise level of solvers with a field ``noise_std``."""
        super().__init_subclass__(**kwargs)
        if "noise_std" in inspect.get_annotations(cls) and cls.default_noise_std is None:
            raise InputError(
                f"{cls.__name__} has noise_std but no default_noise_std: define the level that "
                "applies if noise_std is None"
            )

    @abstractmethod
    def __call__(
        self,
        denoiser: Denoiser,
        operator: LinearOperator,
        y: Tensor,
        *,
        timesteps: Sequence[int],
        generator: Generators = None,
        latents: Tensor | None = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Reconstruct; see :class:`Solver` for the arguments."""

    @property
    def name(self) -> str:
        """Name of the solver in messages."""
        return type(self).__name__

    def with_noise(self: _Self, noise_std: NoiseStd) -> _Self:
        """Return a copy with another noise level.

        Args:
            noise_std: Standard deviation of a complex sample of the measurement.

        Raises:
            InputError: If the solver does not use a noise level, or the value is invalid.
        """
        if self.default_noise_std is None:
            raise InputError(
                f"{self.name} takes no noise_std: leave it out, or choose a solver such as "
                "PnPADMM or DiffPIR"
            )
        if dataclasses.is_dataclass(self):
            return dataclasses.replace(self, noise_std=noise_std)
        other = copy.copy(self)
        other.noise_std = noise_std
        return other

    @property
    def weight_is_unset(self) -> bool:
        """Whether the weight of the prior is unset, so that pipelines may choose it from the data.

        True for solvers that use a noise level and have none set.
        """
        return bool(self.default_noise_std) and self.noise_std is None

    def reweighted(self: _Self, factor: NoiseStd) -> _Self:
        """Return a copy that weights the data as if the noise level were ``factor`` times larger.

        Args:
            factor: A number or a tensor ``(batch,)``; values below 1 trust the prior less.

        Raises:
            InputError: If the solver does not use a noise level.
        """
        level = self.default_noise_std if self.noise_std is None else self.noise_std
        return self.with_noise(factor if level is None else level * factor)


class CalledSolver(DiffusionSolver):
    """Adapter that adds the default traits of a solver to a plain callable.

    Args:
        solver: Callable with the signature of :class:`Solver`.
    """

    def __init__(self, solver: Solver) -> None:
        self.solver = solver

    @property
    def name(self) -> str:
        """Name of the function or the class."""
        solver: object = self.solver
        return solver.__name__ if isinstance(solver, FunctionType) else type(solver).__name__

    def __call__(
        self,
        denoiser: Denoiser,
        operator: LinearOperator,
        y: Tensor,
        *,
        timesteps: Sequence[int],
        generator: Generators = None,
        latents: Tensor | None = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """Reconstruct; see :class:`Solver` for the arguments."""
        return self.solver(
            denoiser,
            operator,
            y,
            timesteps=timesteps,
            generator=generator,
            latents=latents,
            callback=callback,
        )


def as_solver(solver: Solver) -> DiffusionSolver:
    """Return a solver with all traits, wrapping plain callables.

    Raises:
        InputError: If it cannot be called like a :class:`Solver`.
    """
    made = solver if isinstance(solver, DiffusionSolver) else CalledSolver(solver)
    try:
        signature = inspect.signature(solver)
        signature.bind(None, None, None, timesteps=(), generator=None, latents=None, callback=None)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{made.name} cannot be called as solver(denoiser, operator, y, timesteps=..., "
            f"generator=..., latents=..., callback=...): {error}; add these arguments"
        ) from error
    return made
