"""Operators of several echoes or contrasts of one slice, each with its own measurement."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ctxrecon.errors import InputError
from ctxrecon.operators.algebra import LinearOperator
from ctxrecon.operators.base import check_shape, freeze


class MultiEcho(LinearOperator):
    r"""Block-diagonal operator with one block per echo or contrast.

    .. math::

        A = \operatorname{diag}(A_1, \dots, A_E)

    It maps images ``(batch, echoes, ny, nx)`` to measurements ``(batch, echoes, …)``, such as
    k-space ``(batch, echoes, coils, ny, nx)``. Methods for all echoes at once accept this operator;
    solvers on images ``(batch, ny, nx)`` accept :meth:`folded`.

    Example:
        >>> import torch
        >>> from ctxrecon.operators import CartesianSense, MultiEcho
        >>> echo = CartesianSense(torch.ones(1, 1, 8, 8, dtype=torch.bool))
        >>> operator = MultiEcho([echo, echo, echo])
        >>> operator.domain_shape, operator.folded().domain_shape
        ((1, 3, 8, 8), (3, 8, 8))

    Args:
        operators: Operators on images ``(batch, ny, nx)``, one per echo, of equal shapes; masks and
            coil maps may differ.

    Raises:
        InputError: If there are no operators, or their shapes differ.
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
        """Device of the operators' tensors."""
        return next((echo.device for echo in self.operators if echo.device is not None), None)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``A_e x_e`` of each echo, ``(batch, echoes, …)``."""
        check_shape(x, self.domain_shape, "images of all echoes")
        return self._stack([echo.forward(x[:, e]) for e, echo in enumerate(self.operators)])

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``A_eᴴ y_e`` of each echo, ``(batch, echoes, ny, nx)``."""
        check_shape(y, self.range_shape, "measurements of all echoes")
        return self._stack([echo.adjoint(y[:, e]) for e, echo in enumerate(self.operators)])

    def normal(self, x: Tensor) -> Tensor:
        """Return ``A_eᴴA_e x_e`` of each echo, with the operators' fast ``normal``."""
        check_shape(x, self.domain_shape, "images of all echoes")
        return self._stack([echo.normal(x[:, e]) for e, echo in enumerate(self.operators)])

    def squared_norm(self, x: Tensor) -> Tensor:
        """Return ``Σ_e ‖A_e x_e‖²`` of each sample, real, ``(batch,)``."""
        return self.squared_norms(x).sum(dim=1)

    def squared_norms(self, x: Tensor) -> Tensor:
        """Return ``‖A_e x_e‖²`` of each sample and echo, real, ``(batch, echoes)``."""
        check_shape(x, self.domain_shape, "images of all echoes")
        return self._stack([echo.squared_norm(x[:, e]) for e, echo in enumerate(self.operators)])

    def folded(self, batch_size: int | None = None) -> LinearOperator:
        """Return the same map on images ``(batch · echoes, ny, nx)``, which every solver accepts.

        Echoes become separate samples: fold the measurement with ``y.flatten(0, 1)``, pass one
        prompt (and generator) per sample and echo in this order, and unfold the images with
        ``x.unflatten(0, (batch, echoes))``. The prior then treats the echoes independently.

        Args:
            batch_size: Number of samples; defaults to the operator's batch.

        Raises:
            InputError: If the batch size is below 1, or differs from an operator's batch above 1.
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
    """A :class:`MultiEcho` with the echoes folded into the batch."""

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
        """Device of the operators' tensors."""
        return self.multi_echo.device

    def forward(self, x: Tensor) -> Tensor:
        """Return ``A_e x_e`` of each sample and echo."""
        return self.multi_echo.forward(self._unfold(x, self.domain_shape)).flatten(0, 1)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``A_eᴴ y_e`` of each sample and echo."""
        return self.multi_echo.adjoint(self._unfold(y, self.range_shape)).flatten(0, 1)

    def normal(self, x: Tensor) -> Tensor:
        """Return ``A_eᴴA_e x_e`` of each sample and echo."""
        return self.multi_echo.normal(self._unfold(x, self.domain_shape)).flatten(0, 1)

    def squared_norm(self, x: Tensor) -> Tensor:
        """Return ``‖A_e x_e‖²`` of each sample and echo, real, ``(batch · echoes,)``."""
        return self.multi_echo.squared_norms(self._unfold(x, self.domain_shape)).flatten()

    def __getitem__(self, slices: Tensor) -> LinearOperator:
        """Return the operator of selected folded echoes, or itself for all of them in order."""
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
    """Operator composed of one operator of batch 1 per slice."""

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
        """Device of the operators' tensors."""
        return self.operators[0].device

    def __getitem__(self, slices: Tensor) -> LinearOperator:
        """Return the operator of selected slices."""
        return _OneByOne([self.operators[i] for i in slices.tolist()])

    def forward(self, x: Tensor) -> Tensor:
        """Return ``A_i x_i`` of each slice."""
        return torch.cat([a.forward(v) for a, v in zip(self.operators, x.split(1), strict=True)])

    def adjoint(self, y: Tensor) -> Tensor:
        """Return ``A_iᴴ y_i`` of each slice."""
        return torch.cat([a.adjoint(v) for a, v in zip(self.operators, y.split(1), strict=True)])

    def normal(self, x: Tensor) -> Tensor:
        """Return ``A_iᴴA_i x_i`` of each slice, with the operators' fast ``normal``."""
        return torch.cat([a.normal(v) for a, v in zip(self.operators, x.split(1), strict=True)])
