"""Several echoes or contrasts of one slice, each with its own measurement."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import check_shape, freeze


class MultiEcho(LinearOperator):
    """``A = diag(A_1, …, A_E)``: one operator for each echo or contrast.

    Images ``(batch, echoes, ny, nx)`` become measurements ``(batch, echoes, …)``, for instance
    k-space ``(batch, echoes, coils, ny, nx)``. A method that works on all echoes at once takes
    this operator; a solver on images ``(batch, ny, nx)`` takes :meth:`folded`.

    Args:
        operators: one for each echo, on images ``(batch, ny, nx)``, of the same shapes; masks and
            coil maps may differ.

    Raises:
        InputError: no operators, or operators whose shapes differ.
    """

    _batched = ("operators",)

    operators: tuple[LinearOperator, ...]

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        echoes = tuple(operators)
        if not echoes or not all(isinstance(echo, LinearOperator) for echo in echoes):
            raise InputError(
                f"expected one or more operators, one for each echo, got {list(echoes)}"
            )
        shapes = {(echo.domain_shape[1:], echo.range_shape[1:]) for echo in echoes}
        if len(shapes) > 1 or len({echo.domain_shape[0] for echo in echoes} - {1}) > 1:
            raise InputError(
                f"expected operators of the same shapes for all echoes, got {list(echoes)}; "
                "build them for one image size, one number of samples and one batch"
            )
        freeze(self, operators=echoes)

    @property
    def _leading(self) -> tuple[int, int]:
        return max(echo.domain_shape[0] for echo in self.operators), len(self.operators)

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, echoes, ny, nx)``."""
        return (*self._leading, *self.operators[0].domain_shape[1:])

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, echoes, …)``, such as ``(batch, echoes, coils, ny, nx)``."""
        return (*self._leading, *self.operators[0].range_shape[1:])

    @property
    def device(self) -> torch.device | None:
        """Where the operators' tensors live."""
        return next((echo.device for echo in self.operators if echo.device is not None), None)

    def forward(self, x: Tensor) -> Tensor:
        """``A_e x_e`` for each echo, ``(batch, echoes, …)``."""
        check_shape(x, self.domain_shape, "images of all echoes")
        return self._stack([echo.forward(x[:, e]) for e, echo in enumerate(self.operators)])

    def adjoint(self, y: Tensor) -> Tensor:
        """``A_eᴴ y_e`` for each echo, ``(batch, echoes, ny, nx)``."""
        check_shape(y, self.range_shape, "measurements of all echoes")
        return self._stack([echo.adjoint(y[:, e]) for e, echo in enumerate(self.operators)])

    def normal(self, x: Tensor) -> Tensor:
        """``A_eᴴA_e x_e`` for each echo, by the operators' own fast ways."""
        check_shape(x, self.domain_shape, "images of all echoes")
        return self._stack([echo.normal(x[:, e]) for e, echo in enumerate(self.operators)])

    def squared_norm(self, x: Tensor) -> Tensor:
        """``Σ_e ‖A_e x_e‖²`` of each sample, real, ``(batch,)``."""
        return self.squared_norms(x).sum(dim=1)

    def squared_norms(self, x: Tensor) -> Tensor:
        """``‖A_e x_e‖²`` of each sample and echo, real, ``(batch, echoes)``."""
        check_shape(x, self.domain_shape, "images of all echoes")
        return self._stack([echo.squared_norm(x[:, e]) for e, echo in enumerate(self.operators)])

    def folded(self, batch_size: int | None = None) -> LinearOperator:
        """The same map on images ``(batch · echoes, ny, nx)``, which every solver takes.

        Echoes are samples of their own: fold the measurement alike with ``y.flatten(0, 1)``, give
        a prompt (and a generator) for each of them, sample by sample and echo by echo, and unfold
        the images with ``x.unflatten(0, (batch, echoes))``. The prior then sees each echo alone.

        Args:
            batch_size: number of samples; the operator's own batch if not given.

        Raises:
            InputError: a batch size below 1, or another one than the operator's, unless that is 1.
        """
        own, _ = self._leading
        batch = own if batch_size is None else batch_size
        if batch < 1 or own not in {1, batch}:
            expected = "a positive batch_size" if own == 1 else f"a batch_size of {own}"
            raise InputError(f"expected {expected} to fold {self!r}, got {batch_size}")
        return _FoldedEchoes(self, batch)

    @staticmethod
    def _stack(echoes: list[Tensor]) -> Tensor:
        return torch.stack(echoes, dim=1)


