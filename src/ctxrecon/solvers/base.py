"""What a pipeline asks of a solver: the call, and traits that say how it may be called."""

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
"""Of the measurement: one number, or ``(batch,)`` of them."""

_Self = TypeVar("_Self", bound="DiffusionSolver")


class Solver(Protocol):
    """Draws ``x`` from the prior given ``y = A x + n``. Every solver has this signature.

    Whatever has it is a solver. One that says more of itself than the defaults of
    :class:`DiffusionSolver` derives from that class.
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
        """The image ``(batch, ny, nx)`` complex64.

        Args:
            denoiser: the prior.
            operator: ``A``, from images ``(batch, ny, nx)`` to measurements.
            y: measurement, of the operator's ``range_shape``, complex64.
            timesteps: training timesteps, strictly descending.
            generator: source of the noise: one, or one for each sample.
            latents: starting noise ``(batch, 2, ny, nx)`` of unit variance; drawn if not given.
            callback: called after each step.

        Raises:
            InputError: something that does not fit, before the first step.
        """


class DiffusionSolver(ABC):
    """A solver that declares how it may be called; the package's own all derive from it.

    A solver of one's own has to define ``__call__`` only, whose loop is a few lines with
    :func:`~ctxrecon.solvers.schedule`; see :class:`~ctxrecon.solvers.DDS`. Traits that it does not
    set have the values below. One that takes a noise level sets :attr:`default_noise_std` and has
    an attribute or a dataclass field ``noise_std``. One that weighs the data against the prior in
    another way says so by :attr:`weight_is_open` and :meth:`reweighted`.

    Raises:
        InputError: a class with a field ``noise_std`` and no :attr:`default_noise_std`.
    """

    deterministic: ClassVar[bool] = False
    """Whether nothing is drawn, so that several samples would be one."""

    starts_from_data: ClassVar[bool] = False
    """Whether it starts from the measurement, so that an image to start from is not looked at."""

    couples_batch: ClassVar[bool] = False
    """Whether the images of a batch depend on each other, as the slices of a volume.

    Such a batch may not be split, and holds one sample of each slice.
    """

    default_noise_std: ClassVar[float | None] = None
    """The noise level where :attr:`noise_std` is ``None``; ``None`` if the solver takes none."""

    noise_std: NoiseStd | None = None
    """Standard deviation of a complex sample of the measurement; ``None`` if it is not known."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a solver whose noise level no pipeline would know of."""
        super().__init_subclass__(**kwargs)
        if "noise_std" in inspect.get_annotations(cls) and cls.default_noise_std is None:
            raise InputError(
                f"{cls.__name__} has noise_std but no default_noise_std: give the class the level "
                "that a noise_std of None stands for"
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
        """What messages call the solver."""
        return type(self).__name__

    def with_noise(self: _Self, noise_std: NoiseStd) -> _Self:
        """Return a copy with another noise level.

        Args:
            noise_std: see :attr:`noise_std`.

        Raises:
            InputError: the solver takes no noise level, or not this one.
        """
        if self.default_noise_std is None:
            raise InputError(
                f"{self.name} takes no noise_std: leave it out, or take a solver such as PnPADMM "
                "or DiffPIR"
            )
        if dataclasses.is_dataclass(self):
            return dataclasses.replace(self, noise_std=noise_std)
        other = copy.copy(self)
        other.noise_std = noise_std
        return other

    @property
    def weight_is_open(self) -> bool:
        """Whether how far the prior is trusted was left open, so that the data may choose it.

        True for solvers that take a noise level and were given none.
        """
        return bool(self.default_noise_std) and self.noise_std is None

    def reweighted(self: _Self, factor: NoiseStd) -> _Self:
        """Return a copy that weighs the data as for noise of ``factor`` times its level.

        Args:
            factor: below 1 the prior is trusted less; one number, or ``(batch,)`` of them.

        Raises:
            InputError: the solver takes no noise level.
        """
        level = self.default_noise_std if self.noise_std is None else self.noise_std
        return self.with_noise(factor if level is None else level * factor)


class CalledSolver(DiffusionSolver):
    """A solver that only has the call, with the default of each trait.

    Args:
        solver: any callable of the signature of :class:`Solver`.
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
    """Return a solver with all traits: itself, or one that calls it.

    Raises:
        InputError: it cannot be called as a :class:`Solver` is.
    """
    made = solver if isinstance(solver, DiffusionSolver) else CalledSolver(solver)
    try:
        signature = inspect.signature(solver)
        signature.bind(None, None, None, timesteps=(), generator=None, latents=None, callback=None)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{made.name} cannot be called as solver(denoiser, operator, y, timesteps=..., "
            f"generator=..., latents=..., callback=...): {error}; give it these arguments"
        ) from error
    return made
