"""The classical reconstructions behind the same call as the diffusion pipeline."""

from __future__ import annotations

import inspect
import logging
from typing import Literal, overload

import torch
from torch import Tensor

from ctxrecon.arrays import ArrayLike
from ctxrecon.baselines import BASELINES
from ctxrecon.errors import InputError
from ctxrecon.inference.batches import (
    conclude,
    put_back,
)
from ctxrecon.inference.prompts import check_prompts
from ctxrecon.measurement import Measurement, count_slices, prepare_measurement
from ctxrecon.operators import LinearOperator
from ctxrecon.output import Images, ReconstructionOutput, check_output_type

logger = logging.getLogger(__name__)


class BaselinePipeline:
    """Zero-filled, CG-SENSE, L1-wavelet or total-variation reconstruction.

    Example:
        >>> output = BaselinePipeline("l1_wavelet")(kspace, mask)

    Args:
        method: a key of :data:`ctxrecon.baselines.BASELINES`.

    Raises:
        InputError: for an unknown method.
    """

    def __init__(self, method: str) -> None:
        self.method = BASELINES.find(method)

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        coil_maps: ArrayLike | None = ...,
        output_type: Literal["pt"] = ...,
        *,
        operator: LinearOperator | None = ...,
        regularization: float | None = ...,
        num_iterations: int | None = ...,
    ) -> ReconstructionOutput[Tensor]: ...

    @overload
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = ...,
        prompt: str | list[str] | None = ...,
        coil_maps: ArrayLike | None = ...,
        output_type: str = ...,
        *,
        operator: LinearOperator | None = ...,
        regularization: float | None = ...,
        num_iterations: int | None = ...,
    ) -> ReconstructionOutput[Images]: ...

    @torch.no_grad()
    def __call__(
        self,
        kspace: ArrayLike | Measurement,
        mask: ArrayLike | None = None,
        prompt: str | list[str] | None = None,
        coil_maps: ArrayLike | None = None,
        output_type: str = "pt",
        *,
        operator: LinearOperator | None = None,
        regularization: float | None = None,
        num_iterations: int | None = None,
    ) -> ReconstructionOutput[Images]:
        """Reconstruct.

        Args:
            kspace: ``(batch, coils, ny, nx)``, ``(coils, ny, nx)`` or ``(ny, nx)`` complex, NumPy
                or torch; see ``Measurement.from_arrays``.
            mask: where k-space was sampled; inferred from its zeros, and logged, if ``None``.
            prompt: taken so that every pipeline is called alike; these methods know no prompt.
            coil_maps: estimated from the calibration region if ``None``.
            output_type: ``"pt"``, ``"np"`` or ``"pil"``.
            operator: ``A``, where it is another one than ``M F S``; ``kspace`` is then its data.
            regularization: weight ``λ``; the method's own default if ``None``.
            num_iterations: the method's own default if ``None``.

        Returns:
            Output with ``images``, ``residual`` and ``coil_maps``.

        Raises:
            InputError: for a malformed measurement, an option that the method does not have, or
                NaN or infinite values in the result.
        """
        check_output_type(output_type)
        given = {"regularization": regularization, "num_iterations": num_iterations}
        options = {name: value for name, value in given.items() if value is not None}
        reconstruct = BASELINES[self.method]
        unknown = options.keys() - inspect.signature(reconstruct).parameters.keys()
        if unknown:
            raise InputError(f"{self.method} has no {' or '.join(sorted(unknown))}: leave it out")
        check_prompts(prompt, count_slices(kspace, operator))
        if prompt is not None:
            logger.info("%s does not use the prompt", self.method)
        measurement = prepare_measurement(kspace, mask, coil_maps, operator=operator)
        work, _ = measurement.normalized()
        filled = work.filled
        images = []
        if len(filled):
            part = work[filled]
            images = [reconstruct(part.operator, part.y, **options)]
        like = work.y.new_zeros((len(work), *work.operator.domain_shape[1:]))
        return conclude(put_back(images, filled, like), measurement, output_type)