class _FoldedEchoes(LinearOperator):
    """A :class:`MultiEcho` whose echoes are part of the batch."""

    multi_echo: MultiEcho
    batch_size: int

    def __init__(self, multi_echo: MultiEcho, batch_size: int) -> None:
        freeze(self, multi_echo=multi_echo, batch_size=batch_size)

    @property
    def _folded_batch(self) -> int:
        return self.batch_size * len(self.multi_echo.operators)

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch · echoes, ny, nx)``."""
        return (self._folded_batch, *self.multi_echo.domain_shape[2:])

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch · echoes, …)``."""
        return (self._folded_batch, *self.multi_echo.range_shape[2:])

    @property
    def device(self) -> torch.device | None:
        """Where the operators' tensors live."""
        return self.multi_echo.device

    def forward(self, x: Tensor) -> Tensor:
        """``A_e x_e`` for each sample and echo."""
        return self.multi_echo.forward(self._unfold(x, self.domain_shape)).flatten(0, 1)

    def adjoint(self, y: Tensor) -> Tensor:
        """``A_eᴴ y_e`` for each sample and echo."""
        return self.multi_echo.adjoint(self._unfold(y, self.range_shape)).flatten(0, 1)

    def normal(self, x: Tensor) -> Tensor:
        """``A_eᴴA_e x_e`` for each sample and echo."""
        return self.multi_echo.normal(self._unfold(x, self.domain_shape)).flatten(0, 1)

    def squared_norm(self, x: Tensor) -> Tensor:
        """``‖A_e x_e‖²`` of each sample and echo, real, ``(batch · echoes,)``."""
        return self.multi_echo.squared_norms(self._unfold(x, self.domain_shape)).flatten()

    def __getitem__(self, slices: Tensor) -> LinearOperator:
        """The operator of some of the folded echoes; itself for all of them in their order."""
        if slices.tolist() == list(range(self._folded_batch)):
            return self
        echoes = self.multi_echo.operators
        return _OneByOne(
            [
                echoes[i % len(echoes)][slices.new_tensor([i // len(echoes)])]
                for i in slices.tolist()
            ]
        )

    def _unfold(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        check_shape(value, shape, "echoes folded into the batch")
        return value.unflatten(0, (-1, len(self.multi_echo.operators)))


class _OneByOne(LinearOperator):
    """An operator of batch 1 for each slice."""

    _batched = ("operators",)

    operators: tuple[LinearOperator, ...]

    def __init__(self, operators: Sequence[LinearOperator]) -> None:
        freeze(self, operators=tuple(operators))

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """``(batch, ny, nx)``."""
        return (len(self.operators), *self.operators[0].domain_shape[1:])

    @property
    def range_shape(self) -> tuple[int, ...]:
        """``(batch, …)``."""
        return (len(self.operators), *self.operators[0].range_shape[1:])

    @property
    def device(self) -> torch.device | None:
        """Where the operators' tensors live."""
        return self.operators[0].device

    def __getitem__(self, slices: Tensor) -> LinearOperator:
        """The operator of some slices."""
        return _OneByOne([self.operators[i] for i in slices.tolist()])

    def forward(self, x: Tensor) -> Tensor:
        """``A_i x_i`` of each slice."""
        return torch.cat([a.forward(v) for a, v in zip(self.operators, x.split(1), strict=True)])

    def adjoint(self, y: Tensor) -> Tensor:
        """``A_iᴴ y_i`` of each slice."""
        return torch.cat([a.adjoint(v) for a, v in zip(self.operators, y.split(1), strict=True)])

    def normal(self, x: Tensor) -> Tensor:
        """``A_iᴴA_i x_i`` of each slice, by the operators' own fast ways."""
        return torch.cat([a.normal(v) for a, v in zip(self.operators, x.split(1), strict=True)])
